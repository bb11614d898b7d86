"""Devices with one of each: a PCI function with everything, a port device with a chardev."""

from __future__ import annotations

from dm import (
    W1C,
    Bank,
    BankMemory,
    Bit,
    Character,
    Device,
    IsaLine,
    MmioBar,
    MsiCapability,
    Option,
    PciDevice,
    PciIdentity,
    PortBar,
    PortWindow,
    Register,
    Timer,
)

__all__ = ["Card", "Echo"]


class Status(Register):
    done = Bit(0, access=W1C)


class CardRegisters(Bank, size=0x100):
    delay = Register.at(0)
    status = Status.at(4)
    source = Register.at(8, width=64)
    buffer = BankMemory(0x80, 0x80)


class CardPorts(Bank, size=16):
    echo = Register.at(0)


class Card(PciDevice):
    """Waits, copies four bytes from the guest's memory, and interrupts."""

    identity = PciIdentity(vendor=0x1234, device=1, class_code=0x088000, pin=2)
    capabilities = (MsiCapability(0x40),)
    registers = MmioBar(CardRegisters, 0, bits=64)
    ports = PortBar(CardPorts, 2)
    alarm = Timer()

    def irq_level(self) -> bool:
        return bool(self.registers.status.done)

    @CardRegisters.delay.on_write
    def _start(self, new: int, old: int) -> None:
        self.alarm.start_in(new)

    @alarm.expired
    def _finish(self) -> None:
        if self.registers.delay.value == 13:
            raise ZeroDivisionError("thirteen")
        if self.registers.delay.value == 0:
            self.alarm.start_in(0)
        self.registers.buffer[:4] = self.memory.read(self.registers.source.value, 4)
        self.registers.status.done = 1


class EchoPorts(Bank, size=2, width=8):
    data = Register.at(0)


class Echo(Device):
    """Sends what is written to its port, and interrupts while a byte from the host waits."""

    base = Option(int, 0x200, "first port")
    ports = PortWindow(EchoPorts, at=base)
    line = IsaLine(5)
    serial = Character()

    @line.level
    def _level(self) -> bool:
        return self.ports.data.value != 0

    @EchoPorts.data.on_write
    def _send(self, new: int, old: int) -> None:
        self.serial.write(bytes((new,)))

    @serial.received
    def _take(self, data: bytes) -> None:
        self.ports.data.value = data[-1]
