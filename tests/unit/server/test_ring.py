"""The buffered ring: order, wrap, double entries, and pointers that no producer left."""

from __future__ import annotations

import struct

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dm import Bank, BankMemory, Device, MmioWindow
from dm.machine.fakes import TestBench
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


FIRST, LENGTH = 0xA0008, 24
writes = st.tuples(
    st.integers(FIRST - 9, FIRST + LENGTH + 9),
    st.integers(0, 0xFFFFFFFFFFFFFFFF),
    st.sampled_from([1, 1, 2, 4, 8]),
    st.sampled_from([COPY, COPY, COPY, PIO]),
)


class TestRunsIntoPlainMemory:
    @given(st.sampled_from(STARTS), st.lists(writes, max_size=30))
    def test_what_is_left_is_as_if_each_entry_had_been_executed_alone(
        self, start: int, entries: list[tuple[int, int, int, int]]
    ) -> None:
        # Where the pointers wrap the indices jump, and Xen itself overwrites what waits.
        assume(sum(2 if size == 8 else 1 for _, _, size, _ in entries) <= fitting(start))
        ring, stored, expected = Ring(start), bytearray(LENGTH), bytearray(LENGTH)
        others: list[tuple[int, bytes]] = []

        def execute(kind: int, address: int, size: int, data: int) -> None:
            assert not (kind == COPY and size < 8 and self._inside(address, size))
            if kind == COPY and self._inside(address, size):
                stored[address - FIRST : address - FIRST + size] = data.to_bytes(size, "little")
            others.append((address, bytes(stored)))

        def memory(address: int) -> tuple[int, int, memoryview[int]] | None:
            found = FIRST <= address < FIRST + LENGTH
            return (FIRST, LENGTH, memoryview(stored)) if found else None

        ring.ring = BufferedRing(memoryview(ring.xens.buffered), execute, memory)
        seen: list[tuple[int, bytes]] = []
        for address, data, size, kind in entries:
            assert ring.domain.send_buffered(ring.xens, address, data, size, kind)
            value = (data & (1 << 8 * min(size, 8)) - 1).to_bytes(size, "little")
            if kind == COPY and self._inside(address, size):
                expected[address - FIRST : address - FIRST + size] = value
            if kind != COPY or size == 8 or not self._inside(address, size):
                seen.append((address, bytes(expected)))
        assert ring.ring.drain() == len(entries)
        assert stored == expected
        assert others == seen
        assert ring.ring.empty
        assert ring.ring.entries == len(entries)
        assert ring.ring.corrupt == 0

    @staticmethod
    def _inside(address: int, size: int) -> bool:
        return address >= FIRST and address + size <= FIRST + LENGTH

    @pytest.mark.parametrize("start", STARTS)
    def test_a_run_goes_on_across_every_wrap(self, start: int) -> None:
        ring, count = Ring(start), fitting(start)
        stored = bytearray(count)
        memory = 0xA0000, count, memoryview(stored)
        ring.ring = BufferedRing(
            memoryview(ring.xens.buffered), ring._execute, lambda address: memory
        )
        for index in range(count):
            assert ring.put(0xA0000 + index, index * 7 & 0xFF)
        assert ring.ring.drain() == count
        assert stored == bytes(index * 7 & 0xFF for index in range(count))
        assert ring.done == []


class TestInAServer:
    def test_a_run_is_stored_in_the_device_that_has_the_memory(self) -> None:
        class Frame(Bank, size=0x1000):
            memory = BankMemory(0, 0x1000)

        class Screen(Device):
            frame = MmioWindow(Frame, at=0xA0000)

        screen = Screen("screen")
        machine = TestBench(screen).machine
        ring = Ring()
        ring.ring = BufferedRing(
            memoryview(ring.xens.buffered), ring._execute, machine.spaces.memory_at
        )
        for index in range(300):
            ring.put(0xA0F00 + index, index & 0xFF)
        assert ring.ring.drain() == 300
        assert bytes(screen.frame.memory[0xF00:]) == bytes(range(256))
        assert [entry[1] for entry in ring.done] == [0xA1000 + index for index in range(44)]

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
