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

__all__ = ["PAGE_SHIFT", "PAGE_SIZE", "DirtyLog", "GuestMemory", "MemoryRegion"]

PAGE_SIZE = layouts.IOREQ_PAGE_SIZE
PAGE_SHIFT = 12
ADDRESS_LIMIT = 1 << 52


class MemoryRegion(NamedTuple):
    """A run of RAM: guest-physical address, bytes, and where it is in the memory file."""

    gpa: int
    size: int
    offset: int


class GuestMemory:
    """RAM at the regions ``ram``, pairs of guest-physical address and bytes, both whole pages.

    ValueError: a region is empty, not of whole pages, beyond 52 bits, or overlaps another one.
    Adjacent regions become one. ``fd``: the memory file, which emulators map, too. ``types``: the
    type of each GFN that is not plain RAM (set_mem_type); ``on_type`` is called with the first
    GFN, their number and the type, for engines that map RAM.
    """

    def __init__(self, ram: Iterable[tuple[int, int]]) -> None:
        self.regions = _lay_out(ram)
        self._gpas = [region.gpa for region in self.regions]
        self.size = sum(region.size for region in self.regions)
        self.fd = os.memfd_create("guest memory", os.MFD_CLOEXEC)
        self._close = weakref.finalize(self, os.close, self.fd)
        os.ftruncate(self.fd, self.size)
        self.map = mmap.mmap(self.fd, self.size)
        self._all = memoryview(self.map)
        self.types: dict[int, int] = {}
        self.on_type: list[Callable[[int, int, int], object]] = []

    def find(self, gpa: int) -> MemoryRegion | None:
        """The region that has the byte at ``gpa``."""
        index = bisect_right(self._gpas, gpa) - 1
        if index >= 0:
            region = self.regions[index]
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
            for told in self.on_type:
                told(run.start, len(run), mem_type)

    @property
    def highest_gfn(self) -> int:
        """The last GFN that is RAM."""
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
    offset = 0
    for gpa, size in sorted(ram):
        if size <= 0 or gpa < 0 or (gpa | size) & (PAGE_SIZE - 1) or gpa + size > ADDRESS_LIMIT:
            raise ValueError(f"RAM of {size:#x} bytes at {gpa:#x}: whole pages below 2**52 only")
        end = regions[-1].gpa + regions[-1].size if regions else -1
        if gpa < end:
            raise ValueError(f"RAM at {gpa:#x} overlaps RAM that ends at {end:#x}")
        if gpa == end:
            regions[-1] = regions[-1]._replace(size=regions[-1].size + size)
        else:
            regions.append(MemoryRegion(gpa, size, offset))
        offset += size
    if not regions:
        raise ValueError("a domain needs RAM")
    return regions
