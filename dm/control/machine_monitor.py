"""What a monitor's commands do to the running device model."""

from __future__ import annotations

import os

from dm.device.platform import PORT
from dm.errors import HostError

from .monitor import Monitor, PciFunctionInfo, PciRegionInfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dm.device.pci import PciDevice
    from dm.device.window import LiveWindow

    from .process import DeviceModel

__all__ = ["MachineMonitor"]


class MachineMonitor(Monitor):
    """The monitor of a `DeviceModel`."""

    def __init__(self, model: DeviceModel) -> None:
        self._model = model
        options = model.options
        self.name = options.name
        self.maxcpus = options.maxcpus
        self.vnc_requested = options.vnc is not None
        if options.uuid is not None:
            self.uuid = options.uuid

    def run_state(self) -> str:
        """See `Monitor.run_state`."""
        return "suspended" if self._model.hypervisor.suspended else self._model.run_state

    def stop(self) -> None:
        """See `Monitor.stop`."""
        self._model.stop()

    def cont(self) -> None:
        """See `Monitor.cont`."""
        self._model.cont()

    def reset(self) -> None:
        """On Xen a platform reset is the domain's: the toolstack makes it anew."""
        self._model.platform_shutdown("reboot")

    def power_down(self) -> None:
        """The power button is Xen's (xl trigger power); nothing hangs on the device model's."""

    def wake_up(self) -> None:
        """See `Monitor.wake_up`."""
        self._model.wake_up()

    def quit(self) -> None:
        """See `Monitor.quit`."""
        self._model.qmp.emit("SHUTDOWN", {"guest": False, "reason": "host-qmp-quit"})
        self._model.quit()

    def save(self, fd: int, live: bool) -> None:
        """See `Monitor.save`."""
        data = self._model.save()
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(fd, view) :]
            except OSError as error:
                raise HostError(f"writing the state: {error.strerror}", error.errno or 0) from None

    def load(self, fd: int) -> None:
        """See `Monitor.load`."""
        self._model.load(read_all(fd))

    def set_dirty_log(self, enable: bool) -> None:
        """See `Monitor.set_dirty_log`."""
        self._model.set_dirty_log(enabled=enable)

    def chardevs(self) -> list[tuple[str, str, bool]]:
        """See `Monitor.chardevs`."""
        return self._model.chardevs.entries()

    def online_vcpus(self) -> list[int]:
        """See `Monitor.online_vcpus`."""
        return self._model.online_vcpus()

    def plug_vcpu(self, number: int) -> None:
        """See `Monitor.plug_vcpu`."""
        self._model.plug_vcpu(number)

    def pci_functions(self) -> list[PciFunctionInfo]:
        """See `Monitor.pci_functions`."""
        machine = self._model.machine
        found = sorted(machine.functions(), key=lambda function: function.sbdf) if machine else []
        return [_function(function) for function in found]

    def statistics(self) -> str:
        """See `Monitor.statistics`."""
        return self._model.statistics()


def read_all(fd: int) -> bytes:
    """All that can be read from ``fd``; HostError when reading fails."""
    pieces = []
    try:
        while piece := os.read(fd, 1 << 20):
            pieces.append(piece)
    except OSError as error:
        raise HostError(f"reading the state: {error.strerror}", error.errno or 0) from None
    return b"".join(pieces)


def _function(device: PciDevice) -> PciFunctionInfo:
    config, identity = device.config, device.identity
    return PciFunctionInfo(
        0,
        device.devfn >> 3,
        device.devfn & 7,
        identity.vendor,
        identity.device,
        identity.class_code,
        subsystem=(identity.subsystem_vendor, identity.subsystem),
        pin=identity.pin,
        irq=config.interrupt_line.value,
        qdev_id=device.name,
        regions=tuple(
            _region(device, window)
            for window in device.windows
            if device.bar_of(window.name) is not None
        ),
    )


def _region(device: PciDevice, window: LiveWindow) -> PciRegionInfo:
    bar = device.bar_of(window.name)
    address = -1 if window.base is None else window.base
    return PciRegionInfo(bar or 0, window.space == PORT, address, window.size)
