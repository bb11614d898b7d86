"""A domain's memory: one memory file, the guest-physical regions that it backs, and holes."""

from __future__ import annotations

import mmap
import os
import weakref
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from protocol import layouts

from .errors import NotRamError
from .shared_files import sealed_file

__all__ = ["PAGE_SHIFT", "PAGE_SIZE", "SPARE", "DirtyLog", "GuestMemory", "MemoryRegion", "RamRun"]

PAGE_SIZE = layouts.IOREQ_PAGE_SIZE
PAGE_SHIFT = 12
ADDRESS_LIMIT = 1 << 52
SPARE = 16 << 20
"""Bytes that a guest can have beyond its RAM: what a toolstack allows for tables and firmware."""


class MemoryRegion(NamedTuple):
    """A run of RAM: guest-physical address, bytes, and where it is in the memory file."""

    gpa: int
    size: int
    offset: int


class RamRun(NamedTuple):
    """As `MemoryRegion`, and whether vCPUs can write there: their writes are dropped if not."""

    gpa: int
    size: int
    offset: int
    writable: bool


class GuestMemory:
    """RAM at the regions ``ram``, pairs of guest-physical address and bytes, both whole pages.

    ValueError: a region is empty, not of whole pages, beyond 52 bits, or overlaps another one.
    Neighbours that lie side by side in the file are one region. ``fd``: the memory file, which
    emulators map, too; after the pages of ``ram`` it has ``spare`` bytes, of which pages are taken
    that the guest adds later. ``types``: the type of each GFN that is not plain RAM (set_mem_type);
    ``on_type`` is called with the first GFN, their number and the type, for engines whose vCPUs
    have to leave the guest to see it. ``on_change`` is called after regions or types have changed,
    before that; ``generation`` counts how often.

    Who changes regions holds the domain's lock; looking addresses up needs none.
    """

    def __init__(self, ram: Iterable[tuple[int, int]], spare: int = SPARE) -> None:
        regions = _lay_out(ram)
        self.size = sum(region.size for region in regions)
        self._fresh, self._end = self.size, self.size + spare
        """The part of the file that no page was taken of yet."""
        self.fd = sealed_file("guest memory", self._end)
        self._close = weakref.finalize(self, os.close, self.fd)
        self.map = mmap.mmap(self.fd, self._end)
        self._all = memoryview(self.map)
        self._freed: list[int] = []
        self.types: dict[int, int] = {}
        self.on_type: list[Callable[[int, int, int], object]] = []
        self.on_change: list[Callable[[], object]] = []
        self.generation = 0
        self._table = (regions, [region.gpa for region in regions])
        """Regions and their addresses; one attribute, so that a look-up sees both of one time."""

    @property
    def regions(self) -> list[MemoryRegion]:
        """The runs of RAM, by address."""
        return self._table[0]

    def runs(self) -> Iterator[RamRun]:
        """RAM as vCPUs have it, by address: without pages of the type mmio_dm, which are for the
        emulators to answer. Called under the domain's lock.
        """
        special = sorted(self.types.items())
        at = 0
        for gpa, size, offset in self.regions:
            gfn, end = gpa >> PAGE_SHIFT, gpa + size >> PAGE_SHIFT
            while gfn < end:
                first, mem_type = gfn, layouts.MEM_TYPE_RAM_RW
                if at < len(special) and special[at][0] == gfn:
                    mem_type = special[at][1]
                    while gfn < end and special[at : at + 1] == [(gfn, mem_type)]:
                        gfn, at = gfn + 1, at + 1
                else:
                    gfn = min(end, special[at][0]) if at < len(special) else end
                if mem_type != layouts.MEM_TYPE_MMIO_DM:
                    start, length = first << PAGE_SHIFT, gfn - first << PAGE_SHIFT
                    writable = mem_type != layouts.MEM_TYPE_RAM_RO
                    yield RamRun(start, length, offset + start - gpa, writable)

    def find(self, gpa: int) -> MemoryRegion | None:
        """The region that has the byte at ``gpa``."""
        regions, gpas = self._table
        index = bisect_right(gpas, gpa) - 1
        if index >= 0:
            region = regions[index]
            if gpa < region.gpa + region.size:
                return region
        return None

    def view(self, gpa: int, length: int) -> memoryview[int]:
        """The bytes themselves. NotRamError: they are not all in one region."""
        region = self.find(gpa)
        if region is None or length < 0 or gpa + length > region.gpa + region.size:
            raise NotRamError(f"{length} bytes at {gpa:#x} are not all RAM")
        start = region.offset + gpa - region.gpa
        return self._all[start : start + length]

    def page(self, offset: int) -> memoryview[int]:
        """The page at ``offset`` of the memory file, wherever the guest has it."""
        return self._all[offset : offset + PAGE_SIZE]

    def take_page(self) -> int | None:
        """A zeroed page of the spare ones: its offset in the file. None: there is no more."""
        if self._freed:
            return self._freed.pop()
        if self._fresh >= self._end:
            return None
        self._fresh += PAGE_SIZE
        return self._fresh - PAGE_SIZE

    def give_page(self, offset: int) -> None:
        """Give a page back that nobody has mapped any more."""
        self._all[offset : offset + PAGE_SIZE] = bytes(PAGE_SIZE)
        self._freed.append(offset)

    def map_page(self, gfn: int, offset: int) -> None:
        """Make the page at ``offset`` of the file the guest's at ``gfn``, which is free."""
        added = MemoryRegion(gfn << PAGE_SHIFT, PAGE_SIZE, offset)
        if self.find(added.gpa) is not None or not 0 <= added.gpa < ADDRESS_LIMIT:
            raise ValueError(f"GFN {gfn:#x} is taken or beyond 52 bits")
        regions, gpas = self._table
        at = bisect_right(gpas, added.gpa)
        around = slice(max(at - 1, 0), at + 1)
        self._replace(around, _join([*regions[around.start : at], added, *regions[at : at + 1]]))

    def unmap_page(self, gfn: int) -> int | None:
        """Take the page at ``gfn`` from the guest: its offset in the file. None: it has none."""
        gpa = gfn << PAGE_SHIFT
        region = self.find(gpa)
        if region is None:
            return None
        before, after = gpa - region.gpa, region.gpa + region.size - gpa - PAGE_SIZE
        parts = [
            region._replace(size=before),
            MemoryRegion(gpa + PAGE_SIZE, after, region.offset + before + PAGE_SIZE),
        ]
        self.types.pop(gfn, None)
        at = bisect_right(self._table[1], gpa) - 1
        self._replace(slice(at, at + 1), [part for part in parts if part.size])
        return region.offset + before

    def _replace(self, old: slice, new: list[MemoryRegion]) -> None:
        regions, gpas = self._table[0].copy(), self._table[1].copy()
        regions[old] = new
        gpas[old] = [region.gpa for region in new]
        self._table = (regions, gpas)
        self._tell()

    def _tell(self) -> None:
        self.generation += 1
        for told in self.on_change:
            told()

    def read(self, gpa: int, length: int) -> bytes:
        """A copy of ``length`` bytes. NotRamError: see `view`."""
        return bytes(self.view(gpa, length))

    def write(self, gpa: int, data: bytes | bytearray | memoryview[int]) -> None:
        """Store ``data``. NotRamError: see `view`; nothing is stored then."""
        self.view(gpa, len(data))[:] = data

    def frames(self, first_gfn: int, count: int) -> Iterator[range]:
        """The runs of GFNs that are RAM among ``count`` from ``first_gfn`` on."""
        for region in self.regions:
            start = region.gpa >> PAGE_SHIFT
            run = range(
                max(first_gfn, start),
                min(first_gfn + count, start + (region.size >> PAGE_SHIFT)),
            )
            if run:
                yield run

    def page_types(self, first_gfn: int, count: int, mem_type: int) -> None:
        """Give the type ``mem_type`` to those of ``count`` GFNs that are RAM."""
        for run in self.frames(first_gfn, count):
            if mem_type == layouts.MEM_TYPE_RAM_RW:
                for gfn in run:
                    self.types.pop(gfn, None)
            else:
                self.types.update(dict.fromkeys(run, mem_type))
            self._tell()
            for told in self.on_type:
                told(run.start, len(run), mem_type)

    @property
    def highest_gfn(self) -> int:
        """The last GFN that is RAM; -1 when the guest has given all of it back."""
        if not self.regions:
            return -1
        last = self.regions[-1]
        return (last.gpa + last.size - 1) >> PAGE_SHIFT


class DirtyLog:
    """GFNs that somebody wrote, while ``enabled``; and the video memory that an emulator watches.

    What vCPUs write is not trapped: a watched range is compared with a copy of itself.
    """

    def __init__(self, memory: GuestMemory) -> None:
        self._memory = memory
        self.enabled = False
        self._gfns: set[int] = set()
        self._watched = (0, 0)
        self._copy: dict[int, bytes] = {}

    def mark(self, first_gfn: int, count: int) -> None:
        """Emulators wrote these pages; without effect while the log is off."""
        if not self.enabled:
            return
        for run in self._memory.frames(first_gfn, count):
            self._gfns.update(run)

    def take(self) -> set[int]:
        """The GFNs that were marked since the last call."""
        taken, self._gfns = self._gfns, set()
        return taken

    def watch(self, first_gfn: int, count: int) -> bytearray:
        """A bitmap of the pages that changed since the last call for the same range.

        The first call for a range answers all ones, and ends the one before; 0 pages end all.
        """
        bitmap = bytearray((count + 7) // 8)
        fresh = self._watched != (first_gfn, count)
        if fresh:
            self._watched = (first_gfn, count)
            self._copy.clear()
        for index in range(count):
            changed = self._changed(first_gfn + index)
            if changed or fresh:
                bitmap[index >> 3] |= 1 << (index & 7)
        return bitmap

    def _changed(self, gfn: int) -> bool:
        if self._memory.find(gfn << PAGE_SHIFT) is None:
            return False
        page = self._memory.read(gfn << PAGE_SHIFT, PAGE_SIZE)
        if self._copy.get(gfn) == page:
            return False
        self._copy[gfn] = page
        return True


def _lay_out(ram: Iterable[tuple[int, int]]) -> list[MemoryRegion]:
    """Sort, check and join regions, and give each its place in the file."""
    regions: list[MemoryRegion] = []
    offset = end = 0
    for gpa, size in sorted(ram):
        if size <= 0 or gpa < 0 or (gpa | size) & (PAGE_SIZE - 1) or gpa + size > ADDRESS_LIMIT:
            raise ValueError(f"RAM of {size:#x} bytes at {gpa:#x}: whole pages below 2**52 only")
        if gpa < end:
            raise ValueError(f"RAM at {gpa:#x} overlaps RAM that ends at {end:#x}")
        regions.append(MemoryRegion(gpa, size, offset))
        offset += size
        end = gpa + size
    if not regions:
        raise ValueError("a domain needs RAM")
    return _join(regions)


def _join(regions: Iterable[MemoryRegion]) -> list[MemoryRegion]:
    """Sorted regions, those made one that go on in the file where they go on for the guest."""
    joined: list[MemoryRegion] = []
    for region in regions:
        last = joined[-1] if joined else None
        if last is not None and (last.gpa + last.size, last.offset + last.size) == (
            region.gpa,
            region.offset,
        ):
            joined[-1] = last._replace(size=last.size + region.size)
        else:
            joined.append(region)
    return joined
