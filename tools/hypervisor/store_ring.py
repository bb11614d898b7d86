"""xenstore as a guest has it: a page with two rings, an event channel, and xenstored behind them.

Facts: docs/misc/xenstore-ring.txt, tools/xenstore/xenstored_domain.c (domain_conn_reset,
check_indexes). A ring whose indexes or messages cannot be is not served any more, as xenstored does
it; the guest alone suffers. Neither of the optional features of the page is offered, as by Xen
4.17's C xenstored, so that a guest which wants to begin anew sets the indexes to 0 itself.
"""

from __future__ import annotations

import struct
import threading
from typing import TYPE_CHECKING

from protocol import layouts

from .errors import NotRamError
from .memory import PAGE_SHIFT, PAGE_SIZE
from .store_client import StoreClient

if TYPE_CHECKING:
    from .domain import Domain
    from .guest_events import GuestEvents
    from .store import Store

__all__ = ["StoreRing"]

RING = layouts.XENSTORE_RING_SIZE
REQUESTS, ANSWERS = layouts.XENSTORE_PAGE_REQ_OFFSET, layouts.XENSTORE_PAGE_RSP_OFFSET
INDEXES = struct.Struct("<IIII")
INDEXES_OFFSET = layouts.XENSTORE_PAGE_REQ_CONS_OFFSET
HEADER = struct.Struct(layouts.XS_MESSAGE_FORMAT)
MASK_32 = 0xFFFFFFFF
MOST_WAITING = 1 << 18
"""Bytes of answers and events that may wait for a guest that does not read."""


class StoreRing:
    """The ring at ``gfn`` of a domain, whose event channel it opens: ``port``.

    HypercallError: ENOSPC, no port is free. ``broken``: why it is not served any more.
    """

    def __init__(self, domain: Domain, events: GuestEvents, store: Store, gfn: int) -> None:
        self._domain, self._events, self._gfn = domain, events, gfn
        self._lock = threading.Lock()
        """Guards what waits and its way into the page; held for no call of somebody else's."""
        self._input = bytearray()
        self._output = bytearray()
        self._serving = self._again = False
        self.broken: str | None = None
        self._client = StoreClient(
            store, self._tell, lambda domid: domid == domain.domid, guest=domain.domid
        )
        self.port = events.open(0, self.serve)

    def close(self) -> None:
        """xenstored forgets the domain: its watches end."""
        self._break("closed")

    def serve(self) -> None:
        """The guest has signalled: take its requests, answer them.

        One thread does so at a time, and what others signal meanwhile is its business, too.
        """
        with self._lock:
            self._again = True
            if self._serving:
                return
            self._serving = True
        try:
            while self._is_due():
                if self._turn():
                    self._events.raise_port(self.port)
        except BaseException:
            self._serving = False
            raise

    def _is_due(self) -> bool:
        with self._lock:
            self._serving = self._again and self.broken is None
            self._again = False
            return self._serving

    def _turn(self) -> bool:
        """Serve what there is; whether anything was taken or given."""
        moved = False
        try:
            page = self._page()
            while self.broken is None:
                with self._lock:
                    given = self._give(page)
                taken = 0 if self._output else self._take(page)
                moved |= bool(given or taken)
                self._answer()
                if not taken and not (self._output and given):
                    break
        except NotRamError:
            self._break("the ring's page is not RAM")
        return moved

    def _page(self) -> memoryview[int]:
        return self._domain.memory.view(self._gfn << PAGE_SHIFT, PAGE_SIZE)

    def _take(self, page: memoryview[int]) -> int:
        """Take what the guest has written; how many bytes."""
        consumed, produced, _, _ = _indexes(page)
        length = (produced - consumed) & MASK_32
        if length > RING:
            self._break(f"its requests begin at {consumed} and end at {produced}")
            return 0
        for at in _pieces(consumed, length):
            self._input += page[REQUESTS + at.start : REQUESTS + at.stop]
        struct.pack_into("<I", page, INDEXES_OFFSET, (consumed + length) & MASK_32)
        return length

    def _give(self, page: memoryview[int]) -> int:
        """Write what waits for the guest, as far as there is room; how many bytes.

        Called under the lock.
        """
        if self.broken is not None:
            return 0
        _, _, consumed, produced = _indexes(page)
        room = RING - ((produced - consumed) & MASK_32)
        if room < 0:
            self._break(f"its answers begin at {consumed} and end at {produced}")
            return 0
        length = done = min(room, len(self._output))
        for at in _pieces(produced, length):
            part = len(at)
            page[ANSWERS + at.start : ANSWERS + at.stop] = self._output[:part]
            del self._output[:part]
        struct.pack_into("<I", page, INDEXES_OFFSET + 12, (produced + length) & MASK_32)
        return done

    def _answer(self) -> None:
        """Perform the whole messages that have come."""
        while len(self._input) >= HEADER.size and self.broken is None:
            length = HEADER.unpack_from(self._input)[3]
            if length > layouts.XENSTORE_PAYLOAD_MAX:
                self._break(f"a message of {length} bytes")
                return
            if len(self._input) < HEADER.size + length:
                return
            message = bytes(self._input[: HEADER.size + length])
            del self._input[: HEADER.size + length]
            # What the request itself sets off comes before its answer, as watches' events may.
            answer = self._client.handle(message)
            with self._lock:
                self._queue(answer)

    def _tell(self, message: bytes) -> None:
        """A watch's event, from whichever thread changed the store.

        It takes no requests of the guest's, whose work would be the other's then.
        """
        try:
            page = self._page()
            with self._lock:
                self._queue(message)
                given = self._give(page)
        except NotRamError:
            self._break("the ring's page is not RAM")
            return
        if given:
            self._events.raise_port(self.port)

    def _queue(self, message: bytes) -> None:
        if len(self._output) + len(message) > MOST_WAITING:
            self._break("the guest does not read its answers")
        elif self.broken is None:
            self._output += message

    def _break(self, why: str) -> None:
        self.broken = why
        self._client.close()


def _indexes(page: memoryview[int]) -> tuple[int, int, int, int]:
    """Where requests were taken up to and written up to, and the same of answers."""
    taken, written, read, given = INDEXES.unpack_from(page, INDEXES_OFFSET)
    return taken, written, read, given


def _pieces(index: int, length: int) -> list[range]:
    """Where in the ring ``length`` bytes from ``index`` on are: one run, or two around its end."""
    first = index % RING
    end = first + length
    if end <= RING:
        return [range(first, end)]
    return [range(first, RING), range(end - RING)]
