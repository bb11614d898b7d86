"""A guest's memory behind mapping functions that give real addresses, and notice every misuse."""

from __future__ import annotations

import ctypes
import mmap

PAGE = 4096


class Foreign:
    """Maps GFNs of a guest of ``pages`` pages, as libxenforeignmemory does.

    Pages in ``holes`` are protected: touching one would end the test run, as it would end the
    device model.
    """

    def __init__(self, pages: int = 4096) -> None:
        self.pages = pages
        self.holes: set[int] = set()
        self.contents: dict[int, bytearray] = {}
        self.mapped: dict[int, tuple[mmap.mmap, int, bytes]] = {}
        self.maps: list[int] = []
        self.unmaps: list[int] = []
        self.modified: list[tuple[int, int]] = []
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

    def _there(self, gfn: int) -> bool:
        return gfn < self.pages and gfn not in self.holes

    def map_pages(self, first_gfn: int, count: int) -> tuple[int, bytes]:
        area = mmap.mmap(-1, count * PAGE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(area))
        present = bytes(self._there(gfn) for gfn in range(first_gfn, first_gfn + count))
        for index, there in enumerate(present):
            page = self.contents.get(first_gfn + index)
            if there and page is not None:
                area[index * PAGE : (index + 1) * PAGE] = bytes(page)
            if not there:
                assert self._libc.mprotect(address + index * PAGE, PAGE, 0) == 0
        self.mapped[address] = (area, first_gfn, present)
        self.maps.append(first_gfn)
        return address, present

    def unmap_pages(self, address: int, count: int) -> None:
        area, first_gfn, present = self.mapped.pop(address)
        assert count == len(present)
        for index in range(count):
            if present[index]:
                page = bytearray(area[index * PAGE : (index + 1) * PAGE])
                self.contents[first_gfn + index] = page
        self.unmaps.append(first_gfn)

    def note_modified(self, first_gfn: int, count: int) -> None:
        self.modified.append((first_gfn, count))
