"""A PCI device of every kind of register, whose accesses are compared between engines.

Invented for the tests; tests/traced.py knows its layout. Nothing in it depends on time.
What a hostile guest can do: change these registers, and have its own memory read and written.
"""

from __future__ import annotations

from dm import (
    RC,
    RO,
    W1C,
    WO,
    Bank,
    Bit,
    Field,
    GuestError,
    MmioBar,
    MsiCapability,
    PciDevice,
    PciIdentity,
    PortBar,
    Register,
)

__all__ = ["Traced"]


class Control(Register):
    """Fields with names."""

    enable = Bit(0)
    mode = Field(5, 4, names={0: "off", 1: "slow", 2: "fast"})
    level = Field(15, 8)


class Cause(Register):
    """Why it interrupts; ones clear."""

    asked = Bit(0, access=W1C)
    failed = Bit(1, access=W1C)


class Memory(Bank, size=0x1000, sizes=(1, 2, 4, 8)):
    """BAR 0."""

    control = Control.at(0x00)
    cause = Cause.at(0x04)
    count = Register.at(0x08, access=RO)
    once = Register.at(0x0C, access=RC, reset=0x1234)
    wide = Register.at(0x10, width=64)
    ask = Register.at(0x18, access=WO)
    source = Register.at(0x20)
    target = Register.at(0x24)
    copy = Register.at(0x28, access=WO)
    half = Register.at(0x30, width=16)
    byte = Register.at(0x32, width=8)
    cells = Register.array(0x40, 8)


class Ports(Bank, size=0x10, width=32):
    """BAR 1."""

    scratch = Register.at(0x0)
    inverse = Register.at(0x4, access=RO)
    broken = Register.at(0x8)


class Traced(PciDevice):
    """The device."""

    identity = PciIdentity(vendor=0x1AF4, device=0x10F2, class_code=0xFF0000, pin=1)
    capabilities = (MsiCapability(0x40),)
    memory_bar = MmioBar(Memory, index=0)
    port_bar = PortBar(Ports, index=1)

    def irq_level(self) -> bool:
        """Asked for, and not acknowledged."""
        cause = self.memory_bar.cause
        return bool(cause.asked or cause.failed)

    @Memory.count.on_read
    def _count(self) -> int:
        count = self.memory_bar.count
        count.value = count.value + 3 & 0xFFFFFFFF
        return count.value

    @Memory.ask.on_write
    def _ask(self, new: int, old: int) -> None:
        self.memory_bar.cause.asked = new & 1

    @Memory.copy.on_write
    def _copy(self, new: int, old: int) -> None:
        bank = self.memory_bar
        try:
            data = self.memory.read(bank.source.value, new & 0xFF)
            self.memory.write(bank.target.value, data[::-1])
        except GuestError:
            bank.cause.failed = 1

    @Ports.inverse.on_read
    def _inverse(self) -> int:
        return ~self.port_bar.scratch.value & 0xFFFFFFFF

    @Ports.broken.on_read
    def _broken(self) -> int:
        raise ZeroDivisionError("on purpose")
