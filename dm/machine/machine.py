"""Devices wired together: declare, seal, run, quiesce.

A machine is *declared* by adding devices, *sealed* once (its flat buffer of state is laid out, the
devices are bound and reset, the dispatch tables are built), then it *runs* and *stops*. It knows
no hypervisor: what it needs from outside comes as a `Platform`, a `GuestMemory` and a host clock.
"""

from __future__ import annotations

from dm.device.device import Collaborators
from dm.device.pci import PciDevice
from dm.device.platform import PCI, PCI_SHIFT
from dm.errors import ConfigError, HostError
from dm.observe.log import Log

from .address_space import AddressSpaces
from .bus import Bus
from .journal import Journal
from .timers import GuestClock, Timers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dm.device.device import Device
    from dm.device.platform import GuestMemory, Platform
    from dm.device.state import LiveTimer
    from dm.device.window import LiveWindow

__all__ = ["Machine"]

LAST_SLOT = 31


class Machine:
    """A set of devices behind one platform. ``kind`` names the machine type in saved state.

    ``slack``: 0, or a number of bytes of which every region of state is to be a multiple, so that
    there is room for more; set before `seal`. ``layout_changes`` is told False when the meaning of
    the buffer's bytes is about to change, and True when it has.
    """

    def __init__(
        self,
        kind: str,
        platform: Platform,
        memory: GuestMemory,
        host_now: Callable[[], int],
    ) -> None:
        self.kind = kind
        self.platform = platform
        self.memory = memory
        self.clock = GuestClock(host_now)
        self.timers = Timers(self.clock)
        self.spaces = AddressSpaces(platform)
        self.bus = Bus(self.spaces)
        self.devices: list[Device] = []
        self.errors = 0
        self._log = Log("machine")
        self._device_logs: dict[str, Log] = {}
        self._sealed = False
        self._regions: list[tuple[int, int]] = []
        self.slack = 0
        self.layout_changes: Callable[[bool], None] = lambda done: None
        self._buffer: memoryview[int] | None = None
        self.journal = Journal()

    def add(self, device: Device) -> Device:
        """Add a device. ConfigError when the machine is sealed or the name is taken."""
        if self._sealed:
            raise ConfigError(f"{device.name}: the machine is sealed")
        if any(other.name == device.name for other in self.devices):
            raise ConfigError(f"there are two devices named {device.name!r}")
        self.devices.append(device)
        return device

    def seal(self, buffer: memoryview[int] | None = None) -> None:
        """Fix the set of devices and bring them to life, in their reset state.

        ``buffer``: where state is to live; at least ``state_size()`` bytes, zeroed. None makes one.
        """
        self._assign_slots()
        self._buffer = memoryview(bytearray(self.state_size())) if buffer is None else buffer
        self._sealed = True
        position = 0
        for device in self.devices:
            size = self.room_for(device)
            self.bind(device, self._buffer[position : position + size])
            self._regions.append((position, size))
            position += size
            for window in device.windows:
                self.check_place(device, window)
                self.spaces.add(window)
        places = zip(self.devices, self._regions, strict=True)
        self.journal.seal(len(self._buffer), {one.name: at for one, (at, _) in places})
        self.spaces.undo_of = self.journal.undo_of
        for device in self.devices:
            self.lend(device)
            device.power_on()

    def bind(self, device: Device, region: memoryview[int]) -> None:
        """Bring a device to life over its region of the buffer."""
        device.bind(region, self.collaborators())

    def collaborators(self) -> Collaborators:
        """What the machine hands to its devices."""
        return Collaborators(
            self.platform,
            self.memory,
            self.clock.now,
            self.timers.changed,
            self._remap,
            self._report,
            lambda: self.clock.running,
            self.contain,
        )

    def lend(self, device: Device) -> None:
        """Hand the configuration space to a device that asks for it."""
        lend = getattr(device, "lend_config_space", None)
        if lend is not None:
            lend(self.read_config, self.write_config)

    def read_config(self, sbdf: int, register: int) -> int:
        """One byte of a function's configuration space; ones where there is no function."""
        return self.bus.read(PCI, sbdf << PCI_SHIFT | register, 1)

    def write_config(self, sbdf: int, register: int, value: int) -> None:
        """Write one byte of a function's configuration space."""
        self.bus.write(PCI, sbdf << PCI_SHIFT | register, 1, value)

    def inherit(self, data: bytes, guest_time: int) -> None:
        """Go on with the buffer that a predecessor left, whose layout is known to be the same."""
        self.buffer[: len(data)] = data
        self.clock.set(guest_time)
        self.after_load()

    def connect(self) -> None:
        """Claim the ranges of all windows and drive all lines; call when the platform is ready."""
        self.complain(self.spaces.place_all())
        self._redrive()

    def state_size(self) -> int:
        """Bytes of the flat buffer."""
        return sum(self.room_for(device) for device in self.devices)

    def room_for(self, device: Device) -> int:
        """Bytes of the buffer that are the device's region."""
        size = device._layout.region_size
        if not self.slack:
            return size
        return (size + self.slack // 16 + self.slack - 1) // self.slack * self.slack

    def _assign_slots(self) -> None:
        """Give each PCI function its place; those that ask for one first, then the lowest free."""
        functions = [device for device in self.devices if isinstance(device, PciDevice)]
        taken: dict[int, str] = {}
        for device in functions:
            if device.addr:
                devfn = _parse_address(device)
                if devfn in taken:
                    raise ConfigError(f"{device.name}: {device.addr} belongs to {taken[devfn]}")
                taken[devfn] = device.name
                device.place_at(devfn)
        for device in functions:
            if not device.addr:
                used = {devfn >> 3 for devfn in taken}
                free = next((slot for slot in range(1, LAST_SLOT + 1) if slot not in used), None)
                if free is None:
                    raise ConfigError(f"{device.name}: PCI bus 0 is full")
                taken[free << 3] = device.name
                device.place_at(free << 3)

    def check_place(self, device: Device, window: LiveWindow) -> None:
        """ConfigError when a window of ``device`` lies where another device's is.

        Fixed windows that collide are the user's mistake, not something to resolve.
        """
        base = window.wanted()
        if base is None or window.space == PCI:
            return
        for other in self.devices:
            for taken in getattr(other, "windows", ()):
                at = taken.wanted()
                if other is device or taken.space != window.space or at is None:
                    continue
                if at < base + window.size and base < at + taken.size:
                    raise ConfigError(f"{device.name} and {other.name} both want {base:#x}")

    def function(self, sbdf: int) -> PciDevice | None:
        """The PCI function at ``sbdf``."""
        found = self.spaces.find(PCI, sbdf << PCI_SHIFT)
        if found is None or not isinstance(found[0].device, PciDevice):
            return None
        return found[0].device

    def functions(self) -> Iterator[PciDevice]:
        """All PCI functions."""
        return (device for device in self.devices if isinstance(device, PciDevice))

    def reset(self) -> None:
        """Bring every device to its reset state, as the platform's reset line does."""
        for device in self.devices:
            for timer in device.timers:
                timer.stop()
            device.power_on()
        self.connect()
        self._accept_input()

    def start(self) -> None:
        """Let guest time and timers run."""
        self.clock.start()
        self._accept_input()

    def _accept_input(self) -> None:
        """Let host input come that was held back while nobody could take it."""
        for device in self.devices:
            plug = device.character_plug()
            if plug is not None:
                plug.accept_input()

    def stop(self) -> None:
        """Let guest time stand still; no timer fires until ``start``."""
        self.clock.stop()

    def run_timers(self) -> None:
        """Fire what is due; a handler's exception is contained."""
        for timer in self.timers.due(self._enter_timer):
            try:
                timer.handler()
            except Exception as error:
                self.contain(error, "timer")
            self.journal.leave()

    def _enter_timer(self, timer: LiveTimer) -> None:
        device = next((one for one in self.devices if timer in one.timers), None)
        if device is not None:
            self.journal.enter(device)

    def contain(self, error: Exception, what: str) -> None:
        """Count a device's exception and log it, once per place and rate-limited."""
        self.errors += 1
        self._log.limited_exception(error, "%s: %s", what, error)

    def _redrive(self) -> None:
        for device in self.devices:
            self.redrive(device)

    def redrive(self, device: Device) -> None:
        """Tell the platform what it keeps for the device, lines above all."""
        for tell in (device.forward, *[line.redrive for line in device.lines]):
            try:
                tell()
            except HostError as error:
                self.contain(error, device.name)

    def lower_lines(self) -> None:
        """Drive every line low: a level outlives the emulator that raised it."""
        for device in self.devices if self._buffer is not None else ():
            for line in device.lines:
                try:
                    line.lower()
                except HostError as error:
                    self.contain(error, device.name)

    def after_load(self) -> None:
        """Re-derive what hangs on state: timers, windows, host-side work, lines; in that order."""
        for device in self.devices:
            for timer in device.timers:
                self.timers.changed(timer)
        self.complain(self.spaces.place_all())
        for device in self.devices:
            device.restored()
        self._redrive()

    def substitute(self, old: Device, new: Device) -> None:
        """Let ``new`` stand where ``old`` was; it is bound to the region that was the old one's."""
        self.devices[self.devices.index(old)] = new

    def regions(self) -> Iterator[tuple[Device, int, int]]:
        """Each device with the offset and size of its region of the flat buffer."""
        for device, (position, size) in zip(self.devices, self._regions, strict=True):
            yield device, position, size

    @property
    def buffer(self) -> memoryview[int]:
        """The flat buffer that holds all state."""
        if self._buffer is None:
            raise RuntimeError("the machine is not sealed")
        return self._buffer

    def _remap(self, device: Device) -> None:
        self.complain(self.spaces.replace(list(device.windows)))

    def complain(self, problems: list[HostError]) -> None:
        """Count and log what the platform refused."""
        for problem in problems:
            self.contain(problem, "claim")

    def _report(self, device: Device, message: str, arguments: tuple[object, ...]) -> None:
        log = self._device_logs.get(device.name)
        if log is None:
            log = self._device_logs[device.name] = Log(device.name)
        log.limited(message, *arguments)


def _parse_address(device: PciDevice) -> int:
    """Read ``slot`` or ``slot.function``, hexadecimal as QEMU's ``addr=`` takes it."""
    slot, _, function = device.addr.partition(".")
    try:
        number, part = int(slot, 16), int(function or "0", 16)
    except ValueError:
        raise ConfigError(f"{device.name}: addr={device.addr} is not slot.function") from None
    if not 0 <= number <= LAST_SLOT or not 0 <= part <= 7:
        raise ConfigError(f"{device.name}: addr={device.addr} is not on bus 0")
    return number << 3 | part
