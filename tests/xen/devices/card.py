"""A PCI card with a memory BAR, a port BAR, INTx and MSI, and configuration registers of its own.

Invented for the tests; guests/card.h knows its layout.
What a hostile guest can do: change these registers and interrupt itself.
"""

from __future__ import annotations

from dm import (
    RO,
    W1C,
    WO,
    Bank,
    BankMemory,
    Bit,
    MmioBar,
    MsiCapability,
    PciConfig,
    PciDevice,
    PciIdentity,
    PciWindow,
    PortBar,
    Register,
)

__all__ = ["Card"]


class Cause(Register, access=W1C):
    """Why the card interrupts; ones clear."""

    asked = Bit(0)


class Memory(Bank, size=0x1000):
    """BAR 0."""

    identity = Register.at(0x00, access=RO, reset=0xCA4D0001)
    scratch = Register.at(0x04)
    inverse = Register.at(0x08, access=RO)
    cause = Cause.at(0x0C)
    ask = Register.at(0x10, access=WO)
    wide = Register.at(0x18, width=64)
    memory = BankMemory(0x800, 0x800)


class Ports(Bank, size=0x10, width=32):
    """BAR 2."""

    identity = Register.at(0x0, access=RO, reset=0xCA4D0002)
    scratch = Register.at(0x4)
    ask = Register.at(0x8, access=WO)


class Config(PciConfig):
    """Registers behind the header and the capability."""

    word = Register.at(0x60, width=32)
    half = Register.at(0x64, width=16)
    low = Register.at(0x66)
    high = Register.at(0x67)
    fixed = Register.at(0x68, width=32, access=RO, reset=0x89ABCDEF)


class Card(PciDevice):
    """The other end of guests/card.h."""

    summary = "a test card with two BARs, INTx and MSI"
    identity = PciIdentity(vendor=0x1AF4, device=0xCA4D, class_code=0x088000, pin=1, revision=7)
    capabilities = (MsiCapability(0x40),)

    config = PciWindow(Config)
    registers = MmioBar(Memory, index=0)
    ports = PortBar(Ports, index=2)

    def irq_level(self) -> bool:
        """Whether a cause stands."""
        return bool(self.registers.cause.asked)

    @Memory.inverse.on_read
    def _inverse(self) -> int:
        return self.registers.scratch.value ^ 0xFFFFFFFF

    @Memory.ask.on_write
    @Ports.ask.on_write
    def _ask(self, new: int, old: int) -> None:
        self.registers.cause.asked = 1
