"""The clock chips that no engine brings along: RTC and PM timer, wired to a domain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .chip import Chip
from .pm_timer import SCI_IRQ, PmTimer
from .rtc import Rtc

if TYPE_CHECKING:
    from ..domain import Domain

__all__ = ["Timekeepers"]

_RTC_IRQ = 8


class Timekeepers(Chip):
    """Registers both with ``domain``; called under its lock. ``epoch``: see `Rtc`."""

    PARTS = ("rtc", "pm_timer")

    def __init__(self, domain: Domain, epoch: int | None = None) -> None:
        lines = domain.interrupts
        self.rtc = Rtc(domain.clock, lambda level: lines.set_isa_irq(_RTC_IRQ, level), epoch)
        self.rtc.on_offset = domain.time_offset
        self.pm_timer = PmTimer(domain.clock, lambda level: lines.set_isa_irq(SCI_IRQ, level))
        for chip in (self.rtc, self.pm_timer):
            for first, last in chip.PORTS:
                domain.intercepts.add_ports(first, last, chip)
