"""A device with something for every shape of request: ports, a queue, MMIO, a VGA window, DMA.

Invented for the tests; guests/shapes.c, smp.c and hammer.c know its layout.
What a hostile guest can do: change these registers, and have its own memory copied.
"""

from __future__ import annotations

from dm import (
    RO,
    W1C,
    WO,
    Bank,
    BankMemory,
    Bit,
    Device,
    Fifo,
    GuestError,
    IsaLine,
    MmioWindow,
    Option,
    PortWindow,
    Register,
    Word,
)

__all__ = ["ShapeDevice"]

QUEUE = 16384
FAILED = 0xFFFFFFFF
EMPTY = 0xEE
"""What each byte of a read from the empty queue is."""


class Flags(Register, access=W1C):
    """Bits that only the guest's ones clear."""

    low = Bit(0)
    high = Bit(31)


class Request(Register, width=8):
    """Bit 0 asserts the ISA interrupt line."""

    asserted = Bit(0)


class Ports(Bank, size=0x40, width=8):
    """The ports; the queue's end answers each width in its own way, all at one port."""

    scratch = Register.at(0x00, width=32)
    halves = Register.array(0x04, 2, width=16)
    bytes = Register.array(0x08, 4)
    data8 = Register.at(0x10, access=WO, exact=True)
    data16 = Register.at(0x10, width=16, access=WO, exact=True)
    data32 = Register.at(0x10, width=32, access=WO, exact=True)
    level = Register.at(0x14, width=32, access=WO)
    request = Request.at(0x18)
    marks = Register.at(0x1C, width=32, access=WO)
    last_mark = Register.at(0x20, width=32, access=RO)
    misordered = Register.at(0x24, width=32, access=RO)
    generation = Register.at(0x28, width=32)
    oracle = Register.array(0x30, 16, access=RO)


class Window(Bank, size=0x3000):
    """Registers of every width, and memory across two page borders."""

    words = Register.array(0x00, 4)
    bytes = Register.array(0x10, 4, width=8)
    halves = Register.array(0x14, 2, width=16)
    wide = Register.at(0x18, width=64)
    flags = Flags.at(0x20, reset=0x80000001)
    identity = Register.at(0x24, access=RO, reset=0x5A4E0001)
    reads = Register.at(0x28, access=RO)
    strobes = Register.at(0x2C, access=RO)
    strobe = Register.at(0x30, access=WO)
    dma_address = Register.at(0x40, width=64)
    dma_length = Register.at(0x48)
    dma_command = Register.at(0x4C, access=WO)
    dma_result = Register.at(0x50, access=RO)
    memory = BankMemory(0x800, 0x2000)


class Vga(Bank, size=0x10000):
    """A part of the VGA window, where Xen buffers writes: memory, and registers that count."""

    memory = BankMemory(0x0000, 0x8000)
    mark = Register.at(0x8000)
    wide_mark = Register.at(0x8008, width=64)


class ShapeDevice(Device):
    """The other end of guests/shapes.c."""

    summary = "a test device for every shape of request"

    port = Option(int, 0x5600, "base of the ports")
    gpa = Option(int, 0xE0001000, "base of the MMIO window")
    irq = Option(int, 5, "ISA interrupt")

    ports = PortWindow(Ports, at=port)
    window = MmioWindow(Window, at=gpa)
    vga = MmioWindow(Vga, at=0xA0000)
    line = IsaLine(irq)
    queue = Fifo(QUEUE)
    mark_count = Word(32)

    @line.level
    def _line(self) -> bool:
        return bool(self.ports.request.asserted)

    @Ports.oracle.on_read
    def _oracle(self, index: int) -> int:
        """A pure function of the port, right in every process that ever serves it."""
        return index * 0x1D + 0x35 & 0xFF

    def _pop(self, count: int) -> bytes:
        return bytes(self.queue.pop() if len(self.queue) else EMPTY for _ in range(count))

    def _push(self, data: bytes) -> None:
        for byte in data:
            self.queue.push(byte)

    @Ports.data8.on_read
    def _read8(self) -> int:
        return int.from_bytes(self._pop(1), "little")

    @Ports.data16.on_read
    def _read16(self) -> int:
        return int.from_bytes(self._pop(2), "little")

    @Ports.data32.on_read
    def _read32(self) -> int:
        return int.from_bytes(self._pop(4), "little")

    @Ports.data32.on_read_block
    def _read_many(self, size: int, count: int) -> bytes:
        return self._pop(size * count)

    @Ports.data8.on_write
    def _write8(self, new: int, old: int) -> None:
        self._push(new.to_bytes(1, "little"))

    @Ports.data16.on_write
    def _write16(self, new: int, old: int) -> None:
        self._push(new.to_bytes(2, "little"))

    @Ports.data32.on_write
    def _write32(self, new: int, old: int) -> None:
        self._push(new.to_bytes(4, "little"))

    @Ports.data32.on_write_block
    def _write_many(self, size: int, data: bytes) -> None:
        self._push(data)

    @Ports.level.on_read
    def _level(self) -> int:
        return len(self.queue)

    @Ports.level.on_write
    def _empty(self, new: int, old: int) -> None:
        self.queue.clear()

    @Ports.marks.on_read
    def _marks(self) -> int:
        return self.mark_count

    @Ports.marks.on_write
    def _forget_marks(self, new: int, old: int) -> None:
        self.mark_count = 0
        self.ports.last_mark.value = 0
        self.ports.misordered.value = 0

    @Vga.mark.on_write
    def _mark(self, new: int, old: int) -> None:
        """Marks must come as 1, 2, 3, …: the order in which the guest wrote them."""
        if new != self.ports.last_mark.value + 1 & 0xFFFFFFFF:
            self.ports.misordered.value += 1
        self.ports.last_mark.value = new
        self.mark_count = self.mark_count + 1 & 0xFFFFFFFF

    @Window.reads.on_read
    def _count_read(self) -> int:
        self.window.reads.value = self.window.reads.value + 1 & 0xFFFFFFFF
        return self.window.reads.value

    @Window.strobe.on_write
    def _count_strobe(self, new: int, old: int) -> None:
        self.window.strobes.value = self.window.strobes.value + 1 & 0xFFFFFFFF

    @Window.dma_command.on_write
    def _dma(self, new: int, old: int) -> None:
        """1: guest memory into the window's memory; 2: the opposite."""
        gpa = self.window.dma_address.value
        length = min(self.window.dma_length.value, len(self.window.memory))
        try:
            if new == 1:
                self.window.memory[:length] = self.memory.read(gpa, length)
            else:
                self.memory.write(gpa, self.window.memory[:length])
        except GuestError:
            length = FAILED
        self.window.dma_result.value = length
