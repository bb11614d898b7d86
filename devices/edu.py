"""What QEMU's educational PCI device knows: a factorial, an interrupt, and a small DMA engine.

It does nothing useful, and all that a driver's author must learn: registers, polling, interrupts
by pin or MSI, and DMA between the guest's memory and a 4 KiB buffer of its own.

Sources: QEMU docs/specs/edu.txt and hw/misc/edu.c. A transfer takes 100 ms, as there.
Not modelled: 4-byte writes from 0x80 on clear the upper half in QEMU and leave it alone here; a
raised interrupt that was still pending sends no second MSI; a transfer that leaves the buffer, on
which QEMU 7.2 exits, is not done.
What a hostile guest can do: move its own memory about, no faster than 40 KiB a second.
"""

from __future__ import annotations

from dm import (
    RO,
    WO,
    Bank,
    Bit,
    GuestError,
    Memory,
    MmioBar,
    MsiCapability,
    Option,
    PciDevice,
    PciIdentity,
    Register,
    Timer,
)

__all__ = ["Edu"]

FACTORIAL_TIME = 100_000
TRANSFER_TIME = 100_000_000
"""Nanoseconds of guest time."""

FACTORIAL_DONE = 0x001
TRANSFER_DONE = 0x100
"""Bits of the interrupt status that the device sets by itself; a guest may raise any."""

BUFFER_BASE = 0x40000
BUFFER_SIZE = 4096

FACTORIAL_VANISHES = 34
"""From here on the factorial is a multiple of 2**32, so its low 32 bits are zero."""


class Status(Register):
    """What the factorial does."""

    computing = Bit(0, access=RO)
    interrupt_when_done = Bit(7)


class DmaCommand(Register, width=64):
    """Writing it with ``run`` set starts a transfer; ``run`` reads as zero when it is done."""

    run = Bit(0)
    to_memory = Bit(1)
    interrupt_when_done = Bit(2)


class Registers(Bank, size=1 << 20, sizes=(4, 8)):
    """BAR 0. Below 0x80 an access must be one whole register; all else reads as ones."""

    identification = Register.at(0x00, access=RO, reset=0x010000ED, exact=True)
    liveness = Register.at(0x04, exact=True)
    factorial = Register.at(0x08, exact=True)
    status = Status.at(0x20, exact=True)
    interrupt_status = Register.at(0x24, access=RO, exact=True)
    interrupt_raise = Register.at(0x60, access=WO, exact=True)
    interrupt_acknowledge = Register.at(0x64, access=WO, exact=True)
    dma = Register.array(0x80, 3, width=64)
    dma_command = DmaCommand.at(0x98)


class Edu(PciDevice):
    """The educational device."""

    summary = "educational PCI device"
    identity = PciIdentity(
        vendor=0x1234,
        device=0x11E8,
        class_code=0x00FF00,
        revision=0x10,
        subsystem_vendor=0x1AF4,
        subsystem=0x1100,
        pin=1,
    )
    capabilities = (MsiCapability(0x40),)

    dma_mask = Option(int, (1 << 28) - 1, "address bits that its DMA engine drives")

    registers = MmioBar(Registers, index=0)
    buffer = Memory(BUFFER_SIZE)
    calculation = Timer()
    transfer = Timer()

    def irq_level(self) -> bool:
        """An interrupt is requested while any bit of its status is set."""
        return self.registers.interrupt_status.value != 0

    @Registers.liveness.on_write
    def _invert(self, new: int, old: int) -> None:
        self.registers.liveness.value = new ^ 0xFFFFFFFF

    @Registers.factorial.on_write
    def _start_factorial(self, new: int, old: int) -> None:
        if self.registers.status.computing:
            self.registers.factorial.value = old
        else:
            self.registers.status.computing = 1
            self.calculation.start_in(FACTORIAL_TIME)

    @calculation.expired
    def _finish_factorial(self) -> None:
        registers = self.registers
        number, result = registers.factorial.value, 1
        for factor in range(2, min(number, FACTORIAL_VANISHES) + 1):
            result = result * factor & 0xFFFFFFFF
        registers.factorial.value = result
        registers.status.computing = 0
        if registers.status.interrupt_when_done:
            registers.interrupt_status.value |= FACTORIAL_DONE

    @Registers.interrupt_raise.on_write
    def _raise(self, new: int, old: int) -> None:
        self.registers.interrupt_status.value |= new

    @Registers.interrupt_acknowledge.on_write
    def _acknowledge(self, new: int, old: int) -> None:
        self.registers.interrupt_status.value &= ~new

    @Registers.dma.on_write
    def _describe_transfer(self, index: int, new: int, old: int) -> None:
        if self.registers.dma_command.run:
            self.registers.dma[index].value = old

    @Registers.dma_command.on_write
    def _start_transfer(self, new: int, old: int) -> None:
        if DmaCommand.run.of(old) or not DmaCommand.run.of(new):
            self.registers.dma_command.value = old
        else:
            self.transfer.start_in(TRANSFER_TIME)

    @transfer.expired
    def _finish_transfer(self) -> None:
        command = self.registers.dma_command
        try:
            self._move()
        except GuestError as error:
            self.warn("DMA: %s", error)
        command.run = 0
        if command.interrupt_when_done:
            self.registers.interrupt_status.value |= TRANSFER_DONE

    def _move(self) -> None:
        """Move the bytes; GuestError when they are not all in the buffer or not all in RAM."""
        source, destination, count = (register.value for register in self.registers.dma)
        to_memory = self.registers.dma_command.to_memory
        start = (source if to_memory else destination) - BUFFER_BASE
        if start < 0 or start + count > BUFFER_SIZE:
            raise GuestError(f"{count} bytes at {start + BUFFER_BASE:#x} leave the buffer")
        if not self.config.command.master:
            raise GuestError("bus mastering is off")
        part = self.buffer[start : start + count]
        if to_memory:
            self.memory.write(destination & self.dma_mask, part)
        else:
            part[:] = self.memory.read(source & self.dma_mask, count)
