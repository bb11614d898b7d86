"""A device under a random guest: what such a guest does, and all that it can observe.

A *step* is a few random numbers; what it means (which register, which address) is decided when it
is performed, from the device's declarations and state alone. Two devices in the same state
therefore do the same for the same step, wherever their windows have gone meanwhile.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, NamedTuple

from dm.device.character import LiveCharacter
from dm.device.deferral import Deferral
from dm.device.pci import PciDevice
from dm.device.platform import MEMORY, PCI, PORT
from dm.device.window import MmioBar, PortBar
from dm.errors import GuestError
from dm.machine.container import load, save
from dm.machine.fakes import FakeCharacter, TestBench

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dm.device.device import Device
    from dm.device.window import LiveWindow

    Factory = Callable[[], Device]

__all__ = ["Access", "Observation", "Session", "Step", "steps"]

__tracebackhide__ = True
"""pytest shows the device's frames, not this file's."""

SIZES = {PORT: (1, 2, 4), MEMORY: (1, 2, 4, 8), PCI: (1, 2, 4)}
"""Bytes per element that a guest's instruction can have, by space."""

FIRES_LIMIT = 2000
"""Timers that one step lets fire; a fast periodic timer costs no more than this."""

MEMORY_SIZE = 1 << 20
"""Bytes of the guest's RAM, full of noise."""

BAR_BASES = {MEMORY: 0xE000_0000, PORT: 0xC000}
"""Where `place` begins to put BARs."""

LIMITS = {PORT: 1 << 16, MEMORY: 1 << 64, PCI: 1 << 48}

_KINDS = ("read", "write", "read_string", "write_string", "read_block", "write_block")
_WEIGHTS = {
    "read": 36,
    "write": 38,
    "read_string": 3,
    "write_string": 3,
    "read_block": 2,
    "write_block": 2,
    "advance": 8,
    "feed": 4,
    "place": 4,
}


class Step(NamedTuple):
    """One random act: its kind, and the seed of everything else about it."""

    kind: str
    seed: int


class Access(NamedTuple):
    """An access as a step became one in some state. ``data``: what a write writes."""

    kind: str
    space: int
    address: int
    size: int
    times: int
    step: int
    data: bytes


class Observation(NamedTuple):
    """All that a guest and its host can see of one step."""

    answer: int | bytes | str | None
    levels: tuple[tuple[object, int], ...]
    events: tuple[object, ...]
    sent: tuple[bytes, ...]


def steps(random: Random, count: int) -> Iterator[Step]:
    """``count`` random steps; the same for the same state of ``random``."""
    kinds = random.choices(list(_WEIGHTS), list(_WEIGHTS.values()), k=count)
    for kind in kinds:
        yield Step(kind, random.getrandbits(64))


class Session:
    """A fresh device of ``factory`` on a bench of its own.

    ``seed``: of the noise in the guest's memory; left out, the memory is zero. ``last`` tells what
    was done last, in words.
    """

    def __init__(self, factory: Factory, seed: int | None = None) -> None:
        self._factory = factory
        self.device = factory()
        self.bench = TestBench(self.device, memory=MEMORY_SIZE)
        if seed is not None:
            self.bench.memory.ram[:] = Random(seed).randbytes(MEMORY_SIZE)
        self.last = "nothing yet"
        self.characters: list[FakeCharacter] = []
        for value in list(self.device.__dict__.values()):
            if isinstance(value, LiveCharacter):
                self.characters.append(FakeCharacter())
                value.attach(self.characters[-1])
        self._offsets = {
            id(window.bank): sorted({o for _, _, o, _ in type(window.bank).registers()}) or [0]
            for window in self.device.windows
        }

    def cells(self) -> bytes:
        """All of the machine's state."""
        return bytes(self.bench.machine.buffer)

    def changed_cells(self, before: bytes) -> list[str]:
        """The names of the cells that differ from ``before``, which `cells` gave."""
        now = self.cells()
        return [
            cell.name
            for cell in self.device.cells.layout.cells.values()
            if now[cell.offset : cell.offset + cell.size]
            != before[cell.offset : cell.offset + cell.size]
        ]

    def adopt_surroundings(self, other: Session) -> None:
        """Take over what is not the device's: RAM, the host's ends, the platform's routes."""
        self.bench.memory.ram[:] = other.bench.memory.ram
        self.bench.platform.links = dict(other.bench.platform.links)
        for mine, theirs in zip(self.characters, other.characters, strict=True):
            mine.pending[:] = theirs.pending
            mine.accepts = theirs.accepts

    def reloaded(self) -> Session:
        """A fresh device in a fresh process's stead, given this one's saved state."""
        fresh = Session(self._factory)
        self.bench.machine.stop()
        data = save(self.bench.machine)
        self.bench.machine.start()
        fresh.bench.machine.stop()
        fresh.bench.host_time = self.bench.host_time + 12345678987654321
        fresh.adopt_surroundings(self)
        load(fresh.bench.machine, data)
        fresh.bench.machine.start()
        return fresh

    def levels(self) -> tuple[tuple[object, int], ...]:
        """The interrupt lines that are not low."""
        platform = self.bench.platform
        lines = [*platform.isa.items(), *platform.intx.items()]
        return tuple(sorted((item for item in lines if item[1]), key=repr))

    def observe(self, step: Step) -> Observation:
        """Perform ``step`` and say what could be seen of it."""
        platform = self.bench.platform
        seen = [len(platform.msis), len(platform.shutdowns), len(platform.memory_types)]
        suspends, links = platform.suspends, dict(platform.links)
        sent = [len(character.sent) for character in self.characters]
        try:
            answer: int | bytes | str | None = self._perform(step)
        except Deferral:
            answer = "deferred"
        except GuestError as error:
            answer = f"refused: {error}"
        events = (
            tuple(platform.msis[seen[0] :]),
            tuple(platform.shutdowns[seen[1] :]),
            tuple(platform.memory_types[seen[2] :]),
            platform.suspends - suspends,
            tuple(item for item in platform.links.items() if item not in links.items()),
            tuple(tuple(ranges) for ranges in platform.claimed.values()),
        )
        out = tuple(bytes(c.sent[n:]) for c, n in zip(self.characters, sent, strict=True))
        return Observation(answer, self.levels(), events, out)

    def access(self, step: Step) -> Access | None:
        """The access that ``step`` is now; None when no window of the device is anywhere."""
        random = Random(step.seed)
        placed = [(w, base) for w in self.device.windows if (base := w.wanted()) is not None]
        if not placed:
            return None
        window, base = random.choice(placed)
        size = random.choice(SIZES[window.space])
        simple = step.kind in ("read", "write")
        count = 1 if simple else random.choice((1, 2, 3, 16, random.randrange(1, 300)))
        direction = random.choice((size, -size)) if step.kind.endswith("block") else 0
        address = max(base + self._offset(random, window), 0)
        if direction < 0:
            address = max(address, size * (count - 1))
        address = min(address, LIMITS[window.space] - size * (count if direction > 0 else 1))
        data = b"".join(_value(random, size) for _ in range(count)) if "write" in step.kind else b""
        return Access(step.kind, window.space, address, size, count, direction, data)

    def _offset(self, random: Random, window: LiveWindow) -> int:
        """Mostly where registers are, sometimes beside one, sometimes anywhere or just outside."""
        if random.random() < 0.2:
            return random.randrange(-8, window.size + 8)
        offset = random.choice(self._offsets[id(window.bank)])
        return offset + (random.randrange(-3, 4) if random.random() < 0.2 else 0)

    def _perform(self, step: Step) -> int | bytes | None:
        self.last = step.kind
        deed = {"advance": self._advance, "feed": self._feed, "place": self._place}.get(step.kind)
        if deed is not None:
            deed(Random(step.seed))
            return None
        access = self.access(step)
        return None if access is None else self.perform(access)

    def perform(self, access: Access) -> int | bytes | None:
        """Make ``access``; gives what a read reads, after checking that it can be that."""
        bus = self.bench.machine.bus
        kind, space, address, size, count, direction, data = access
        self.last = _told(access, bus.describe(space, address))
        if kind == "read":
            answer = bus.read(space, address, size)
            assert 0 <= answer < 1 << 8 * size, f"{answer:#x} does not fit into {size} bytes"
            return answer
        if kind == "write":
            bus.write(space, address, size, int.from_bytes(data, "little"))
            return None
        if kind == "write_string":
            bus.write_string(space, address, size, data)
            return None
        if kind == "write_block":
            bus.write_block(space, address, size, direction, data)
            return None
        if kind == "read_string":
            block = bus.read_string(space, address, size, count)
        else:
            block = bus.read_block(space, address, size, count, direction)
        assert len(block) == size * count, f"{len(block)} bytes for {count} times {size}"
        return block

    def _advance(self, random: Random) -> None:
        """Let time pass as `TestBench.advance` does, but let exceptions of timers out."""
        bench, machine = self.bench, self.bench.machine
        end = bench.host_time + random.randrange(1, 10 ** random.randrange(1, 10))
        for _ in range(FIRES_LIMIT):
            deadline = machine.timers.next_deadline()
            if deadline is None or deadline - machine.clock.now() > end - bench.host_time:
                bench.host_time = end
                return
            bench.host_time += max(deadline - machine.clock.now(), 0)
            for timer in machine.timers.due():
                name = next(n for n, v in self.device.__dict__.items() if v is timer)
                self.last = f"advance, timer {name}"
                timer.handler()

    def _feed(self, random: Random) -> None:
        """Have the host send some bytes, and take as many of the device's as it likes to."""
        if self.characters:
            character = random.choice(self.characters)
            character.accepts = random.choice((None, None, 0, 1, 7))
            character.feed(random.randbytes(random.choice((0, 1, 1, 2, 5, 40))))

    def _place(self, random: Random) -> None:
        """Give every BAR a place of its own and switch decoding on, as firmware does."""
        device = self.device
        if not isinstance(device, PciDevice):
            return
        free = dict(BAR_BASES)
        for declaration in device._declared.values():
            if not isinstance(declaration, MmioBar | PortBar):
                continue
            size, space = (
                declaration.bank.size,
                MEMORY if isinstance(declaration, MmioBar) else PORT,
            )
            base = -(-free[space] // size) * size
            free[space] = base + size
            register = 0x10 + 4 * declaration.index
            self.bench.config_write(device.devfn, register, base)
            if isinstance(declaration, MmioBar) and declaration.bits == 64:
                self.bench.config_write(device.devfn, register + 4, 0)
        self.bench.config_write(device.devfn, 0x04, 0x7, 2)


def _told(access: Access, register: str) -> str:
    """An access in words: what it was, where, and on which register."""
    kind, _, address, size, times, step, data = access
    written = f" of {int.from_bytes(data, 'little'):#x}" if data and times == 1 else ""
    shape = f"{size} byte{'s' if size > 1 else ''}" + (f", {times} times" if times > 1 else "")
    going = ", descending" if step < 0 else ""
    noise = f": {data.hex()}" if times > 1 and data else ""
    return f"{kind}{written} at {address:#x} ({register}, {shape}{going}){noise}"


def _value(random: Random, size: int) -> bytes:
    """Bytes of one written element: noise, or a value of the kind that drivers write."""
    bits = 8 * size
    number = random.choice(
        (
            random.getrandbits(bits),
            random.getrandbits(bits),
            random.getrandbits(8),
            1 << random.randrange(bits),
            (1 << bits) - 1,
            0,
        )
    )
    return number.to_bytes(size, "little")
