"""The buffered ring: requests that the guest does not wait for.

The server is created in legacy mode, in which only the consumer ever writes ``read_pointer``, so a
plain store advances it (xen/common/ioreq.c: ioreq_send_buffered canonicalises the pointers only in
atomic mode). Both pointers are free-running 32-bit numbers, a slot's index is the pointer modulo
511. In legacy mode the indices jump when a pointer wraps at 2**32, which takes years of entries.
"""

from __future__ import annotations

from struct import Struct

from protocol import layouts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Execute = Callable[[int, int, int, int], object]

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


class BufferedRing:
    """Consumes a ring's page. ``execute(type, address, size, data)`` performs one write."""

    def __init__(self, page: memoryview[int], execute: Execute) -> None:
        self._page = page
        self._words = page.cast("I")
        self._slot = Struct(layouts.BUF_IOREQ_FORMAT).unpack_from
        self._execute = execute
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
        slot, page, execute = self._slot, self._page, self._execute
        while waiting:
            header, data = slot(page, FIRST_SLOT + read % SLOTS * SLOT_SIZE)
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
