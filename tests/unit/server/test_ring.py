"""The buffered ring: order, wrap, double entries, and pointers that no producer left."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dm.server.ring import BufferedRing

from .board import PORTS, WINDOW, Rig
from .fake_xen import COPY, ENTRY, PIO, READ, RING_SLOTS, TIME_OFFSET, Domain, FakeServer

Entry = tuple[int, int, int, int]


class Ring:
    """A ring between Xen's producer and the consumer under test."""

    def __init__(self, start: int = 0) -> None:
        self.domain = Domain(vcpus=1)
        self.xens = FakeServer(self.domain, 0)
        self.point(start, start)
        self.done: list[Entry] = []
        self.ring = BufferedRing(memoryview(self.xens.buffered), self._execute)

    def _execute(self, kind: int, address: int, size: int, data: int) -> None:
        self.done.append((kind, address, size, data))

    def point(self, read: int, write: int) -> None:
        ENTRY.pack_into(self.xens.buffered, 0, read & 0xFFFFFFFF, write & 0xFFFFFFFF)

    def put(self, address: int, data: int, size: int = 1) -> bool:
        return self.domain.send_buffered(self.xens, address, data, size)


ALIASED = 1 << 32
"""Where Xen's own indices jump by 32, so that more entries than that overwrite each other."""


def fitting(start: int) -> int:
    """How many entries fit between ``start`` and such a jump, or behind it."""
    return RING_SLOTS if start + RING_SLOTS < ALIASED else 30


STARTS = [0, 1, 509, 510, 511, 1021, 0xFFFFFFFF, 0xFFFFFFFE, 0x80000000]


def test_an_empty_ring_gives_nothing() -> None:
    ring = Ring(77)
    assert ring.ring.empty
    assert ring.ring.drain() == 0


@pytest.mark.parametrize("start", STARTS)
def test_entries_come_in_order_across_every_wrap(start: int) -> None:
    ring = Ring(start)
    count = fitting(start)
    for index in range(count):
        assert ring.put(0xA0000 + index, index * 0x01010101 & 0xFFFFFFFF, 4)
    assert ring.ring.drain() == count
    assert ring.done == [(COPY, 0xA0000 + i, 4, i * 0x01010101 & 0xFFFFFFFF) for i in range(count)]
    assert ring.ring.empty
    assert ring.ring.corrupt == 0


@pytest.mark.parametrize("start", STARTS)
def test_an_entry_of_eight_bytes_takes_two_slots(start: int) -> None:
    ring = Ring(start)
    ring.put(0xA0000, 0x1122334455667788, 8)
    ring.put(0xA0008, 0x99, 1)
    assert ring.ring.drain() == 2
    assert ring.done == [(COPY, 0xA0000, 8, 0x1122334455667788), (COPY, 0xA0008, 1, 0x99)]


@pytest.mark.parametrize("start", [s for s in STARTS if fitting(s) == RING_SLOTS])
def test_a_full_ring_is_drained_whole(start: int) -> None:
    ring = Ring(start)
    count = 0
    while ring.put(count, 0, 1):
        count += 1
    assert count == RING_SLOTS
    assert ring.ring.drain() == RING_SLOTS
    assert [entry[1] for entry in ring.done] == list(range(RING_SLOTS))
    assert ring.put(0, 0)


def test_half_an_entry_is_counted_and_skipped() -> None:
    ring = Ring()
    ring.put(0xA0000, 7, 8)
    ring.point(0, 1)
    assert ring.ring.drain() == 0 or ring.done == []
    assert ring.ring.corrupt == 1
    assert ring.ring.empty
    ring.put(0xA0004, 3)
    ring.ring.drain()
    assert ring.done == [(COPY, 0xA0004, 1, 3)]


@pytest.mark.parametrize(("read", "write"), [(0, 512), (1, 0), (5, 0x80000000), (0xFFFFFFFF, 511)])
def test_pointers_that_cannot_be_are_counted_and_skipped(read: int, write: int) -> None:
    ring = Ring()
    ring.point(read, write)
    assert ring.ring.drain() == 0
    assert (ring.done, ring.ring.corrupt) == ([], 1)
    assert ring.xens.pointers == (write, write)


def test_a_slot_is_xens_again_only_after_its_request_was_executed() -> None:
    ring = Ring()
    seen = []
    ring.ring = BufferedRing(
        memoryview(ring.xens.buffered), lambda *_: seen.append(ring.xens.pointers[0])
    )
    for _ in range(3):
        ring.put(0, 0)
    ring.ring.drain()
    assert seen == [0, 1, 2]


def test_what_comes_while_draining_waits_for_the_next_time() -> None:
    ring = Ring()
    ring.ring = BufferedRing(memoryview(ring.xens.buffered), lambda *_: ring.put(0, 0))
    ring.put(0, 0)
    assert [ring.ring.drain() for _ in range(3)] == [1, 1, 1]


@given(st.binary(min_size=8, max_size=4096), st.integers(0, 600))
def test_any_page_is_consumed_in_bounded_time(page: bytes, waiting: int) -> None:
    ring = Ring()
    ring.xens.buffered[: len(page)] = page
    read = struct.unpack_from("<I", page)[0]
    ring.point(read, read + waiting)
    before = bytes(ring.xens.buffered[4:])
    assert ring.ring.drain() <= RING_SLOTS
    assert len(ring.done) <= RING_SLOTS
    assert ring.ring.empty
    assert ring.xens.buffered[4:] == before


class TestInAServer:
    def test_the_ring_is_drained_before_each_synchronous_request(self) -> None:
        rig = Rig()
        rig.domain.send_buffered(rig.xens, PORTS, 0x11, 1, kind=PIO)
        rig.ask(address=PORTS, data=0x22, size=1)
        rig.domain.send_buffered(rig.xens, PORTS, 0x33, 1, kind=PIO)
        assert rig.ask(address=PORTS, size=1, flags=READ) == 0x33
        assert rig.mixed.log == [("byte", 0x11), ("byte", 0x22), ("byte", 0x33)]

    def test_a_direction_in_an_entry_means_nothing(self) -> None:
        rig = Rig()
        rig.domain.send_buffered(rig.xens, PORTS, 0x11, 1, kind=PIO)
        rig.xens.buffered[9] |= 0x02
        rig.server.drain()
        assert rig.mixed.log == [("byte", 0x11)]

    def test_errors_of_buffered_requests_are_counted_and_end_nothing(self) -> None:
        rig = Rig()
        for address in (0x300, WINDOW & 0xFFFFF, 0xFFFFF):
            rig.domain.send_buffered(rig.xens, address, 1, 8, kind=PIO)
            rig.domain.send_buffered(rig.xens, address, 1, 1, kind=PIO)
        rig.domain.send_buffered(rig.xens, 0, 1, 1, kind=99)
        rig.domain.send_buffered(rig.xens, 0, 3600, 8, kind=TIME_OFFSET)
        assert rig.server.drain() == 8
        assert rig.machine.errors == 1
        assert (rig.server.executor.unknown, rig.server.executor.time_offsets) == (1, 1)
        assert rig.domain.platform.isa[5] == 1

    def test_a_buffered_write_may_be_finished_later(self) -> None:
        rig = Rig()
        rig.domain.send_buffered(rig.xens, 0x301, 1, 1, kind=PIO)
        assert rig.server.drain() == 1
        rig.troubled.waiting[0].complete()
        assert rig.machine.errors == 0
        assert rig.server.slots.waiting == 0

    def test_a_request_that_comes_during_a_drain_waits_for_what_was_written_before_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rig = Rig()
        assert rig.server.ring is not None
        drain = rig.server.ring.drain

        def drain_while_the_guest_goes_on() -> int:
            done = drain()
            monkeypatch.undo()
            rig.domain.send_buffered(rig.xens, PORTS, 2, 1, kind=PIO)
            rig.domain.send(rig.xens, 0, address=PORTS, data=3)
            return done

        rig.domain.send_buffered(rig.xens, PORTS, 1, 1, kind=PIO)
        monkeypatch.setattr(rig.server.ring, "drain", drain_while_the_guest_goes_on)
        rig.server.serve(0)
        rig.server.drain()
        rig.server.events()
        assert rig.mixed.log == [("byte", 1), ("byte", 2), ("byte", 3)]

    def test_a_server_without_a_ring_serves(self) -> None:
        rig = Rig(opened=False)
        rig.xen.rings = False
        rig.open()
        assert rig.server.ring is None
        assert rig.server.drain() == 0
        assert rig.ask(address=PORTS + 8, size=1, flags=READ) == 0x77
