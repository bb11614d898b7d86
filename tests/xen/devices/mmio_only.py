"""A device that is nothing but a window in guest-physical memory.

Invented for the tests; guests/card.c knows its layout.
"""

from __future__ import annotations

from dm import RO, Bank, Device, MmioWindow, Option, Register

__all__ = ["MmioOnly"]


class Registers(Bank, size=0x1000):
    """An identity and a register whose inverse can be read."""

    identity = Register.at(0x0, access=RO, reset=0x33101001)
    scratch = Register.at(0x4)
    inverse = Register.at(0x8, access=RO)


class MmioOnly(Device):
    """Registers at a fixed place in memory."""

    summary = "a test device with MMIO only"
    gpa = Option(int, 0xE0010000, "base of the registers")
    registers = MmioWindow(Registers, at=gpa)

    @Registers.inverse.on_read
    def _inverse(self) -> int:
        return self.registers.scratch.value ^ 0xFFFFFFFF
