"""The machine as a monitor sees it: what QMP and its human form can ask for.

The process implements it. What a method does not override is answered as QEMU answers for a machine
that lacks the thing. Every method may raise ConfigError, GuestError or HostError: the client gets
the message as a GenericError; a QmpError chooses its class itself.
"""

from __future__ import annotations

from dm.control.qmp_error import UNSUPPORTED, QmpError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Monitor", "PciFunctionInfo", "PciRegionInfo"]


class PciRegionInfo:
    """A BAR for query-pci.

    :param bar: 0 to 5, or 6 for the expansion ROM; ``io``: ports or memory.
    :param address: as programmed, or -1 while it is not; ``size``: in bytes.
    """

    __slots__ = ("address", "bar", "io", "memory_64", "prefetch", "size")

    def __init__(
        self,
        bar: int,
        io: bool,
        address: int,
        size: int,
        prefetch: bool = False,
        memory_64: bool = False,
    ) -> None:
        self.bar, self.io, self.address, self.size = bar, io, address, size
        self.prefetch, self.memory_64 = prefetch, memory_64


class PciFunctionInfo:
    """A PCI function for query-pci.

    :param class_code: 24 bits, as in the configuration space; ``description``: of the class.
    :param pin: 0 for none, 1 for INTA and so on; ``irq``: the interrupt line register.
    :param qdev_id: the id from the command line, or "".
    """

    __slots__ = (
        "bus",
        "class_code",
        "description",
        "device",
        "function",
        "irq",
        "pin",
        "qdev_id",
        "regions",
        "slot",
        "subsystem",
        "vendor",
    )

    def __init__(
        self,
        bus: int,
        slot: int,
        function: int,
        vendor: int,
        device: int,
        class_code: int,
        description: str = "",
        subsystem: tuple[int, int] = (0, 0),
        pin: int = 0,
        irq: int = 0,
        qdev_id: str = "",
        regions: tuple[PciRegionInfo, ...] = (),
    ) -> None:
        self.bus, self.slot, self.function = bus, slot, function
        self.vendor, self.device, self.subsystem = vendor, device, subsystem
        self.class_code, self.description = class_code, description
        self.pin, self.irq, self.qdev_id = pin, irq, qdev_id
        self.regions = regions


class Monitor:
    """What a monitor may ask of the machine; the process overrides what it has.

    - ``name``, ``uuid``: of the guest; ``maxcpus``: how many vCPUs there may be
    - ``vnc_requested``: the toolstack asked for VNC. There is none, but passwords for it are then
      accepted: libxl fails the creation of a guest whose password is refused.
    """

    name: str | None = None
    uuid: str = "00000000-0000-0000-0000-000000000000"
    maxcpus: int = 1
    vnc_requested: bool = False

    def run_state(self) -> str:
        """``running``, ``paused``, ``prelaunch``, ``inmigrate``, ``shutdown``, ``suspended``…"""
        return "prelaunch"

    def stop(self) -> None:
        """Quiesces: no device acts on the guest until :meth:`cont`. No-op unless running.

        The implementation announces STOP, and :meth:`cont` RESUME, when the state changes.
        """
        raise QmpError(UNSUPPORTED)

    def cont(self) -> None:
        """Goes on exactly where :meth:`stop` interrupted. No-op when running."""
        raise QmpError(UNSUPPORTED)

    def reset(self) -> None:
        """Resets the machine; announces RESET."""
        raise QmpError(UNSUPPORTED)

    def power_down(self) -> None:
        """Presses the power button; announces POWERDOWN."""
        raise QmpError(UNSUPPORTED)

    def wake_up(self) -> None:
        """Wakes a guest that sleeps (ACPI S3)."""
        raise QmpError("wake-up from suspend is not supported by this guest")

    def inject_nmi(self) -> None:
        """Raises a non-maskable interrupt on every vCPU."""
        raise QmpError(UNSUPPORTED)

    def quit(self) -> None:
        """Asks the process to end once the answer has been sent; must return."""
        raise QmpError(UNSUPPORTED)

    def save(self, fd: int, live: bool) -> None:
        """Writes the devices' state to an empty file; the machine is stopped meanwhile.

        :param fd: stays the caller's; ``live``: as libxl said, True for a migration.
        """
        raise QmpError(UNSUPPORTED)

    def load(self, fd: int) -> None:
        """Reads what :meth:`save` wrote; on an error the old state stays. Not while running."""
        raise QmpError(UNSUPPORTED)

    def set_dirty_log(self, enable: bool) -> None:
        """Whether every page that a device writes must be reported to Xen."""
        raise QmpError(UNSUPPORTED)

    def chardevs(self) -> list[tuple[str, str, bool]]:
        """(label, file name in QEMU's notation, in use) of every back end and monitor."""
        return []

    def online_vcpus(self) -> list[int]:
        """Numbers of the vCPUs that are online."""
        return [0]

    def plug_vcpu(self, number: int) -> None:
        """Brings a vCPU online; only called with one below ``maxcpus`` that is not."""
        raise QmpError(UNSUPPORTED)

    def pci_functions(self) -> list[PciFunctionInfo]:
        """Every PCI function, in the order of bus, slot and function."""
        return []

    def add_device(self, driver: str, options: dict[str, Any]) -> None:
        """Plugs a device; ``options`` are as they stood, ``id`` among them if it was given."""
        raise QmpError(f"'{driver}' is not a valid device model name")

    def remove_device(self, device_id: str) -> None:
        """Unplugs a device."""
        raise QmpError(f"Device '{device_id}' not found", "DeviceNotFound")

    def drives(self) -> list[str]:
        """Identifiers of the drives whose medium can be changed."""
        return []

    def eject(self, drive: str, force: bool) -> None:
        """Takes the medium out of one of :meth:`drives`."""
        raise QmpError(f"Device '{drive}' is not removable")

    def insert(self, drive: str, fd: int, image_format: str, read_only: bool) -> None:
        """Puts a medium into one of :meth:`drives`; ``fd`` becomes the implementation's."""
        raise QmpError(f"Device '{drive}' is not removable")

    def block_devices(self) -> list[dict[str, Any]]:
        """What query-block returns (QEMU 7.2, qapi/block-core.json, BlockInfo)."""
        return []

    def block_statistics(self) -> list[dict[str, Any]]:
        """What query-blockstats returns (BlockStats)."""
        return []

    def statistics(self) -> str:
        """Lines about requests, faults and devices, for people: ``info ioreq``."""
        return ""
