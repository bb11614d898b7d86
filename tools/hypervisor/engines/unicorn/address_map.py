"""What a processor of the library finds at each guest-physical address, kept as the domain has it.

RAM is the domain's own, not a copy; everything else below 2**52 is memory-mapped I/O, but for the
pages at `HIDDEN`, which the library itself reads. When the guest changes its memory, what differs
is mapped anew. The library takes time for each page of what it unmaps, so holes are cut where
firmware puts RAM into them, and the largest ones stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from .library import (
    ACCESS_HOOK,
    HOOK_ALL,
    HOOK_MEM_READ,
    HOOK_MEM_WRITE,
    HOOK_WRITE_PROTECTED,
    PROTECTED_HOOK,
    Emulator,
)
from .vectoring import NotModelledError

if TYPE_CHECKING:
    from ...memory import GuestMemory

__all__ = ["HIDDEN", "AddressMap"]

HIDDEN: Final = 1 << 51
LAST: Final = 1 << 52
GIB: Final = 1 << 30
BORDERS: Final = (0xF0000000, 0xFC000000, 0xFE000000, 4 * GIB, 8 * GIB, 64 * GIB)
"""Where holes are cut: around the low hole for BARs, what hvmloader gives tables, and what it moves
to above 4 GiB."""
LARGEST: Final = 64 * GIB
"""Bytes of a hole that can still be changed."""


class Span(NamedTuple):
    """A run of addresses. ``offset``: where it is in the memory file; -1: memory-mapped I/O."""

    gpa: int
    size: int
    offset: int
    writable: bool = True


class Holes(Protocol):
    """What answers accesses to memory-mapped I/O: a hook in front, and the callbacks behind it."""

    @property
    def access(self) -> Callable[[int, int, int, int, int, None], None]:
        """The hook."""

    def reader(self, base: int) -> Callable[[int | None, int, int, None], int]:
        """What reads in a hole that begins at ``base``."""

    def writer(self, handle: int | None, offset: int, size: int, value: int, user: None, /) -> None:
        """What writes."""


class AddressMap:
    """The map of one processor. ``start`` and ``hidden``: this process's addresses of the memory
    file's bytes and of the hidden pages."""

    def __init__(
        self, emulator: Emulator, memory: GuestMemory, holes: Holes, start: int, hidden: Span
    ) -> None:
        self._emulator, self._memory, self._holes = emulator, memory, holes
        self._start = start
        self._hidden = hidden
        self._spans: set[Span] = set()
        self._hooks: dict[tuple[int, int], int] = {}
        self._generation = -1
        emulator.map_ram(hidden.gpa, hidden.size, hidden.offset)
        # What an emulator has made read-only drops writes.
        emulator.hook(HOOK_WRITE_PROTECTED, PROTECTED_HOOK, lambda *access: True, HOOK_ALL)
        self.update()

    @property
    def stale(self) -> bool:
        """Whether the domain's memory has changed since."""
        return self._generation != self._memory.generation

    def update(self) -> None:
        """Map what has changed. Registers and what was translated are the caller's to see to.

        NotModelledError: a hole is too large to be changed.
        """
        emulator = self._emulator
        self._generation = self._memory.generation
        wanted = set(self._wanted())
        for span in self._spans - wanted:
            if span.size > LARGEST:
                raise NotModelledError(f"RAM comes or goes at {span.gpa:#x} or above")
            emulator.unmap(span.gpa, span.size)
        for span in wanted - self._spans:
            if span.offset >= 0:
                address = self._start + span.offset
                emulator.map_ram(span.gpa, span.size, address, writable=span.writable)
            else:
                reader = self._holes.reader(span.gpa)
                emulator.map_mmio(span.gpa, span.size, reader, self._holes.writer)
        self._spans = wanted
        self._hook({(first, last) for first, last in _runs(wanted)})

    def _hook(self, wanted: set[tuple[int, int]]) -> None:
        """Have the hook in front of the holes just where they are."""
        for run in self._hooks.keys() - wanted:
            self._emulator.unhook(self._hooks.pop(run))
        for run in wanted - self._hooks.keys():
            kinds = HOOK_MEM_READ | HOOK_MEM_WRITE
            self._hooks[run] = self._emulator.hook(kinds, ACCESS_HOOK, self._holes.access, run)

    def _wanted(self) -> Iterator[Span]:
        at = 0
        taken = [*(Span(*run) for run in self._memory.runs()), self._hidden]
        for span in sorted(taken):
            yield from _cut(at, span.gpa)
            if span.gpa != HIDDEN:
                yield span
            at = span.gpa + span.size
        yield from _cut(at, LAST)


def _cut(first: int, end: int) -> Iterator[Span]:
    """A hole, in pieces."""
    for border in BORDERS:
        if first < border < end:
            yield Span(first, border - first, -1)
            first = border
    if first < end:
        yield Span(first, end - first, -1)


def _runs(spans: Iterable[Span]) -> Iterator[tuple[int, int]]:
    """First and last addresses of holes, those that touch each other as one."""
    first = end = -1
    for gpa, size, *_ in sorted(span for span in spans if span.offset < 0):
        if gpa != end:
            if end > 0:
                yield first, end - 1
            first = gpa
        end = gpa + size
    if end > 0:
        yield first, end - 1
