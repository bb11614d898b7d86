"""MEMORY_OP: what a guest does to its own physical address space.

Facts: xen/common/memory.c (populate_physmap, decrease_reservation, xenmem_add_to_physmap),
xen/arch/x86/mm.c and mm/p2m.c (xenmem_add_to_physmap_one: a page that is mapped anew leaves its old
place, and what was at the new one is given back), arch/x86/hvm/hypercall.c (after giving pages
back, emulators are told to drop their mappings).

The grant table's frames are pages that nobody reads: a stand-in.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from errno import EINVAL, ENOSYS, EPERM
from typing import TYPE_CHECKING

from protocol import layouts

from .errors import HypercallError
from .memory import ADDRESS_LIMIT, PAGE_SHIFT

if TYPE_CHECKING:
    from .domain import Domain
    from .guest_arguments import GuestArguments
    from .shared_info import SharedInfo

__all__ = ["MemoryOps"]

RESERVATION = {
    False: struct.Struct(layouts.COMPAT_MEMORY_RESERVATION_FORMAT),
    True: struct.Struct(layouts.MEMORY_RESERVATION_FORMAT),
}
ADD = {
    False: struct.Struct(layouts.COMPAT_ADD_TO_PHYSMAP_FORMAT),
    True: struct.Struct(layouts.ADD_TO_PHYSMAP_FORMAT),
}
MAP = {
    False: struct.Struct(layouts.COMPAT_MEMORY_MAP_FORMAT),
    True: struct.Struct(layouts.MEMORY_MAP_FORMAT),
}
REMOVE = {
    False: struct.Struct("<H2xI"),
    True: struct.Struct(layouts.REMOVE_FROM_PHYSMAP_FORMAT),
}
LONG = {False: struct.Struct("<I"), True: struct.Struct("<Q")}
E820_ENTRY = struct.Struct("<QQI")
MOST_EXTENTS = 1 << 12
"""At once; Xen has no such limit, but lets others in between."""
LARGEST_ORDER = 9
"""2 MiB (CONFIG_DOMU_MAX_ORDER)."""
GRANT_FRAMES = 64
LAST_GFN = (ADDRESS_LIMIT >> PAGE_SHIFT) - 1


class MemoryOps:
    """The operations of one domain. ``memory_map``: E820 entries (address, bytes, type) that the
    toolstack has set, None: none."""

    def __init__(self, domain: Domain, shared: SharedInfo) -> None:
        self._domain, self._memory, self._shared = domain, domain.memory, shared
        self.memory_map: Sequence[tuple[int, int, int]] | None = None
        self._shared_gfn: int | None = None
        self._grant_frames: dict[int, tuple[int, int | None]] = {}
        """By index: the page's offset in the memory file, and the GFN where the guest has it."""
        self._operations: dict[int, Callable[[GuestArguments, int, int], int]] = {
            layouts.MEMORY_OP_DECREASE_RESERVATION: self._decrease,
            layouts.MEMORY_OP_POPULATE_PHYSMAP: self._populate,
            layouts.MEMORY_OP_ADD_TO_PHYSMAP: self._add,
            layouts.MEMORY_OP_MEMORY_MAP: self._map,
            layouts.MEMORY_OP_REMOVE_FROM_PHYSMAP: self._remove,
        }

    def perform(self, arguments: GuestArguments, operation: int, at: int, vcpu: int) -> int:
        """MEMORY_OP with its argument at ``at``; gives what the guest is answered."""
        perform = self._operations.get(operation)
        if perform is None:
            raise HypercallError(ENOSYS, f"XENMEM {operation}")
        return perform(arguments, at, vcpu)

    def reset(self) -> None:
        """A soft reset: the shared page and the grant table leave the guest's address space.

        A fresh page comes where the shared one was (arch_domain_soft_reset).
        """
        with self._domain.lock:
            if self._shared_gfn is not None:
                self._memory.unmap_page(self._shared_gfn)
                fresh = self._memory.take_page()
                if fresh is not None:
                    self._memory.map_page(self._shared_gfn, fresh)
                self._shared_gfn = None
            for offset, gfn in self._grant_frames.values():
                if gfn is not None:
                    self._memory.unmap_page(gfn)
                self._memory.give_page(offset)
            self._grant_frames.clear()

    def _extents(self, arguments: GuestArguments, at: int) -> tuple[list[int], int]:
        start, number, order, _, domid = arguments.read(RESERVATION[arguments.wide], at)
        self._check_self(domid)
        if order > LARGEST_ORDER:
            raise HypercallError(EPERM, f"extents of order {order}")
        if number > MOST_EXTENTS:
            raise HypercallError(EINVAL, f"{number} extents at once")
        long = LONG[arguments.wide]
        data = arguments.read_bytes(start, long.size * number)
        return [gfn for (gfn,) in long.iter_unpack(data)], 1 << order

    def _populate(self, arguments: GuestArguments, at: int, vcpu: int) -> int:
        """Gives how many extents were populated; one that cannot be ends it."""
        extents, length = self._extents(arguments, at)
        for done, first in enumerate(extents):
            with self._domain.lock:
                if not self._populate_extent(first, length):
                    return done
        return len(extents)

    def _populate_extent(self, first: int, length: int) -> bool:
        memory = self._memory
        if first + length - 1 > LAST_GFN:
            return False
        for gfn in range(first, first + length):
            page = memory.take_page()
            if page is None:
                return False
            self._drop(gfn)
            memory.map_page(gfn, page)
        return True

    def _decrease(self, arguments: GuestArguments, at: int, vcpu: int) -> int:
        extents, length = self._extents(arguments, at)
        for done, first in enumerate(extents):
            with self._domain.lock:
                gfns = range(first, first + length)
                if any(self._memory.find(gfn << PAGE_SHIFT) is None for gfn in gfns):
                    return done
                for gfn in gfns:
                    self._drop(gfn)
        self._ask_invalidate(vcpu)
        return len(extents)

    def _add(self, arguments: GuestArguments, at: int, vcpu: int) -> int:
        domid, size, space, index, gfn = arguments.read(ADD[arguments.wide], at)
        self._check_self(domid)
        count = size if space == layouts.MAP_SPACE_GMFN_RANGE else 1
        if not 0 <= gfn <= LAST_GFN - max(count - 1, 0):
            raise HypercallError(EINVAL, f"there is no GFN {gfn:#x}")
        with self._domain.lock:
            if space == layouts.MAP_SPACE_SHARED_INFO:
                self._map_shared(index, gfn)
            elif space == layouts.MAP_SPACE_GRANT_TABLE:
                self._map_grant(index, gfn)
            elif space in (layouts.MAP_SPACE_GMFN, layouts.MAP_SPACE_GMFN_RANGE):
                for step in range(count):
                    self._move(index + step, gfn + step)
            else:
                raise HypercallError(ENOSYS, f"pages of space {space}")
        return 0

    def _map_shared(self, index: int, gfn: int) -> None:
        if index:
            raise HypercallError(EINVAL, "there is one shared page")
        if self._shared_gfn is not None:
            self._memory.unmap_page(self._shared_gfn)
        self._drop(gfn)
        self._shared_gfn = gfn
        self._memory.map_page(gfn, self._shared.offset)

    def _map_grant(self, index: int, gfn: int) -> None:
        if index >= GRANT_FRAMES:
            raise HypercallError(EINVAL, f"the grant table has {GRANT_FRAMES} frames")
        offset, old = self._grant_frames.get(index, (None, None))
        if offset is None:
            offset = self._memory.take_page()
            if offset is None:
                raise HypercallError(EINVAL, "no page is left for the grant table")
        if old is not None:
            self._memory.unmap_page(old)
        self._drop(gfn)
        self._grant_frames[index] = (offset, gfn)
        self._memory.map_page(gfn, offset)

    def _move(self, source: int, gfn: int) -> None:
        if self._is_special(source) or self._memory.find(source << PAGE_SHIFT) is None:
            raise HypercallError(EINVAL, f"there is no page at GFN {source:#x}")
        if source == gfn:
            return
        page = self._memory.unmap_page(source)
        assert page is not None
        self._drop(gfn)
        self._memory.map_page(gfn, page)

    def _remove(self, arguments: GuestArguments, at: int, vcpu: int) -> int:
        domid, gfn = arguments.read(REMOVE[arguments.wide], at)
        self._check_self(domid)
        with self._domain.lock:
            if self._memory.find(gfn << PAGE_SHIFT) is None:
                raise HypercallError(EINVAL, f"there is no page at GFN {gfn:#x}")
            self._drop(gfn)
        self._ask_invalidate(vcpu)
        return 0

    def _ask_invalidate(self, number: int) -> None:
        vcpu = self._domain.find_vcpu(number)
        if vcpu is not None:
            vcpu.ask_invalidate()

    def _map(self, arguments: GuestArguments, at: int, vcpu: int) -> int:
        if self.memory_map is None:
            raise HypercallError(ENOSYS, "the toolstack has set no memory map")
        room, buffer = arguments.read(MAP[arguments.wide], at)
        entries = self.memory_map[:room]
        arguments.write_bytes(buffer, b"".join(E820_ENTRY.pack(*entry) for entry in entries))
        arguments.write(MAP[arguments.wide], at, len(entries), buffer)
        return 0

    def _drop(self, gfn: int) -> None:
        """What is at ``gfn`` leaves the guest; a page of its own is given back."""
        page = self._memory.unmap_page(gfn)
        if page is None:
            return
        if gfn == self._shared_gfn:
            self._shared_gfn = None
            return
        for index, (offset, at) in self._grant_frames.items():
            if at == gfn:
                self._grant_frames[index] = (offset, None)
                return
        self._memory.give_page(page)

    def _is_special(self, gfn: int) -> bool:
        return gfn == self._shared_gfn or any(at == gfn for _, at in self._grant_frames.values())

    def _check_self(self, domid: int) -> None:
        if domid not in (layouts.DOMID_SELF, self._domain.domid):
            raise HypercallError(EPERM, f"domain {domid} is not the caller's")
