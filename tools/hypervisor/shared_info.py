"""The page that Xen shares with a guest: pending events, and the time as the TSC tells it.

Facts: public/xen.h (struct shared_info), xen/common/event_2l.c (evtchn_2l_set_pending, _unmask),
xen/arch/x86/time.c (set_time_scale, __update_vcpu_system_time); an HVM guest's page has the width
that the guest had when it asked for its hypercall page (xen/arch/x86/hvm/hvm.c:
hvm_latch_shinfo_size).

Bits are set here while the guest clears others beside them: what it clears at that very moment may
come back, an event too many, never one too few.
"""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING, NamedTuple

from protocol import layouts

from .memory import PAGE_SIZE

if TYPE_CHECKING:
    from .domain import Domain

__all__ = ["SharedInfo"]

VCPU_LIMIT = 32
"""vCPUs that have their information in this page."""
UPCALL_PENDING = 0
TIME_OFFSET = 32
TIME = struct.Struct(layouts.VCPU_TIME_INFO_FORMAT)
WALL_CLOCK = struct.Struct("<III")
NANOSECONDS_KHZ = 1_000_000
"""A TSC that counts nanoseconds."""
SECOND = 1_000_000_000
STABLE = 1


class _Shape(NamedTuple):
    """Where the parts are that differ by width; ``word``: bytes of a long."""

    word: int
    pending: int
    mask: int
    clock: int


_SHAPES = {
    False: _Shape(
        4,
        layouts.COMPAT_SHARED_INFO_EVTCHN_PENDING_OFFSET,
        layouts.COMPAT_SHARED_INFO_EVTCHN_MASK_OFFSET,
        layouts.COMPAT_SHARED_INFO_WC_VERSION_OFFSET,
    ),
    True: _Shape(
        8,
        layouts.SHARED_INFO_EVTCHN_PENDING_OFFSET,
        layouts.SHARED_INFO_EVTCHN_MASK_OFFSET,
        layouts.SHARED_INFO_WC_VERSION_OFFSET,
    ),
}


class SharedInfo:
    """The page of one domain; the domain's lock guards it. ``offset``: where it is in the memory
    file. MemoryError: there is no page for it.

    ``tsc_khz``: how fast the TSC of the engine runs.
    """

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        offset = domain.memory.take_page()
        if offset is None:
            raise MemoryError("there is no page for the shared information")
        self.offset = offset
        self._page = domain.memory.page(offset)
        self._shape = _SHAPES[True]
        self.tsc_khz = NANOSECONDS_KHZ
        self.tsc_origin = 0
        """What the TSC showed at guest time 0."""

    def latch(self, *, wide: bool) -> None:
        """Use the shape of a 64-bit guest, or of a 32-bit one."""
        self._shape = _SHAPES[wide]
        self.tell_time()

    def tell_time(self) -> None:
        """Write how nanoseconds of guest time follow from the TSC, and when guest time began."""
        multiplier, shift = _scale(self.tsc_khz)
        for vcpu in [one.id for one in self._domain.vcpus if one.id < VCPU_LIMIT]:
            at = vcpu * layouts.VCPU_INFO_SIZE + TIME_OFFSET
            version = (struct.unpack_from("<I", self._page, at)[0] | 1) + 1
            entry = (version, 0, self.tsc_origin, 0, multiplier, shift, STABLE, bytes(2))
            TIME.pack_into(self._page, at, *entry)
        began = time.time_ns() - self._domain.clock.now()
        seconds, rest = divmod(max(began, 0), SECOND)
        WALL_CLOCK.pack_into(self._page, self._shape.clock, 2, seconds & 0xFFFFFFFF, rest)

    def is_pending(self, port: int) -> bool:
        """Whether the guest has yet to see an event on ``port``."""
        return self._test(self._shape.pending, port)

    def set_pending(self, port: int, vcpu: int) -> None:
        """An event on ``port``, whose business it is of ``vcpu``."""
        if self._test_and_set(self._shape.pending, port):
            return
        if not self._test(self._shape.mask, port):
            self._mark(port, vcpu)

    def clear(self, port: int) -> None:
        """A port was closed: nothing is pending on it, and it is not masked."""
        for base in (self._shape.pending, self._shape.mask):
            self._page[base + port // 8] &= ~(1 << port % 8) & 0xFF

    def unmask(self, port: int, vcpu: int) -> None:
        """EVTCHNOP_unmask."""
        self._page[self._shape.mask + port // 8] &= ~(1 << port % 8) & 0xFF
        if self.is_pending(port):
            self._mark(port, vcpu)

    def reset(self) -> None:
        """As a new page: nothing pending, nothing masked."""
        self._page[:] = bytes(PAGE_SIZE)
        self._shape = _SHAPES[True]
        self.tell_time()

    def _mark(self, port: int, vcpu: int) -> None:
        """Have the vCPU find the word that ``port`` is in."""
        if vcpu < VCPU_LIMIT:
            word = self._shape.word
            base = vcpu * layouts.VCPU_INFO_SIZE
            if not self._test_and_set(base + word, port // (8 * word)):
                self._page[base + UPCALL_PENDING] = 1

    def _test(self, base: int, bit: int) -> bool:
        return bool(self._page[base + bit // 8] >> bit % 8 & 1)

    def _test_and_set(self, base: int, bit: int) -> bool:
        at, mask = base + bit // 8, 1 << bit % 8
        old = self._page[at]
        self._page[at] = old | mask
        return bool(old & mask)


def _scale(khz: int) -> tuple[int, int]:
    """Multiplier and shift that make nanoseconds of ticks: (ticks << shift) * multiplier >> 32."""
    ticks, shift = khz * 1000, 0
    while ticks > 2 * SECOND:
        ticks >>= 1
        shift -= 1
    while ticks <= SECOND:
        ticks <<= 1
        shift += 1
    return (SECOND << 32) // ticks, shift
