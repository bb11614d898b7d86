"""An observed bench, and devices that do everything that can be observed."""

from __future__ import annotations

from collections.abc import Callable

from dm import (
    RO,
    Bank,
    BankMemory,
    Character,
    Deferral,
    Device,
    IsaLine,
    MmioBar,
    MsiCapability,
    Option,
    PciDevice,
    PciIdentity,
    PortWindow,
    Register,
    Timer,
    Transient,
    Word,
)
from dm.machine.fakes import FakeMemory, FakePlatform, TestBench
from dm.observe.events import Access, Event, Sink
from dm.observe.machine import ObservedMachine
from tests.unit.machine.specimens import Control

__all__ = ["BAR", "BASE", "Card", "Gadget", "Kept", "ObservedBench"]

BASE = 0x300
BAR = 0xFE00_0000


class Ports(Bank, size=16, width=8, sizes=(1, 2)):
    control = Control.at(0)
    table = Register.array(4, 4)
    version = Register.at(8, access=RO, reset=0x21)
    fault = Register.at(9)
    later = Register.at(10)
    stream = Register.at(11)
    clock = Register.at(14)


class Gadget(Device):
    """Ports, an ISA line, a timer, a chardev; `fault` raises, `later` answers later."""

    base = Option(int, BASE, "first port")
    ports = PortWindow(Ports, at=base)
    count = Word(32)
    alarm = Timer()
    irq = IsaLine(5)
    console = Character()
    waiting = Transient()

    @Ports.control.on_write
    def _control(self, new: int, old: int) -> None:
        if Control.enable.of(new):
            self.alarm.start_in(1000)

    @alarm.expired
    def _fire(self) -> None:
        self.ports.control.pending = 1
        self.ports.control.enable = 0
        self.count += 1

    @irq.level
    def _level(self) -> bool:
        return bool(self.ports.control.pending)

    @Ports.fault.on_read
    def _fault(self) -> int:
        raise ZeroDivisionError("a bug")

    @Ports.later.on_read
    def _later(self) -> int:
        self.waiting = self.defer()
        waiting: Deferral = self.waiting
        raise waiting

    @Ports.stream.on_write
    def _send(self, new: int, old: int) -> None:
        self.console.write(bytes([new]))

    @console.received
    def _receive(self, data: bytes) -> None:
        self.ports.stream.value = data[-1]

    @Ports.clock.on_read
    def _clock(self) -> int:
        return self.now() & 0xFF


class CardRegisters(Bank, size=64):
    status = Register.at(0)
    source = Register.at(4)
    length = Register.at(8)
    go = Register.at(12)
    memory = BankMemory(16, 32)


class Card(PciDevice):
    """A PCI function that copies guest memory behind its source, and sends an MSI."""

    identity = PciIdentity(vendor=0x1234, device=0x5678, class_code=0x088000, pin=1)
    capabilities = (MsiCapability(0x40),)
    registers = MmioBar(CardRegisters, 0)

    @CardRegisters.go.on_write
    def _go(self, new: int, old: int) -> None:
        source, length = self.registers.source.value, self.registers.length.value
        self.memory.write(source + length, self.memory.read(source, length))
        self.registers.status.value = 1

    def irq_level(self) -> bool:
        return bool(self.registers.status.value & 1)


class Kept(Sink):
    """Keeps what was observed."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def event(self, event: Event) -> None:
        self.events.append(event)

    @property
    def accesses(self) -> list[Access]:
        return [event for event in self.events if isinstance(event, Access)]


class ObservedBench(TestBench):
    """A `TestBench` whose machine is observed."""

    def __init__(
        self,
        *devices: Device,
        sinks: list[Sink],
        failed: Callable[[Exception, str, Access | None], bool] | None = None,
        slack: int = 0,
    ) -> None:
        self.host_time = 0
        self.platform = FakePlatform()
        self.memory = FakeMemory(1 << 20)
        self.machine = ObservedMachine(
            "bench", self.platform, self.memory, lambda: self.host_time, sinks, failed
        )
        self.machine.slack = slack
        for device in devices:
            self.machine.add(device)
        self.machine.seal()
        self.machine.connect()
        self.machine.start()

    def enable_card(self, devfn: int) -> None:
        """Place the card's BAR and let it decode and master."""
        self.config_write(devfn, 0x10, BAR)
        self.config_write(devfn, 4, 6, 2)
