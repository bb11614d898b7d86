"""The local APIC of one vCPU: requests, priorities, the local vector table and the timer.

The timer counts nothing while nobody looks: its count follows from when it was started.

Sources: Intel SDM volume 3, "Advanced Programmable Interrupt Controller"; xen/arch/x86/hvm/vlapic.c
for what an HVM guest finds: version 0x50014, an APIC id of twice the vCPU's number, a bus cycle of
10 ns, and 8, 16 and 32-bit accesses within a register. As hvmloader leaves it, and as a PC's local
APIC is after its firmware, the first vCPU's LINT0 takes the 8259's interrupts (ExtINT) from the
start.
Not modelled: x2APIC, moving or switching it off by its MSR, performance counter and thermal
interrupts, anything on LINT0 and LINT1 but ExtINT from the 8259.
Periodic ticks closer together than 100 microseconds become one, as in Xen.
"""

from __future__ import annotations

from collections.abc import Callable

from ..clock import Clock, Timer
from .apic_bus import EXTINT, ApicBus
from .chip import Chip

__all__ = ["LAPIC_BASE", "LAPIC_SIZE", "Lapic"]

LAPIC_BASE = 0xFEE00000
LAPIC_SIZE = 0x1000
VERSION = 0x50014
CYCLE = 10
"""Nanoseconds of a bus cycle."""
SHORTEST_PERIOD = 100_000

_ID, _VERSION, _TPR, _PPR, _EOI = 0x20, 0x30, 0x80, 0xA0, 0xB0
_LDR, _DFR, _SVR, _ISR, _TMR, _IRR, _ESR = 0xD0, 0xE0, 0xF0, 0x100, 0x180, 0x200, 0x280
_ICR_LOW, _ICR_HIGH, _LVT, _INITIAL, _CURRENT, _DIVIDE = 0x300, 0x310, 0x320, 0x380, 0x390, 0x3E0

_TIMER, _LINT0, _ERROR = 0, 3, 5
"""Places in the local vector table."""
_MASKED = 0x10000
_LVT_BITS = (0x710FF, 0x117FF, 0x117FF, 0x1F7FF, 0x1F7FF, 0x110FF)
_PERIODIC, _DEADLINE = 1, 2
"""Timer modes; 0 is one-shot."""
_ENABLED = 0x100
_SEND_ILLEGAL, _RECEIVE_ILLEGAL = 0x20, 0x40
_FIRST_VECTOR = 16
_ONES = 0xFFFFFFFF


class Lapic(Chip):
    """One local APIC; ``changed`` is called when what it has for its vCPU may have changed."""

    STATE = {
        "id": _ONES,
        "tpr": 0xFF,
        "ldr": _ONES,
        "dfr": _ONES,
        "svr": 0x3FF,
        "esr": 0xFF,
        "errors": 0xFF,
        "icr_low": _ONES,
        "icr_high": _ONES,
        "lvt": 0x7FFFF,
        "irr": (1 << 256) - 1,
        "isr": (1 << 256) - 1,
        "tmr": (1 << 256) - 1,
        "initial": _ONES,
        "divide": 0xB,
        "running": 1,
    }
    TIMES = ("started", "expires")

    def __init__(
        self, vcpu: int, clock: Clock, bus: ApicBus, changed: Callable[[int], None]
    ) -> None:
        self.vcpu = vcpu
        self._clock = clock
        self._bus = bus
        self._changed = changed
        self._timer: Timer | None = None
        self.id = vcpu * 2 << 24
        self.reset()
        if vcpu == 0:
            self.lvt[_LINT0] = EXTINT << 8

    def reset(self) -> None:
        """INIT: everything but the id is as after power-on, with every local interrupt masked."""
        self.tpr = self.ldr = 0
        self.dfr = _ONES
        self.svr = 0xFF
        self.esr = self.errors = self.icr_low = self.icr_high = 0
        self.lvt = [_MASKED] * len(_LVT_BITS)
        self.irr = self.isr = self.tmr = 0
        """Requested, served and level-triggered vectors, a bit each."""
        self.initial = self.divide = self.running = 0
        self.started = self.expires = 0
        """When the timer was started, and its deadline in deadline mode."""
        self._arm()
        self._changed(self.vcpu)

    @property
    def enabled(self) -> bool:
        """Whether software has enabled it (spurious-interrupt vector register, bit 8)."""
        return bool(self.svr & _ENABLED)

    @property
    def takes_pic(self) -> bool:
        """Whether LINT0 lets the 8259's interrupts through."""
        return self.lvt[_LINT0] & (_MASKED | 0x700) == EXTINT << 8

    def priority(self) -> int:
        """The processor priority register."""
        served = max(self.isr.bit_length() - 1, 0)
        return self.tpr if self.tpr & 0xF0 >= served & 0xF0 else served & 0xF0

    def deliverable(self) -> int:
        """The vector that the vCPU could take now; -1 for none."""
        vector = self.irr.bit_length() - 1
        if vector < 0 or not self.svr & _ENABLED or vector >> 4 <= self.priority() >> 4:
            return -1
        return vector

    def acknowledge(self) -> int:
        """The vCPU takes its interrupt: the vector, which is then in service; -1 for none."""
        vector = self.deliverable()
        if vector >= 0:
            self.irr &= ~(1 << vector)
            self.isr |= 1 << vector
            self._changed(self.vcpu)
        return vector

    def accept(self, vector: int, level: bool) -> None:
        """Take a request that came over the bus."""
        if vector < _FIRST_VECTOR:
            self._report(_RECEIVE_ILLEGAL)
            return
        bit = 1 << vector
        self.tmr = self.tmr | bit if level else self.tmr & ~bit
        self.irr |= bit
        self._changed(self.vcpu)

    def report_send_error(self) -> None:
        """Note that an illegal vector was to be sent."""
        self._report(_SEND_ILLEGAL)

    def set_deadline(self, deadline: int | None) -> None:
        """Arm the timer in TSC-deadline mode for ``deadline`` nanoseconds; None disarms it.

        For an engine that has the MSR IA32_TSC_DEADLINE; nothing happens in the other modes.
        """
        if self._mode() == _DEADLINE:
            self.running = int(deadline is not None)
            self.expires = deadline or 0
            self._arm()

    def read(self, offset: int, size: int) -> int:
        """Read within a register at ``offset`` of the page; all else reads as zeros."""
        shift = offset & 15
        if shift + size > 4:
            return 0
        return self._read(offset & ~15) >> 8 * shift & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """Write within a register at ``offset`` of the page; all else does nothing."""
        shift = offset & 15
        if shift + size > 4:
            return
        if size < 4:
            mask = (1 << 8 * size) - 1 << 8 * shift
            value = self._read(offset & ~15) & ~mask | value << 8 * shift & mask
        self._write(offset & ~15, value)
        self._changed(self.vcpu)

    def after_load(self) -> None:
        """Arm the timer again."""
        self._arm()
        self._changed(self.vcpu)

    def _read(self, register: int) -> int:
        for first, bits in ((_ISR, self.isr), (_TMR, self.tmr), (_IRR, self.irr)):
            if first <= register < first + 0x80:
                return bits >> (register - first) * 2 & _ONES
        if _LVT <= register < _INITIAL:
            return self.lvt[register - _LVT >> 4]
        if register == _CURRENT:
            return self._count(self._clock.now())
        if register == _INITIAL:
            return 0 if self._mode() == _DEADLINE else self.initial
        return self._plain().get(register, 0)

    def _plain(self) -> dict[int, int]:
        """The registers that read as they are."""
        return {
            _ID: self.id,
            _VERSION: VERSION,
            _TPR: self.tpr,
            _PPR: self.priority(),
            _LDR: self.ldr,
            _DFR: self.dfr,
            _SVR: self.svr,
            _ESR: self.esr,
            _ICR_LOW: self.icr_low,
            _ICR_HIGH: self.icr_high,
            _DIVIDE: self.divide,
        }

    def _write(self, register: int, value: int) -> None:
        if register == _EOI:
            self._end_of_interrupt()
        elif register == _TPR:
            self.tpr = value & 0xFF
        elif register == _ID:
            self.id = value
        elif register == _LDR:
            self.ldr = value & 0xFF000000
        elif register == _DFR:
            self.dfr = value | 0x0FFFFFFF
        elif register == _SVR:
            self._set_svr(value & 0x3FF)
        elif register == _ESR:
            self.esr, self.errors = self.errors, 0
        elif register == _ICR_HIGH:
            self.icr_high = value & 0xFF000000
        elif register == _ICR_LOW:
            self.icr_low = value & ~0x1000
            self._bus.send_command(self.vcpu, self.icr_low, self.icr_high)
        elif _LVT <= register < _INITIAL:
            self._set_lvt(register - _LVT >> 4, value)
        elif register in (_INITIAL, _DIVIDE):
            self._set_timer(register, value)

    def _end_of_interrupt(self) -> None:
        vector = self.isr.bit_length() - 1
        if vector < 0:
            return
        bit = 1 << vector
        self.isr &= ~bit
        if self.tmr & bit:
            self._bus.end_of_interrupt(vector)

    def _set_svr(self, value: int) -> None:
        self.svr = value
        if not value & _ENABLED:
            self.lvt = [one | _MASKED for one in self.lvt]
            self._arm()

    def _set_lvt(self, place: int, value: int) -> None:
        value &= _LVT_BITS[place]
        if not self.svr & _ENABLED:
            value |= _MASKED
        if place == _TIMER:
            self._rebase(self._clock.now())
            if (value >> 17 == _DEADLINE) != (self._mode() == _DEADLINE):
                self.initial = self.running = 0
        self.lvt[place] = value
        if place == _TIMER:
            self._arm()

    def _report(self, error: int) -> None:
        """Note an error and, when it is a new one, raise the local error interrupt."""
        if self.errors & error:
            return
        self.errors |= error
        entry = self.lvt[_ERROR]
        if not entry & _MASKED and entry & 0xFF >= _FIRST_VECTOR:
            self.accept(entry & 0xFF, False)

    def _mode(self) -> int:
        return self.lvt[_TIMER] >> 17

    def _unit(self) -> int:
        """Nanoseconds of one step of the count: the divider's bits are 0, 1 and 3."""
        code = self.divide & 3 | self.divide >> 1 & 4
        return CYCLE << (code + 1 & 7)

    def _count(self, now: int) -> int:
        """The current count."""
        if not self.running or not self.initial or self._mode() == _DEADLINE:
            return 0
        passed = (now - self.started) // self._unit()
        if self._mode() == _PERIODIC:
            passed %= self.initial
        return min(max(self.initial - passed, 0), _ONES)

    def _rebase(self, now: int) -> None:
        """Make `started` the start of the current period; a one-shot that is over stops."""
        if not self.running or self._mode() == _DEADLINE:
            return
        period = self.initial * self._unit()
        if self._mode() == _PERIODIC and period:
            self.started += (now - self.started) // period * period
        elif now - self.started >= period:
            self.running = 0

    def _set_timer(self, register: int, value: int) -> None:
        now = self._clock.now()
        if register == _INITIAL:
            if self._mode() == _DEADLINE:
                return
            self.initial = value
            self.started = now
            self.running = int(value != 0)
        else:
            self._rebase(now)
            passed = (now - self.started) // self._unit()
            self.divide = value & 0xB
            self.started = now - passed * self._unit()
        self._arm()

    def _arm(self, earliest: int = 0) -> None:
        """Have the timer's next interrupt at ``earliest`` or after it, if there is to be one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        mode = self._mode()
        if self.lvt[_TIMER] & _MASKED or not self.running or mode > _DEADLINE:
            return
        if mode == _DEADLINE:
            self._timer = self._clock.call_at(self.expires, self._expire)
            return
        period = self.initial * self._unit()
        if not period:
            return
        now = self._clock.now()
        periods = 1
        if mode == _PERIODIC:
            periods = max((max(now, earliest - 1) - self.started) // period + 1, 1)
        elif now - self.started > period:
            return
        self._timer = self._clock.call_at(self.started + periods * period, self._expire)

    def _expire(self) -> None:
        self._timer = None
        if self._mode() == _PERIODIC:
            self._arm(self._clock.now() + SHORTEST_PERIOD)
        else:
            self.running = 0
        self.accept(self.lvt[_TIMER] & 0xFF, False)
