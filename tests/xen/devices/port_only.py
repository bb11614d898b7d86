"""A device that is nothing but ports.

Invented for the tests; guests/card.c knows its layout.
"""

from __future__ import annotations

from dm import RO, Bank, Device, Option, PortWindow, Register

__all__ = ["PortOnly"]


class Ports(Bank, size=8, width=8):
    """An identity and a register whose inverse can be read."""

    identity = Register.at(0x0, width=16, access=RO, reset=0x9017)
    scratch = Register.at(0x2)
    inverse = Register.at(0x3, access=RO)


class PortOnly(Device):
    """Registers at fixed ports."""

    summary = "a test device with ports only"
    port = Option(int, 0x5700, "base of the ports")
    ports = PortWindow(Ports, at=port)

    @Ports.inverse.on_read
    def _inverse(self) -> int:
        return self.ports.scratch.value ^ 0xFF
