"""A small test machine, and a slow model of what a guest's request must do to it.

The model knows only a list of places and walks every access byte by byte. It shares no code with
the kit, the bus or the executor.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from dm import (
    RO,
    WO,
    Bank,
    BankMemory,
    Deferral,
    Device,
    IsaLine,
    MmioWindow,
    PciConfig,
    PciDevice,
    PciIdentity,
    PciWindow,
    PortWindow,
    Register,
    Transient,
)
from dm.machine.machine import Machine
from dm.server.server import IoreqServer

from .fake_xen import DF, ONES, POINTER, READ, Domain, FakeServer, FakeXen

PORTS, WINDOW, DEVFN = 0x100, 0xF000_0000, 0x18
OTHER_PORTS = PORTS + 16


class Ports(Bank, size=16, width=8, gap=0xA5):
    byte = Register.at(0)
    word = Register.at(2, width=16)
    long = Register.at(4, width=32)
    fixed = Register.at(8, access=RO, reset=0x77)
    secret = Register.at(9, access=WO)
    stream = Register.at(15)


class Window(Bank, size=64, width=32):
    quad = Register.at(0, width=64)
    long = Register.at(8)
    memory = BankMemory(16, 32)


class Mixed(Device):
    """Registers that write down who touched them."""

    ports = PortWindow(Ports, at=PORTS)
    window = MmioWindow(Window, at=WINDOW)
    log = Transient()

    def on_reset(self) -> None:
        if self.log is None:
            self.log = []

    @Ports.byte.on_write
    def _byte(self, new: int, old: int) -> None:
        self.log.append(("byte", new))

    @Ports.word.on_write
    def _word(self, new: int, old: int) -> None:
        self.log.append(("word", new))

    @Ports.long.on_write
    def _long(self, new: int, old: int) -> None:
        self.log.append(("long", new))

    @Ports.secret.on_write
    def _secret(self, new: int, old: int) -> None:
        self.log.append(("secret", new))

    @Ports.stream.on_read
    def _stream(self) -> int:
        self.log.append(("stream read", None))
        return len(self.log) & 0xFF

    @Ports.stream.on_write
    def _stream_written(self, new: int, old: int) -> None:
        self.log.append(("stream", new))

    @Window.quad.on_write
    def _quad(self, new: int, old: int) -> None:
        self.log.append(("quad", new))


class Neighbour(Bank, size=4, width=16, gap=0x5A):
    word = Register.at(0)


class Beside(Device):
    """A window that begins where the first one ends."""

    ports = PortWindow(Neighbour, at=OTHER_PORTS)


class CardConfig(PciConfig):
    scratch = Register.at(0x40, width=32)


class Card(PciDevice):
    identity = PciIdentity(vendor=0x1234, device=0x5678, class_code=0x088000)
    config = PciWindow(CardConfig)


class Trouble(Bank, size=8, width=8):
    fault = Register.at(0)
    later = Register.at(1)
    level = Register.at(2)
    later_raised = Register.at(3)


class Troubled(Device):
    """Raises, and answers later; its line follows a register."""

    ports = PortWindow(Trouble, at=0x300)
    irq = IsaLine(5)
    waiting = Transient()

    def on_reset(self) -> None:
        self.waiting = []

    @Trouble.fault.on_read
    def _read(self) -> int:
        self.ports.level.value = 1
        raise ZeroDivisionError("a bug")

    @Trouble.fault.on_write
    def _write(self, new: int, old: int) -> None:
        self.ports.level.value = 1
        raise ZeroDivisionError("another bug")

    def _defer(self) -> Deferral:
        deferral = self.defer()
        self.waiting.append(deferral)
        return deferral

    @Trouble.later.on_read
    def _later(self) -> int:
        raise self._defer()

    @Trouble.later.on_write
    def _later_written(self, new: int, old: int) -> None:
        raise self._defer()

    @Trouble.later_raised.on_read
    def _later_raised(self) -> int:
        self.ports.level.value = 1
        raise self._defer()

    @irq.level
    def _level(self) -> bool:
        return bool(self.ports.level.value)


class Rig:
    """A test machine behind an open ioreq server of a fake Xen."""

    def __init__(
        self,
        domain: Domain | None = None,
        *,
        opened: bool = True,
        attached: bool = False,
        folder: Path | None = None,
        pause: Callable[[float], object] = lambda seconds: None,
    ) -> None:
        self.domain = Domain() if domain is None else domain
        self.xen = FakeXen(self.domain)
        self.xen.folder = folder
        self.host_time = 0
        self.machine = Machine("test", self.xen, self.xen.memory, lambda: self.host_time)
        self.mixed, self.troubled = Mixed("mixed"), Troubled("troubled")
        for device in (self.mixed, Beside("beside"), Card("card", addr="3"), self.troubled):
            self.machine.add(device)
        self.machine.seal()
        self.server = IoreqServer(self.xen, self.machine, pause, attached=attached)
        if opened:
            self.open()

    def open(self) -> None:
        """What the process does at its start."""
        self.server.open()
        self.machine.connect()
        self.machine.start()
        self.server.settle_predecessors()

    @property
    def xens(self) -> FakeServer:
        """The server as Xen has it."""
        return self.domain.servers[self.server.id]

    def ask(self, vcpu: int = 0, **request: int) -> int | None:
        """One request of a vCPU, served; its answer."""
        assert self.domain.send(self.xens, vcpu, **request)
        self.server.serve(vcpu)
        return self.domain.answer(self.xens, vcpu)


class Place(NamedTuple):
    """A register of the test machine as a guest could describe it."""

    space: int
    address: int
    size: int
    name: str
    readable: bool = True
    writable: bool = True
    reset: int = 0
    mask: int = ONES


_CONFIG = DEVFN << 32
PLACES = [
    Place(0, PORTS, 1, "byte"),
    Place(0, PORTS + 2, 2, "word"),
    Place(0, PORTS + 4, 4, "long"),
    Place(0, PORTS + 8, 1, "fixed", writable=False, reset=0x77),
    Place(0, PORTS + 9, 1, "secret", readable=False),
    Place(0, PORTS + 15, 1, "stream"),
    Place(0, OTHER_PORTS, 2, ""),
    Place(1, WINDOW, 8, "quad"),
    Place(1, WINDOW + 8, 4, ""),
    *(Place(1, WINDOW + 16 + i, 1, "") for i in range(32)),
    Place(2, _CONFIG | 0x40, 4, ""),
    Place(2, _CONFIG, 2, "", writable=False, reset=0x1234),
    Place(2, _CONFIG | 2, 2, "", writable=False, reset=0x5678),
    Place(2, _CONFIG | 4, 2, "", mask=0x507),
    Place(2, _CONFIG | 0xA, 2, "", writable=False, reset=0x0880),
    Place(2, _CONFIG | 0xC, 1, ""),
    Place(2, _CONFIG | 0xD, 1, "", writable=False),
    Place(2, _CONFIG | 0x3C, 1, ""),
]
GAPS = [
    (0, PORTS, 16, 0xA5),
    (0, OTHER_PORTS, 4, 0x5A),
    (1, WINDOW, 64, 0xFF),
    (2, _CONFIG, 256, 0),
]
LIMITS = {0: (1, 2, 4), 1: (1, 2, 4, 8), 2: (1, 2, 4)}


class Refused(Exception):  # noqa: N818 - the model's word for a request that makes no sense
    pass


class Model:
    """What the machine must be after each request."""

    def __init__(self, ram: bytearray) -> None:
        self.ram = ram
        self.values = {(place.space, place.address): place.reset for place in PLACES}
        self.log: list[tuple[str, int | None]] = []

    def _at(self, space: int, address: int, *, reading: bool) -> Place | None:
        for place in PLACES:
            if place.space == space and place.address <= address < place.address + place.size:
                return place if (place.readable if reading else place.writable) else None
        return None

    def _load(self, place: Place) -> int:
        if place.name == "stream":
            self.log.append(("stream read", None))
            return len(self.log) & 0xFF
        return self.values[place.space, place.address]

    def read(self, space: int, address: int, size: int) -> int:
        """One element, byte by byte; a register that is still the same is not read again."""
        out, before, value = 0, None, 0
        for index in range(size):
            place = self._at(space, address + index, reading=True)
            if place is None:
                byte = 0xFF
                for where, first, length, gap in GAPS:
                    if where == space and first <= address + index < first + length:
                        byte = gap
            else:
                if place != before:
                    value = self._load(place)
                byte = value >> 8 * (address + index - place.address) & 0xFF
            before = place
            out |= byte << 8 * index
        return out

    def write(self, space: int, address: int, size: int, value: int) -> None:
        """One element: each register gets all of its bytes at once."""
        touched: list[Place] = []
        new: dict[Place, int] = {}
        for index in range(size):
            place = self._at(space, address + index, reading=False)
            if place is None:
                continue
            if place not in touched:
                touched.append(place)
                new[place] = self.values[place.space, place.address] if place.readable else 0
            shift = 8 * (address + index - place.address)
            new[place] = new[place] & ~(0xFF << shift) | (value >> 8 * index & 0xFF) << shift
        for place in touched:
            if place.readable:
                old = self.values[place.space, place.address] & ~place.mask
                self.values[place.space, place.address] = old | new[place] & place.mask
            if place.name:
                self.log.append((place.name, new[place]))

    def perform(
        self, kind: int, flags: int, address: int, data: int, count: int, size: int
    ) -> tuple[int, bool]:
        """The slot's data after the request, and whether it was refused."""
        refused_answer = (1 << 8 * size) - 1 if size in (1, 2, 4, 8) else (1 << 64) - 1
        plain_read = bool(flags & READ) and not flags & POINTER
        try:
            if kind in (7, 8):
                return (0 if plain_read else data), False
            answer = self._perform(kind, flags, address, data, count, size)
        except Refused:
            return (refused_answer if plain_read else data), True
        return (answer if plain_read else data), False

    def _perform(
        self, kind: int, flags: int, address: int, data: int, count: int, size: int
    ) -> int:
        if kind not in LIMITS or size not in LIMITS[kind] or not 1 <= count <= 4096:
            raise Refused
        step = -size if flags & DF else size
        if not flags & POINTER:
            answer = 0
            for index in range(count if kind == 1 else 1):
                at = address + index * step
                if flags & READ:
                    answer = self.read(kind, at, size)
                else:
                    self.write(kind, at, size, data)
            return answer
        lowest = data if step > 0 else data + (count - 1) * step
        in_ram = lowest >= 0 and lowest + count * size <= len(self.ram)
        if not flags & READ and not in_ram:
            raise Refused
        elements = []
        for index in range(count):
            at = address + index * step if kind == 1 else address
            place = data + index * step
            if flags & READ:
                elements.append((place, self.read(kind, at, size)))
            else:
                value = int.from_bytes(self.ram[place : place + size], "little")
                self.write(kind, at, size, value)
        if not in_ram:
            raise Refused
        for place, value in elements:
            self.ram[place : place + size] = value.to_bytes(size, "little")
        return 0
