"""The 8254 timer of a PC, and port 0x61, where its third channel meets gate and speaker.

Nothing counts while nobody looks: a channel knows when it was loaded, and counters, outputs and
interrupts follow from the time that has passed.

Sources: Intel's 8254 data sheet; xen/arch/x86/emul-i8254.c for what an HVM guest finds: a new
count takes effect at once in every mode, no tick comes before channel 0 is programmed, a tick
leaves IRQ 0 asserted until the next one, and the refresh bit of port 0x61 toggles every 2^14 ns.
Unlike Xen, and like the data sheet: BCD counts, modes 1 and 5 wait for their gate, channel 0
interrupts in mode 0, and a control word stops a channel until its count is written.
Not modelled: the NULL COUNT bit, which reads as 0 (as in Xen).
Ticks closer together than 100 microseconds become one, as do ticks for which the host was late:
what a hostile guest can do is to have 10,000 calls a second made for it.
"""

from __future__ import annotations

from collections.abc import Callable

from ..clock import Clock, Timer
from .chip import Chip

__all__ = ["FREQUENCY", "SHORTEST_PERIOD", "Channel", "Pit"]

FREQUENCY = 1_193_182
"""Hertz of the input clock."""
SECOND = 1_000_000_000
SHORTEST_PERIOD = 100_000
"""Nanoseconds between two ticks at least (xen/arch/x86/hvm/vpt.c: create_periodic_time)."""
_REFRESH_SHIFT = 14

_LOW, _HIGH, _BOTH = 1, 2, 3
"""Which bytes of a count are accessed (bits 5:4 of a control word)."""


class Channel(Chip):
    """One counter."""

    STATE = {
        "mode": 5,
        "bcd": 1,
        "access": 3,
        "read_high": 1,
        "write_high": 1,
        "write_low": 0xFF,
        "count": 0x10000,
        "running": 1,
        "gate": 1,
        "latched": 3,
        "latch": 0xFFFF,
        "status_latched": 1,
        "status": 0xFF,
    }
    TIMES = ("started", "stopped")

    def __init__(self, gate: int) -> None:
        self.mode = 3
        self.bcd = self.access = 0
        self.read_high = self.write_high = self.write_low = 0
        self.count = 0x10000
        self.running = 0
        """Whether the count was loaded and, in modes 1 and 5, the gate has risen since."""
        self.gate = gate
        self.latched = self.latch = 0
        self.status_latched = self.status = 0
        self.started = self.stopped = 0
        """When counting began, and when the gate last fell."""

    def ticks(self, now: int) -> int:
        """Clock periods counted since the start."""
        if not self.running:
            return 0
        held = not self.gate and self.mode not in (1, 5)
        return ((self.stopped if held else now) - self.started) * FREQUENCY // SECOND

    def time_of(self, ticks: int) -> int:
        """The instant at which ``ticks`` clock periods have been counted."""
        return self.started + -(-ticks * SECOND // FREQUENCY)

    def output(self, now: int) -> int:
        """The level of OUT."""
        ticks, count = self.ticks(now), self.count
        if not self.running:
            return int(self.mode != 0)
        if self.mode in (0, 1):
            return int(ticks >= count)
        if self.mode in (4, 5):
            return int(ticks != count)
        if not self.gate:
            return 1
        phase = ticks % count
        return int(phase != count - 1 if self.mode == 2 else phase < (count + 1) // 2)

    def counter(self, now: int) -> int:
        """What a read of the counting element gives, in 16 bits."""
        ticks, count = self.ticks(now), self.count
        if self.mode == 2:
            value = count - ticks % count
        elif self.mode == 3:
            phase, high = ticks % count, (count + 1) // 2
            value = (count & ~1) - 2 * (phase - high if phase >= high else phase)
        else:
            value = count - ticks
        if not self.bcd:
            return value & 0xFFFF
        value %= 10000
        return value // 1000 << 12 | value // 100 % 10 << 8 | value // 10 % 10 << 4 | value % 10

    def program(self, word: int) -> None:
        """Take a control word that sets the mode."""
        self.access = word >> 4 & 3
        self.read_high = self.write_high = int(self.access == _HIGH)
        mode = word >> 1 & 7
        self.mode = mode - 4 if mode > 5 else mode
        self.bcd = word & 1
        self.running = 0

    def latch_count(self, now: int) -> None:
        """Hold the counter for the next reads; a count that is held already stays."""
        if not self.latched:
            self.latch = self.counter(now)
            self.latched = self.access or _LOW

    def latch_status(self, now: int) -> None:
        """Hold the status for the next read."""
        if not self.status_latched:
            modes = self.access << 4 | self.mode << 1 | self.bcd
            self.status = self.output(now) << 7 | modes
            self.status_latched = 1

    def read(self, now: int) -> int:
        """Read a byte: a held status, a held count, or the counter itself."""
        if self.status_latched:
            self.status_latched = 0
            return self.status
        if self.latched:
            high = self.latched == _HIGH
            self.latched = _HIGH if self.latched == _BOTH else 0
            return self.latch >> 8 if high else self.latch & 0xFF
        value = self.counter(now)
        high = bool(self.read_high)
        if self.access == _BOTH:
            self.read_high ^= 1
        return value >> 8 if high else value & 0xFF

    def write(self, value: int, now: int) -> bool:
        """Write a byte of the count; whether the count is complete and was loaded."""
        if self.access == _BOTH:
            self.write_high ^= 1
            if self.write_high:
                self.write_low = value
                return False
            value = value << 8 | self.write_low
        elif self.access == _HIGH:
            value <<= 8
        self._load(value, now)
        return True

    def set_gate(self, level: int, now: int) -> None:
        """Drive GATE."""
        if level == self.gate:
            return
        self.gate = level
        if not level:
            self.stopped = now
        elif self.mode in (0, 4):
            self.started += now - self.stopped
        else:
            self.started = now
            self.running = 1

    def _load(self, value: int, now: int) -> None:
        if self.bcd:
            digits = (value >> shift & 15 for shift in (12, 8, 4, 0))
            value = sum(d * 10**power for d, power in zip(digits, (3, 2, 1, 0), strict=True))
            self.count = value or 10000
        else:
            self.count = value or 0x10000
        if self.mode in (1, 5):
            return
        self.started = self.stopped = now
        self.running = 1

    def after_load(self) -> None:
        """A count of 0 cannot be reached, and would be divided by."""
        self.count = self.count or 0x10000


class Pit(Chip):
    """Ports 0x40 to 0x43 and 0x61; ``set_irq`` drives IRQ 0."""

    STATE = {"speaker": 1}
    PARTS = ("channels",)
    PORTS = ((0x40, 0x43), (0x61, 0x61))

    def __init__(self, clock: Clock, set_irq: Callable[[int], None]) -> None:
        self._clock = clock
        self._set_irq = set_irq
        self._timer: Timer | None = None
        self.channels = [Channel(gate=1), Channel(gate=1), Channel(gate=0)]
        self.speaker = 0

    def read(self, address: int, size: int) -> int | None:
        """Read a port; the control port, and an access that is not a byte, read as ones."""
        now = self._clock.now()
        if address == 0x61:
            gate = self.channels[2]
            refresh = now >> _REFRESH_SHIFT & 1
            return gate.output(now) << 5 | refresh << 4 | self.speaker << 1 | gate.gate
        if size != 1 or address & 3 == 3:
            return (1 << 8 * size) - 1
        return self.channels[address & 3].read(now)

    def write(self, address: int, size: int, value: int) -> bool:
        """Write a port; an access that is not a byte does nothing."""
        if address == 0x61:
            self.speaker = value >> 1 & 1
            self.channels[2].set_gate(value & 1, self._clock.now())
        elif size == 1 and address & 3 == 3:
            self._control(value)
        elif size == 1:
            number = address & 3
            if self.channels[number].write(value, self._clock.now()) and number == 0:
                self._arm()
        return True

    def after_load(self) -> None:
        """Arm the timer of channel 0 again; the gates of 0 and 1 are tied high."""
        self.channels[0].gate = self.channels[1].gate = 1
        self._arm()

    def _control(self, word: int) -> None:
        now = self._clock.now()
        number = word >> 6
        if number == 3:
            for index, channel in enumerate(self.channels):
                if word & 2 << index:
                    if not word & 0x20:
                        channel.latch_count(now)
                    if not word & 0x10:
                        channel.latch_status(now)
        elif not word & 0x30:
            self.channels[number].latch_count(now)
        else:
            self.channels[number].program(word)
            if number == 0:
                self._arm()
                if self.channels[0].mode == 0:
                    self._set_irq(0)

    def _arm(self, earliest: int = 0) -> None:
        """Have the next tick of channel 0 at ``earliest`` or after it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        channel = self.channels[0]
        if not channel.running or channel.mode in (1, 5):
            return
        now = self._clock.now()
        ticks = channel.ticks(now)
        if channel.mode in (2, 3):
            after = max(ticks, channel.ticks(earliest - 1))
            ticks_at = (after // channel.count + 1) * channel.count
        else:
            # A strobe (mode 4) is low for one clock period: its rise is the interrupt.
            ticks_at = channel.count + (channel.mode == 4)
            if ticks >= ticks_at:
                return
        self._timer = self._clock.call_at(channel.time_of(ticks_at), self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self.channels[0].mode != 0:
            self._set_irq(0)
        self._set_irq(1)
        if self.channels[0].mode in (2, 3):
            self._arm(self._clock.now() + SHORTEST_PERIOD)
