"""The MC146818 clock of a PC: the registers below 0x0e behind ports 0x70 and 0x71, and IRQ 8.

The other registers are the emulator's, who therefore also sees every index from 0x0e on. Flags and
date follow from the time that has passed when somebody looks; timers run only for interrupts that
are enabled.

Sources: Motorola's MC146818 data sheet; xen/arch/x86/hvm/rtc.c for what an HVM guest finds: a day
of the week that counts from 0, an interrupt that is raised anew for each event although register C
was not read, and a SET bit that leaves UIE alone.
Unlike Xen, and like the data sheet: a divider in reset (register A, 11x in bits 6:4) stops the
clock, whose first update ends 500 ms after the reset does, and a changed rate counts from the last
periodic tick.
Not modelled: daylight saving, the square wave.
What a hostile guest can do: set its own clock, and have 10,000 calls a second made for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ..clock import Clock, Timer
from .calendar import civil, next_match, seconds_of
from .chip import Chip

__all__ = ["Rtc"]

SECOND = 1_000_000_000
HALF_SECOND = SECOND // 2
UPDATE = 8 * SECOND // 32768
"""Nanoseconds before an update's end for which UIP announces it."""
SHORTEST_PERIOD = 100_000
REGISTERS = 14

(_SECONDS, _SECONDS_ALARM, _MINUTES, _MINUTES_ALARM, _HOURS, _HOURS_ALARM) = range(6)
_WEEKDAY, _DAY, _MONTH, _YEAR, _A, _B, _C, _D = range(6, 14)
_ALARMS = (_SECONDS_ALARM, _MINUTES_ALARM, _HOURS_ALARM)

_UIP, _DIVIDER, _DIVIDER_RESET, _RATE = 0x80, 0x70, 0x60, 0x0F
_SET, _BINARY, _24H = 0x80, 0x04, 0x02
_IRQ, _PERIODIC, _ALARM, _UPDATED = 0x80, 0x40, 0x20, 0x10
"""Flags of register C; the last three have their enables at the same places of register B."""
_SOURCES = _PERIODIC | _ALARM | _UPDATED
_PM = 0x80
_ANY = 0xC0
"""An alarm byte with both bits set matches any value."""


class Rtc(Chip):
    """``set_irq`` drives IRQ 8.

    ``epoch``: the time of day, in nanoseconds since 1970, at guest time 0; by default the host's.
    `on_offset` is told by how many seconds the guest has set its clock forward.
    """

    STATE = {
        "index": 0x7F,
        "registers": 0xFF,
        "offset": (-(1 << 63), 1 << 63),
        "stopped": 1,
    }
    TIMES = ("checked", "ticked")
    PORTS = ((0x70, 0x71),)

    def __init__(
        self, clock: Clock, set_irq: Callable[[int], None], epoch: int | None = None
    ) -> None:
        self.on_offset: Callable[[int], object] = lambda seconds: None
        self._clock = clock
        self._set_irq = set_irq
        self._timer: Timer | None = None
        self._epoch = time.time_ns() - clock.now() if epoch is None else epoch
        self.index = 0
        self.registers = [0] * REGISTERS
        self.registers[_A], self.registers[_B], self.registers[_D] = 0x26, _24H, 0x80
        self.offset = 0
        """Nanoseconds by which the guest's time of day is ahead of the host's."""
        self.stopped = 0
        """Whether the date stands still in its registers."""
        self.checked = self.ticked = clock.now()
        """When the flags were last brought up to date, and the origin of the periodic ticks."""

    def read(self, address: int, size: int) -> int | None:
        """Read a port; None for the emulator's registers."""
        if size != 1:
            return (1 << 8 * size) - 1
        if self.index >= REGISTERS:
            return None
        return self._read_register() if address & 1 else 0xFF

    def write(self, address: int, size: int, value: int) -> bool:
        """Write a port; False for the emulator's registers, and for the indices of those."""
        if size != 1:
            return True
        if not address & 1:
            self.index = value & 0x7F
        elif self.index < REGISTERS:
            self._write_register(value)
        return self.index < REGISTERS

    def after_load(self) -> None:
        """Arm the timer again."""
        self._arm()

    def _read_register(self) -> int:
        now = self._clock.now()
        if self.index in (_C, _A):
            self._look(now)
        if self.index == _C:
            return self._read_c()
        if self.index == _A:
            updating = not self.stopped and self._wall(now) % SECOND >= SECOND - UPDATE
            return self.registers[_A] | (_UIP if updating else 0)
        if self.index < _A and self.index not in _ALARMS and not self.stopped:
            self._copy_date(now)
        return self.registers[self.index]

    def _read_c(self) -> int:
        value = self.registers[_C]
        if value & self.registers[_B] & _SOURCES:
            value |= _IRQ
        self.registers[_C] = 0
        if value & _IRQ:
            self._set_irq(0)
        self._arm()
        return value

    def _write_register(self, value: int) -> None:
        now, index = self._clock.now(), self.index
        self._look(now)
        if index == _A:
            self._set_a(value & ~_UIP, now)
        elif index == _B:
            self._set_b(value, now)
        elif index in _ALARMS:
            self.registers[index] = value
        elif index < _A:
            if not self.stopped:
                self._copy_date(now)
            self.registers[index] = value
            if not self.stopped:
                self._set_date(now, self._wall(now) % SECOND)
        self._arm()

    def _set_a(self, value: int, now: int) -> None:
        old_period, was_reset = self._period(), self._in_reset(self.registers[_A])
        stop = self._in_reset(value) or bool(self.registers[_B] & _SET)
        self._stop_or_go(now, stop, HALF_SECOND if was_reset else None)
        self.registers[_A] = value
        if old_period:
            self.ticked += (now - self.ticked) // old_period * old_period
        else:
            self.ticked = now

    def _set_b(self, value: int, now: int) -> None:
        # A date that starts or stops is in the format that was in force when it was written.
        stop = self._in_reset(self.registers[_A]) or bool(value & _SET)
        self._stop_or_go(now, stop, None)
        self.registers[_B] = value
        self._raise()

    def _stop_or_go(self, now: int, stop: bool, fraction: int | None) -> None:
        """Stop or start the date; started, it is ``fraction`` ns (None: as ever) into a second."""
        if stop and not self.stopped:
            self._copy_date(now)
        elif self.stopped and not stop:
            self._set_date(now, self._wall(now) % SECOND if fraction is None else fraction)
        self.stopped = int(stop)

    @staticmethod
    def _in_reset(register_a: int) -> bool:
        return register_a & _DIVIDER_RESET == _DIVIDER_RESET

    def _period(self) -> int:
        """Nanoseconds between periodic ticks; 0: none."""
        divider, rate = self.registers[_A] & _DIVIDER, self.registers[_A] & _RATE
        if not rate or divider > 0x20:
            return 0
        if divider == 0x20 and rate <= 2:
            rate += 7
        return ((1 << rate - 1) * SECOND + 16384) // 32768

    def _wall(self, now: int) -> int:
        """The guest's time of day at guest time ``now``, in nanoseconds since 1970."""
        return self._epoch + self.offset + now

    def _look(self, now: int) -> None:
        """Set the flags of what has happened since the last look."""
        since, self.checked = self.checked, now
        if now <= since:
            return
        period = self._period()
        if period and (now - self.ticked) // period > (since - self.ticked) // period:
            self.registers[_C] |= _PERIODIC
        if self.stopped:
            return
        first, last = self._wall(since) // SECOND, self._wall(now) // SECOND
        if last > first:
            self.registers[_C] |= _UPDATED
            alarm = next_match(first, *self._alarm())
            if alarm is not None and alarm <= last:
                self.registers[_C] |= _ALARM

    def _raise(self) -> None:
        if self.registers[_B] & self.registers[_C] & _SOURCES:
            self.registers[_C] |= _IRQ
            self._set_irq(0)
            self._set_irq(1)

    def _arm(self, earliest: int = 0) -> None:
        """Have the timer at the next event that interrupts, but not before ``earliest``."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._clock.now()
        enabled, flags = self.registers[_B] & _SOURCES, self.registers[_C]
        events = []
        period = self._period()
        if enabled & _PERIODIC and period:
            after = max(now, earliest - 1) - self.ticked
            events.append(self.ticked + (after // period + 1) * period)
        second = self._wall(now) // SECOND
        if enabled & ~flags & _UPDATED and not self.stopped:
            events.append(self._instant(second + 1))
        if enabled & ~flags & _ALARM and not self.stopped:
            alarm = next_match(second, *self._alarm())
            if alarm is not None:
                events.append(self._instant(alarm))
        if events:
            self._timer = self._clock.call_at(min(events), self._event)

    def _event(self) -> None:
        self._timer = None
        now = self._clock.now()
        self._look(now)
        self._raise()
        self._arm(now + SHORTEST_PERIOD)

    def _instant(self, second: int) -> int:
        """The guest time at which ``second`` begins."""
        return second * SECOND - self._epoch - self.offset

    def _alarm(self) -> tuple[int | None, int | None, int | None]:
        """Hour, minute and second of the alarm; None matches any."""
        hour, minute, second = (
            self.registers[index] for index in (_HOURS_ALARM, _MINUTES_ALARM, _SECONDS_ALARM)
        )
        return (
            None if hour & _ANY == _ANY else self._to_hour(hour),
            None if minute & _ANY == _ANY else self._to_number(minute),
            None if second & _ANY == _ANY else self._to_number(second),
        )

    def _copy_date(self, now: int) -> None:
        """Put the date into its registers."""
        year, month, day, weekday, hour, minute, second = civil(self._wall(now) // SECOND)
        numbers = ((_SECONDS, second), (_MINUTES, minute), (_DAY, day), (_MONTH, month))
        for index, number in (*numbers, (_WEEKDAY, weekday), (_YEAR, year % 100)):
            self.registers[index] = self._from_number(number)
        if self.registers[_B] & _24H:
            self.registers[_HOURS] = self._from_number(hour)
        else:
            half = _PM if hour >= 12 else 0
            self.registers[_HOURS] = self._from_number(hour % 12 or 12) | half

    def _set_date(self, now: int, fraction: int) -> None:
        """Take the date from its registers, ``fraction`` nanoseconds into its second."""
        year, month, day, minute, second = (
            self._to_number(self.registers[index])
            for index in (_YEAR, _MONTH, _DAY, _MINUTES, _SECONDS)
        )
        hour = self._to_hour(self.registers[_HOURS])
        wanted = seconds_of(2000 + year, month, day, hour, minute, second)
        before = self._wall(now) // SECOND
        self.offset = wanted * SECOND + fraction - self._epoch - now
        if wanted != before:
            self.on_offset(wanted - before)

    def _from_number(self, number: int) -> int:
        return number if self.registers[_B] & _BINARY else number // 10 << 4 | number % 10

    def _to_number(self, value: int) -> int:
        return value if self.registers[_B] & _BINARY else (value >> 4) * 10 + (value & 15)

    def _to_hour(self, value: int) -> int:
        if self.registers[_B] & _24H:
            return self._to_number(value & 0x7F)
        return self._to_number(value & 0x7F) % 12 + (12 if value & _PM else 0)
