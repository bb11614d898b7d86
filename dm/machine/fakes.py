"""Fakes of every collaborator of a device, for tests: platform, guest memory, time, chardev.

They are part of the kit: `TestBench` puts devices into a machine whose other side is a script.
Each fake is held to the real one's rules by a test of its own.
"""

from __future__ import annotations

from dm.device.platform import MEMORY, PCI, PCI_SHIFT, PORT, GuestMemory, Platform
from dm.errors import GuestError, HostError

from .machine import Machine
from .ranges import subtract, union

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from dm.device.device import Device

__all__ = ["FakeCharacter", "FakeMemory", "FakePlatform", "TestBench"]

RANGE_LIMIT = 256
"""Ranges per space, as Xen limits them (ioreq.c: MAX_NR_IO_RANGES)."""


class FakeMemory(GuestMemory):
    """RAM of ``size`` bytes from GPA ``base``; everything else is a hole."""

    def __init__(self, size: int = 1 << 20, base: int = 0) -> None:
        self.base = base
        self.ram = bytearray(size)
        self.invalidations = 0

    def _range(self, gpa: int, length: int) -> slice:
        start = gpa - self.base
        if start < 0 or length < 0 or start + length > len(self.ram):
            raise GuestError(f"{length} bytes at {gpa:#x} are not all RAM")
        return slice(start, start + length)

    def read(self, gpa: int, length: int) -> bytes:
        """See `GuestMemory.read`."""
        return bytes(self.ram[self._range(gpa, length)])

    def write(self, gpa: int, data: bytes | bytearray | memoryview[int]) -> None:
        """See `GuestMemory.write`."""
        self.ram[self._range(gpa, len(data))] = data

    def invalidate(self) -> None:
        """Count the request."""
        self.invalidations += 1


class FakePlatform(Platform):
    """Records what devices ask of the platform, and refuses what Xen would refuse."""

    def __init__(self) -> None:
        self.claimed: dict[int, list[tuple[int, int]]] = {PORT: [], MEMORY: [], PCI: []}
        self.isa: dict[int, int] = {}
        self.intx: dict[tuple[int, int], int] = {}
        self.links: dict[int, int] = {}
        self.msis: list[tuple[int, int]] = []
        self.shutdowns: list[str] = []
        self.memory_types: list[tuple[int, int, bool]] = []
        self.suspends = 0

    def claim(self, space: int, first: int, last: int) -> None:
        """Take a range; HostError for what Xen answers with EINVAL, EEXIST or ENOMEM."""
        if first > last:
            raise HostError(f"range {first:#x}-{last:#x} is empty", 22)
        if subtract([(first, last)], self.claimed[space]) != [(first, last)]:
            raise HostError(f"range {first:#x}-{last:#x} overlaps a claimed one", 17)
        ranges = union([*self.claimed[space], (first, last)])
        if len(ranges) > RANGE_LIMIT:
            raise HostError(f"more than {RANGE_LIMIT} ranges", 12)
        self.claimed[space] = ranges

    def release(self, space: int, first: int, last: int) -> None:
        """Give a range back; HostError where Xen answers ENOENT."""
        if subtract([(first, last)], self.claimed[space]):
            raise HostError(f"range {first:#x}-{last:#x} is not claimed", 2)
        self.claimed[space] = subtract(self.claimed[space], [(first, last)])

    def set_isa_irq(self, irq: int, level: int) -> None:
        """Keep the level."""
        self.isa[irq] = level

    def set_intx(self, slot: int, pin: int, level: int) -> None:
        """Keep the level."""
        self.intx[slot, pin] = level

    def set_link_route(self, link: int, irq: int) -> None:
        """Keep the route."""
        self.links[link] = irq

    def inject_msi(self, address: int, data: int) -> None:
        """Keep the message."""
        self.msis.append((address, data))

    def set_memory_type(self, first_gfn: int, count: int, *, writable: bool) -> None:
        """Keep the call."""
        self.memory_types.append((first_gfn, count, writable))

    def shutdown(self, reason: str) -> None:
        """Keep the reason."""
        self.shutdowns.append(reason)

    def suspend(self) -> None:
        """Count the call."""
        self.suspends += 1


class FakeCharacter:
    """A chardev whose host end is a test: ``sent`` is what came out, ``feed`` puts bytes in."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.pending = bytearray()
        self.accepts: int | None = None
        self._receive: Callable[[bytes], None] = lambda data: None
        self._room: Callable[[], int] = lambda: 0

    def connect(self, receive: Callable[[bytes], None], room: Callable[[], int]) -> None:
        """Take the device's end."""
        self._receive, self._room = receive, room
        self.accept_input()

    def write(self, data: bytes) -> int:
        """Take output: all of it, or as much as ``accepts`` allows."""
        taken = len(data) if self.accepts is None else min(len(data), self.accepts)
        self.sent += data[:taken]
        return taken

    def feed(self, data: bytes) -> None:
        """Put ``data`` in; what the device has no room for waits."""
        self.pending += data
        self.accept_input()

    def accept_input(self) -> None:
        """Deliver as much as there is room for."""
        while self.pending:
            room = self._room()
            if room <= 0:
                return
            data = bytes(self.pending[:room])
            del self.pending[:room]
            self._receive(data)


class TestBench:
    """A machine with ``devices`` on a scripted bus: ports, memory, PCI configuration, time."""

    __test__ = False

    def __init__(self, *devices: Device, kind: str = "bench", memory: int = 1 << 20) -> None:
        self.host_time = 0
        self.platform = FakePlatform()
        self.memory = FakeMemory(memory)
        self.machine = Machine(kind, self.platform, self.memory, lambda: self.host_time)
        for device in devices:
            self.machine.add(device)
        self.machine.seal()
        self.machine.connect()
        self.machine.start()

    def read(self, port: int, size: int = 1) -> int:
        """IN of ``size`` bytes."""
        return self.machine.bus.read(PORT, port, size)

    def write(self, port: int, value: int, size: int = 1) -> None:
        """OUT of ``size`` bytes."""
        self.machine.bus.write(PORT, port, size, value)

    def load(self, gpa: int, size: int = 4) -> int:
        """A load of ``size`` bytes from guest-physical memory that is not RAM."""
        return self.machine.bus.read(MEMORY, gpa, size)

    def store(self, gpa: int, value: int, size: int = 4) -> None:
        """A store of ``size`` bytes to guest-physical memory that is not RAM."""
        self.machine.bus.write(MEMORY, gpa, size, value)

    def config_read(self, devfn: int, register: int, size: int = 4) -> int:
        """Read PCI configuration space of ``devfn`` on bus 0."""
        return self.machine.bus.read(PCI, devfn << PCI_SHIFT | register, size)

    def config_write(self, devfn: int, register: int, value: int, size: int = 4) -> None:
        """Write PCI configuration space of ``devfn`` on bus 0."""
        self.machine.bus.write(PCI, devfn << PCI_SHIFT | register, size, value)

    def advance(self, nanoseconds: int) -> None:
        """Let guest time pass; timers fire in order, each at its own time."""
        end = self.host_time + nanoseconds
        while True:
            deadline = self.machine.timers.next_deadline()
            if deadline is None:
                break
            at = self.host_time + max(deadline - self.machine.clock.now(), 0)
            if at > end:
                break
            self.host_time = at
            self.machine.run_timers()
        self.host_time = end
