"""The buffered ring: requests that the guest does not wait for.

The server is created in legacy mode, in which only the consumer ever writes ``read_pointer``, so a
plain store advances it (xen/common/ioreq.c: ioreq_send_buffered canonicalises the pointers only in
atomic mode). Both pointers are free-running 32-bit numbers, a slot's index is the pointer modulo
511. In legacy mode the indices jump when a pointer wraps at 2**32, which takes years of entries.

Nearly all entries are writes of a guest that draws. A run of them into the same plain memory is
stored without a call for each, and given back to Xen as a whole: storing it again, should the
process die in between, changes nothing.
"""

from __future__ import annotations

from struct import Struct

from protocol import layouts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Execute = Callable[[int, int, int, int], object]
    Memory = tuple[int, int, memoryview[int]]

__all__ = ["BufferedRing"]

SLOTS = layouts.BUFIOREQ_SLOT_COUNT
FIRST_SLOT = layouts.BUFFERED_PAGE_BUF_IOREQ_OFFSET
SLOT_SIZE = layouts.BUF_IOREQ_SIZE
READ = layouts.BUFFERED_PAGE_READ_POINTER_OFFSET // 4
WRITE = layouts.BUFFERED_PAGE_WRITE_POINTER_OFFSET // 4
POINTER_MASK = 0xFFFFFFFF
TYPE_MASK = layouts.BUF_IOREQ_TYPE_MASK
SIZE_MASK = layouts.BUF_IOREQ_SIZE_MASK
SIZE_SHIFT = layouts.BUF_IOREQ_SIZE_SHIFT
ADDRESS_SHIFT = layouts.BUF_IOREQ_ADDR_SHIFT
POINTER_END = 1 << 32
SHAPE_MASK = TYPE_MASK | SIZE_MASK
BYTE_WRITE = layouts.IOREQ_TYPE_COPY
WIDE_WRITES = {
    layouts.IOREQ_TYPE_COPY | 1 << SIZE_SHIFT: 2,
    layouts.IOREQ_TYPE_COPY | 2 << SIZE_SHIFT: 4,
}
"""Type and size of memory writes that take one slot: how many bytes."""


def _no_memory(address: int) -> None:
    return None


class BufferedRing:
    """Consumes a ring's page. ``execute(type, address, size, data)`` performs one write.

    ``memory(address)`` gives (first address, length, bytes) of plain memory there, or None.
    """

    def __init__(
        self,
        page: memoryview[int],
        execute: Execute,
        memory: Callable[[int], Memory | None] = _no_memory,
    ) -> None:
        self._page = page
        self._words = page.cast("I")
        self._slot = Struct(layouts.BUF_IOREQ_FORMAT)
        self._execute = execute
        self._memory = memory
        self.entries = 0
        self.corrupt = 0

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        words = self._words
        return words[READ] == words[WRITE]

    def drain(self) -> int:
        """Execute what waits, at most one ring's length; gives the number of requests.

        A slot stays the consumer's until its request was executed. Pointers that no producer can
        have left (more waits than fits, or half of an 8-byte entry) are counted, and what they
        cover is skipped.
        """
        words = self._words
        read, write = words[READ], words[WRITE]
        waiting = (write - read) & POINTER_MASK
        if waiting > SLOTS:
            self.corrupt += 1
            words[READ] = write
            return 0
        done = 0
        slot, page, execute = self._slot.unpack_from, self._page, self._execute
        while waiting:
            header, data = slot(page, FIRST_SLOT + read % SLOTS * SLOT_SIZE)
            if header & TYPE_MASK == BYTE_WRITE:
                stored = self._store(read, waiting, self._memory(header >> ADDRESS_SHIFT))
                if stored:
                    read = (read + stored) & POINTER_MASK
                    words[READ] = read
                    waiting -= stored
                    done += stored
                    continue
            size = 1 << ((header & SIZE_MASK) >> SIZE_SHIFT)
            used = 1
            if size < 8:
                execute(header & TYPE_MASK, header >> ADDRESS_SHIFT, size, data)
            elif waiting < 2:
                self.corrupt += 1
            else:
                used = 2
                following = FIRST_SLOT + ((read + 1) & POINTER_MASK) % SLOTS * SLOT_SIZE
                data |= slot(page, following)[1] << 32
                execute(header & TYPE_MASK, header >> ADDRESS_SHIFT, size, data)
            read = (read + used) & POINTER_MASK
            words[READ] = read
            waiting -= used
            done += 1
        self.entries += done
        return done

    def _store(self, read: int, waiting: int, memory: Memory | None) -> int:
        """Store entries from ``read`` on as long as they lie in ``memory``; gives how many."""
        if memory is None:
            return 0
        first, length, view = memory
        index = read % SLOTS
        count = min(waiting, SLOTS - index, POINTER_END - read)
        start = FIRST_SLOT + index * SLOT_SIZE
        stored = 0
        for header, data in self._slot.iter_unpack(self._page[start : start + count * SLOT_SIZE]):
            offset = (header >> ADDRESS_SHIFT) - first
            shape = header & SHAPE_MASK
            if shape == BYTE_WRITE and 0 <= offset < length:
                view[offset] = data & 0xFF
            else:
                size = WIDE_WRITES.get(shape, 0)
                if not size or not 0 <= offset <= length - size:
                    break
                value = data & (1 << 8 * size) - 1
                view[offset : offset + size] = value.to_bytes(size, "little")
            stored += 1
        return stored
