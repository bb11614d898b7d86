"""The bench's own device: what stock QEMU has and this machine does not, as far as it is timed.

A data port from which a page is read by one string instruction, at the place of QEMU's IDE, and
memory in the VGA window, where Xen buffers writes.
What a hostile guest can do: write to the memory and read it back.
"""

from __future__ import annotations

from dm import RO, Bank, BankMemory, Device, Memory, MmioWindow, PortWindow, Register

__all__ = ["Rig"]

PAGE = 4096


class Ports(Bank, size=8, width=32):
    """The place of the primary IDE channel."""

    data = Register.at(0, access=RO, exact=True)


class Vga(Bank, size=0x20000):
    """0xa0000 to 0xbffff."""

    memory = BankMemory(0, 0x20000)


class Rig(Device):
    """A block port and a frame buffer."""

    summary = "the bench's block port and VGA window"

    ports = PortWindow(Ports, at=0x1F0)
    vga = MmioWindow(Vga, at=0xA0000)
    block = Memory(PAGE)

    @Ports.data.on_read_block
    def _read_block(self, size: int, count: int) -> bytes:
        return bytes(self.block[: size * count]).ljust(size * count, b"\0")
