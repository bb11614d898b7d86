"""A device in the VGA window, where Xen buffers writes: each is seen in order, or sums differ."""

from __future__ import annotations

from dm import RO, Bank, Device, MmioWindow, PortWindow, Register, Word

__all__ = ["RingSink"]

MASK = 0xFFFFFFFF


class Window(Bank, size=0x1000):
    """Where is written to."""

    data = Register.array(0, 0x400)


class Ports(Bank, size=8, width=32):
    """What became of it."""

    count = Register.at(0, access=RO)
    sum = Register.at(4, access=RO)


class RingSink(Device):
    """Counts and mixes what is written."""

    window = MmioWindow(Window, at=0xA0000)
    ports = PortWindow(Ports, at=0x5000)
    total = Word(32)

    @Window.data.on_write
    def _take(self, index: int, new: int, old: int) -> None:
        ports = self.ports
        ports.count.value = ports.count.value + 1 & MASK
        ports.sum.value = ports.sum.value * 31 + new & MASK
