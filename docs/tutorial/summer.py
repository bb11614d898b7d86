"""A PCI device that sums the bytes of guest memory, and says by an interrupt when it is done."""

from dm import (
    RO,
    W1C,
    Bank,
    Bit,
    GuestError,
    MmioBar,
    MsiCapability,
    PciDevice,
    PciIdentity,
    Register,
    Timer,
)

LONGEST = 65536
"""Bytes of one sum: a guest decides the length, so somebody has to."""
NANOSECONDS_PER_BYTE = 10


class Command(Register):
    """Writing it with ``start`` set begins a sum."""

    start = Bit(0)


class Status(Register):
    """What became of it."""

    done = Bit(0, access=W1C)
    failed = Bit(1, access=W1C)


class Registers(Bank, size=0x1000):
    """BAR 0."""

    address = Register.at(0x00, width=64)
    length = Register.at(0x08)
    command = Command.at(0x0C)
    status = Status.at(0x10)
    result = Register.at(0x14, access=RO)


class Summer(PciDevice):
    """The device."""

    identity = PciIdentity(vendor=0x1AF4, device=0x10F1, class_code=0x088000, pin=1)
    capabilities = (MsiCapability(0x40),)
    registers = MmioBar(Registers, index=0)
    work = Timer()

    def irq_level(self) -> bool:
        """It interrupts until the guest has taken notice."""
        return bool(self.registers.status.done or self.registers.status.failed)

    @Registers.command.on_write
    def _begin(self, new: int, old: int) -> None:
        if Command.start.of(new) and not self.work.armed:
            length = min(self.registers.length.value, LONGEST)
            self.work.start_in(length * NANOSECONDS_PER_BYTE)

    @work.expired
    def _finish(self) -> None:
        registers = self.registers
        registers.command.start = 0
        try:
            if not self.config.command.master:
                raise GuestError("bus mastering is off")
            if registers.length.value > LONGEST:
                raise GuestError(f"{registers.length.value} bytes are too many")
            data = self.memory.read(registers.address.value, registers.length.value)
        except GuestError as error:
            self.warn("%s", error)
            registers.status.failed = 1
            return
        registers.result.value = sum(data) & 0xFFFFFFFF
        registers.status.done = 1
