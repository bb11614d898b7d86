"""The bench's smallest device: one register at one port, stored and nothing else."""

from __future__ import annotations

from dm import Bank, Device, PortWindow, Register

__all__ = ["PORT_NUMBER", "Plain"]

PORT_NUMBER = 0x5000


class Ports(Bank, size=4, width=32):
    """The register."""

    value = Register.at(0, reset=0x5A)


class Plain(Device):
    """See the file."""

    summary = "the bench's one register"

    ports = PortWindow(Ports, at=PORT_NUMBER)
