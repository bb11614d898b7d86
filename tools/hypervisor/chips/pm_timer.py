"""Xen's part of the ACPI power-management block: the PM timer, PM1a status and enable, and the SCI.

PM1a control, 4 bytes above, is the emulator's.

Sources: ACPI specification, "Power Management Timer" and "PM1 Event Grouping"; xen/arch/x86/hvm/
pmtimer.c for what an HVM guest finds: a 32-bit counter, two places for the block (`location`, the
value of HVM_PARAM_ACPI_IOPORTS_LOCATION), and an SCI on ISA interrupt 9 that it shares with the
emulator, bit and all. Nobody plays hvmloader here, so that the block begins at location 1, where
hvmloader would put it.
"""

from __future__ import annotations

from collections.abc import Callable

from ..clock import Clock, Timer
from .chip import Chip

__all__ = ["FREQUENCY", "SCI_IRQ", "PmTimer"]

FREQUENCY = 3_579_545
SECOND = 1_000_000_000
SCI_IRQ = 9

_BASES = (0x1F40, 0xB000)
_TIMER = 8
_HALF = 1 << 31
"""Counts between two flips of the counter's highest bit, which are what PM1a status notes."""
_ELAPSED, _GLOBAL, _POWER_BUTTON, _SLEEP_BUTTON = 1 << 0, 1 << 5, 1 << 8, 1 << 9
_EVENTS = _ELAPSED | _GLOBAL | _POWER_BUTTON | _SLEEP_BUTTON


class PmTimer(Chip):
    """``set_irq`` drives the SCI."""

    STATE = {"status": 0xFFFF, "enable": 0xFFFF, "location": 1}
    TIMES = ("started", "checked")
    PORTS = tuple((base + first, base + first + 3) for base in _BASES for first in (0, _TIMER))

    def __init__(self, clock: Clock, set_irq: Callable[[int], None]) -> None:
        self._clock = clock
        self._set_irq = set_irq
        self._timer: Timer | None = None
        self.status = self.enable = 0
        self.location = 1
        self.started = self.checked = clock.now()
        """When the counter was 0, and when the status was last brought up to date."""

    def read(self, address: int, size: int) -> int | None:
        """Read a register; None at the location where the block is not."""
        offset = address - _BASES[self.location]
        mask = (1 << 8 * size) - 1
        now = self._clock.now()
        if offset == _TIMER:
            return self._counted(now) & 0xFFFFFFFF if size == 4 else mask
        if _TIMER < offset < _TIMER + 4:
            return mask
        if not 0 <= offset < 4:
            return None
        self._look(now)
        return (self.status | self.enable << 16) >> 8 * offset & mask

    def write(self, address: int, size: int, value: int) -> bool:
        """Write a register; False at the location where the block is not."""
        offset = address - _BASES[self.location]
        if _TIMER <= offset < _TIMER + 4:
            return True
        if not 0 <= offset < 4:
            return False
        self._look(self._clock.now())
        written = value << 8 * offset
        touched = (1 << 8 * size) - 1 << 8 * offset
        self.status &= ~(written & 0xFFFF)
        self.enable = self.enable & ~(touched >> 16) | written >> 16 & 0xFFFF
        self._settle()
        return True

    def press_power_button(self) -> None:
        """Tell the guest (hvm_acpi_power_button)."""
        self._note(_POWER_BUTTON)

    def press_sleep_button(self) -> None:
        """Tell the guest (hvm_acpi_sleep_button)."""
        self._note(_SLEEP_BUTTON)

    def after_load(self) -> None:
        """Drive the SCI and arm the timer again."""
        self._settle()

    def _counted(self, now: int) -> int:
        return (now - self.started) * FREQUENCY // SECOND

    def _look(self, now: int) -> None:
        if self._counted(now) // _HALF != self._counted(self.checked) // _HALF:
            self.status |= _ELAPSED
        self.checked = now

    def _note(self, event: int) -> None:
        self._look(self._clock.now())
        self.status |= event
        self._settle()

    def _settle(self) -> None:
        """Drive the SCI; have a timer at the next flip if that is to interrupt."""
        self._set_irq(int(bool(self.status & self.enable & _EVENTS)))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.enable & ~self.status & _ELAPSED:
            flip = (self._counted(self.checked) // _HALF + 1) * _HALF
            self._timer = self._clock.call_at(
                self.started + -(-flip * SECOND // FREQUENCY), self._flip
            )

    def _flip(self) -> None:
        self._timer = None
        self._look(self._clock.now())
        self._settle()
