"""The pair of 8259A interrupt controllers of a PC, and the ELCR that makes inputs level-triggered.

Sources: Intel's 8259A data sheet; xen/arch/x86/hvm/vpic.c for what an HVM guest finds: an input
that falls takes its request back even in edge mode, the slave's output is always a level, and IR2
of the master hears nothing else.
Unlike Xen, and like the data sheet, the answer to a poll has bit 7 set when there is a request,
and a poll of the master acknowledges only the master.
Not modelled: MCS-80 mode, buffered mode, a single controller without a slave.
What a hostile guest can do: lose or misdirect its own interrupts.
"""

from __future__ import annotations

from collections.abc import Callable

from .chip import Chip

__all__ = ["ELCR_PORTS", "MASTER_PORTS", "SLAVE_PORTS", "Pic", "PicPair"]

MASTER_PORTS = (0x20, 0x21)
SLAVE_PORTS = (0xA0, 0xA1)
ELCR_PORTS = (0x4D0, 0x4D1)

_CASCADE = 2
_SPURIOUS = 7
_NONE = 8
"""The priority of no request: below every request's."""

# What the next write of the odd port is (Pic.awaiting).
_OCW1, _ICW2, _ICW3, _ICW4 = range(4)


def _priority(mask: int, highest: int) -> int:
    """The priority, 0 being highest, of the best input in ``mask`` when ``highest`` comes first."""
    if not mask:
        return _NONE
    rotated = (mask >> highest | mask << 8 - highest) & 0xFF
    return (rotated & -rotated).bit_length() - 1


class Pic(Chip):
    """One 8259A; ``changed`` is told of each change of its INT output.

    ``elcr_mask`` has the inputs that the guest can make level-triggered, ``fixed_levels`` those
    that always are.
    """

    STATE = {
        "irr": 0xFF,
        "isr": 0xFF,
        "imr": 0xFF,
        "elcr": 0xFF,
        "base": 0xF8,
        "highest": 7,
        "awaiting": 3,
        "single": 1,
        "wants_icw4": 1,
        "auto_eoi": 1,
        "rotate_on_auto_eoi": 1,
        "fully_nested": 1,
        "special_mask": 1,
        "read_isr": 1,
        "poll": 1,
    }

    def __init__(
        self, changed: Callable[[int], None], elcr_mask: int, fixed_levels: int = 0
    ) -> None:
        self._changed = changed
        self._elcr_mask = elcr_mask
        self._fixed_levels = fixed_levels
        self.irr = self.isr = self.imr = 0
        self.elcr = fixed_levels
        self.base = 0
        """The vector of input 0 (ICW2)."""
        self.highest = 0
        """The input with the highest priority."""
        self.awaiting = _OCW1
        self.single = self.wants_icw4 = 0
        self.auto_eoi = self.rotate_on_auto_eoi = 0
        self.fully_nested = self.special_mask = 0
        self.read_isr = self.poll = 0
        self.output = 0

    def set_input(self, number: int, level: int) -> None:
        """Drive input ``number``: a rise requests, a fall takes the request back."""
        if level:
            self.irr |= 1 << number
        else:
            self.irr &= ~(1 << number)
        self.update()

    def request(self) -> int:
        """The input whose request would be acknowledged now; -1 for none."""
        priority = _priority(self.irr & ~self.imr, self.highest)
        if priority == _NONE:
            return -1
        number = priority + self.highest & 7
        blocking = self.isr
        if self.fully_nested and self._fixed_levels and number == _CASCADE:
            blocking &= ~(1 << _CASCADE)
        if self.special_mask:
            blocking &= ~self.imr
        return number if priority < _priority(blocking, self.highest) else -1

    def accept(self, number: int) -> None:
        """The processor takes input ``number``: its request moves into service."""
        bit = 1 << number
        if not self.elcr & bit:
            self.irr &= ~bit
        if not self.auto_eoi:
            self.isr |= bit
        elif self.rotate_on_auto_eoi:
            self.highest = number + 1 & 7
        self.update()

    def update(self) -> None:
        """Settle the output; it is low while the controller is being initialised."""
        level = int(self.awaiting == _OCW1 and self.request() >= 0)
        if level != self.output:
            self.output = level
            self._changed(level)

    def read_even(self) -> int:
        """Read the even port: the answer to a poll, IRR or ISR."""
        if self.poll:
            return self._answer_poll()
        return self.isr if self.read_isr else self.irr

    def read_odd(self) -> int:
        """Read the odd port: the answer to a poll, or IMR."""
        return self._answer_poll() if self.poll else self.imr

    def write_even(self, value: int) -> None:
        """Write the even port: ICW1, OCW3 or OCW2."""
        if value & 0x10:
            self._initialise(value)
        elif value & 0x08:
            self._set_mode(value)
        else:
            self._end_of_interrupt(value)
        self.update()

    def write_odd(self, value: int) -> None:
        """Write the odd port: OCW1, or the next of ICW2 to ICW4."""
        if self.awaiting == _OCW1:
            self.imr = value
        elif self.awaiting == _ICW2:
            self.base = value & 0xF8
            self.awaiting = self._after_icw3() if self.single else _ICW3
        elif self.awaiting == _ICW3:
            self.awaiting = self._after_icw3()
        else:
            self.fully_nested = value >> 4 & 1
            self.auto_eoi = value >> 1 & 1
            self.awaiting = _OCW1
        self.update()

    def read_elcr(self) -> int:
        """Read the trigger modes, without those that the guest cannot set."""
        return self.elcr & self._elcr_mask

    def write_elcr(self, value: int) -> None:
        """Set the trigger modes: 1 is level-triggered."""
        self.elcr = value & self._elcr_mask | self._fixed_levels

    def after_load(self) -> None:
        """Set the output anew."""
        self.elcr = self.elcr & self._elcr_mask | self._fixed_levels
        self.base &= 0xF8
        self.update()

    def _after_icw3(self) -> int:
        return _ICW4 if self.wants_icw4 else _OCW1

    def _answer_poll(self) -> int:
        self.poll = 0
        number = self.request()
        if number < 0:
            return 0
        self.accept(number)
        return 0x80 | number

    def _initialise(self, icw1: int) -> None:
        self.irr &= self.elcr
        self.imr = self.isr = 0
        self.highest = 0
        self.rotate_on_auto_eoi = self.special_mask = 0
        self.read_isr = self.poll = 0
        self.wants_icw4 = icw1 & 1
        self.single = icw1 >> 1 & 1
        if not self.wants_icw4:
            self.auto_eoi = self.fully_nested = 0
        self.awaiting = _ICW2

    def _set_mode(self, ocw3: int) -> None:
        if ocw3 & 0x04:
            self.poll = 1
        if ocw3 & 0x02:
            self.read_isr = ocw3 & 1
        if ocw3 & 0x40:
            self.special_mask = ocw3 >> 5 & 1

    def _end_of_interrupt(self, ocw2: int) -> None:
        command, number = ocw2 >> 5, ocw2 & 7
        if command in (0, 4):
            self.rotate_on_auto_eoi = command >> 2
        elif command == 6:
            self.highest = number + 1 & 7
        elif command in (1, 5):
            served = self.isr & ~self.imr if self.special_mask else self.isr
            priority = _priority(served, self.highest)
            if priority != _NONE:
                self._end(priority + self.highest & 7, rotate=command == 5)
        elif command in (3, 7):
            self._end(number, rotate=command == 7)

    def _end(self, number: int, *, rotate: bool) -> None:
        self.isr &= ~(1 << number)
        if rotate:
            self.highest = number + 1 & 7


class PicPair(Chip):
    """Master and slave as a PC has them; ``changed`` is told of each change of the master's INT."""

    PARTS = ("master", "slave")
    PORTS = (MASTER_PORTS, SLAVE_PORTS, ELCR_PORTS)

    def __init__(self, changed: Callable[[int], None]) -> None:
        self.master = Pic(changed, 0xF8, fixed_levels=1 << _CASCADE)
        self.slave = Pic(self._cascade, 0xDE)

    def set_irq(self, irq: int, level: int) -> None:
        """Drive input ``irq``, 0 to 15; nothing but the slave is wired to 2."""
        if irq & 8:
            self.slave.set_input(irq & 7, level)
        elif irq != _CASCADE:
            self.master.set_input(irq, level)

    def acknowledge(self) -> int:
        """The processor's INTA cycle: the vector of the interrupt, which is then in service.

        A request that went away meanwhile gives the vector of input 7, with nothing in service
        at that controller.
        """
        master, slave = self.master, self.slave
        number = master.request()
        if number < 0:
            return master.base + _SPURIOUS
        master.accept(number)
        if number != _CASCADE:
            return master.base + number
        number = slave.request()
        if number < 0:
            return slave.base + _SPURIOUS
        slave.accept(number)
        return slave.base + number

    def read(self, address: int, size: int) -> int | None:
        """Read a port; an access that is not a byte reads as ones, as in Xen."""
        if address & ~1 == ELCR_PORTS[0]:
            both = self.master.read_elcr() | self.slave.read_elcr() << 8
            return both >> 8 * (address & 1) & (1 << 8 * size) - 1
        if size != 1:
            return (1 << 8 * size) - 1
        pic = self.slave if address & 0x80 else self.master
        return pic.read_odd() if address & 1 else pic.read_even()

    def write(self, address: int, size: int, value: int) -> bool:
        """Write a port; an access that is not a byte does nothing, as in Xen."""
        if address & ~1 == ELCR_PORTS[0]:
            for offset in range(size):
                pic = self.slave if address + offset & 1 else self.master
                pic.write_elcr(value >> 8 * offset & 0xFF)
        elif size == 1:
            pic = self.slave if address & 0x80 else self.master
            (pic.write_odd if address & 1 else pic.write_even)(value)
        return True

    def _cascade(self, level: int) -> None:
        self.master.set_input(_CASCADE, level)
