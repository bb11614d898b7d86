"""Windows that move and overlap: who answers, and what the platform is asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dm import (
    Bank,
    BankMemory,
    Device,
    HostError,
    IsaLine,
    MmioWindow,
    Option,
    Register,
    Transient,
)
from dm.device.platform import MEMORY, PORT
from dm.machine.fakes import FakePlatform, TestBench

SIZE = 8
BASE = 0x1000


class Area(Bank, size=SIZE, width=32, gap=0xEE):
    register = Register.at(0)
    memory = BankMemory(4, 2)


class Movable(Device):
    """A window that is where its host-side attribute says."""

    number = Option(int, 0, "which it is")
    area = MmioWindow(Area)
    base = Transient()

    @area.address
    def _where(self) -> int | None:
        place: int | None = self.base
        return place

    def move(self, base: int | None) -> None:
        self.base = base
        self.remap()


def made(count: int) -> tuple[TestBench, list[Movable]]:
    devices = [Movable(f"device{number}") for number in range(count)]
    bench = TestBench(*devices)
    for number, device in enumerate(devices):
        device.area.register.value = 0x01010101 * (number + 1)
        device.area.memory[:] = bytes((number + 0x81, number + 0x81))
    return bench, devices


def byte_at(bases: dict[int, int | None], address: int) -> int:
    """What a byte must read as: the first device that covers the address answers."""
    for number, base in sorted(bases.items()):
        if base is not None and base <= address < base + SIZE:
            offset = address - base
            return number + 1 if offset < 4 else number + 0x81 if offset < 6 else 0xEE
    return 0xFF


places = st.none() | st.integers(BASE, BASE + 20)


@given(st.lists(st.tuples(st.integers(0, 3), places), max_size=12))
def test_the_first_declared_window_answers_wherever_they_go(
    moves: list[tuple[int, int | None]],
) -> None:
    bench, devices = made(4)
    bases: dict[int, int | None] = dict.fromkeys(range(4))
    for number, base in moves:
        devices[number].move(base)
        bases[number] = base
        for size in (1, 2, 4, 8):
            for address in range(BASE - 9, BASE + 32):
                expected = bytes(byte_at(bases, address + i) for i in range(size))
                got = bench.load(address, size).to_bytes(size, "little")
                assert got == expected, (address, size)
                exact = bench.machine.spaces.reads[MEMORY, size].get(address)
                assert exact is None or exact[0]().to_bytes(size, "little") == expected
        covered = {a for b in bases.values() if b is not None for a in range(b, b + SIZE)}
        claimed = bench.platform.claimed[MEMORY]
        assert {a for first, last in claimed for a in range(first, last + 1)} == covered
        assert bench.machine.spaces.claimed(MEMORY) == claimed
    assert bench.machine.errors == 0


def test_a_hidden_register_is_not_in_the_exact_tables() -> None:
    bench, devices = made(2)
    devices[1].move(BASE)
    assert BASE in bench.machine.spaces.writes[MEMORY, 4]
    devices[0].move(BASE + 2)
    assert BASE not in bench.machine.spaces.writes[MEMORY, 4]
    bench.store(BASE, 0x99999999)
    assert devices[1].area.register.value == 0x02029999


def test_the_tables_are_the_same_objects_for_ever() -> None:
    bench, devices = made(1)
    table = bench.machine.spaces.reads[MEMORY, 4]
    devices[0].move(BASE)
    assert bench.machine.spaces.reads[MEMORY, 4] is table
    assert BASE in table


def test_a_release_that_fails_is_tried_again() -> None:
    bench, devices = made(1)
    devices[0].move(BASE)
    release = bench.platform.release

    def refuse(space: int, first: int, last: int) -> None:
        raise HostError("no memory", 12)

    bench.platform.release = refuse  # type: ignore[method-assign]
    devices[0].move(BASE + 0x100)
    assert bench.machine.errors == 1
    bench.platform.release = release  # type: ignore[method-assign]
    devices[0].move(BASE + 0x200)
    assert bench.platform.claimed[MEMORY] == [(BASE + 0x200, BASE + 0x207)]


@pytest.mark.parametrize("base", [0, (1 << 64) - SIZE, (1 << 32) - 4])
def test_a_window_may_lie_anywhere(base: int) -> None:
    bench, devices = made(1)
    devices[0].move(base)
    assert bench.load(base, 4) == 0x01010101
    assert bench.load(base + 6, 4) == 0xFFFFEEEE


class TestTheFakePlatform:
    def test_it_refuses_what_xen_refuses(self) -> None:
        platform = FakePlatform()
        platform.claim(PORT, 0x10, 0x1F)
        for first, last, errno in ((0x20, 0x1F, 22), (0x1F, 0x20, 17), (0x10, 0x1F, 17)):
            with pytest.raises(HostError) as caught:
                platform.claim(PORT, first, last)
            assert caught.value.errno == errno
        with pytest.raises(HostError) as caught:
            platform.release(PORT, 0x1F, 0x20)
        assert caught.value.errno == 2
        platform.release(PORT, 0x14, 0x17)
        assert platform.claimed[PORT] == [(0x10, 0x13), (0x18, 0x1F)]

    def test_it_has_256_ranges_and_those_that_touch_are_one(self) -> None:
        platform = FakePlatform()
        for number in range(256):
            platform.claim(MEMORY, number * 4, number * 4 + 1)
        with pytest.raises(HostError) as caught:
            platform.claim(MEMORY, 4096, 4097)
        assert caught.value.errno == 12
        platform.claim(MEMORY, 2, 3)


class Plain(Bank, size=16):
    memory = BankMemory(2, 12)


class Frame(Device):
    """Plain memory that can be moved."""

    area = MmioWindow(Plain)
    base = Transient()

    @area.address
    def _where(self) -> int | None:
        place: int | None = self.base
        return place

    def move(self, base: int | None) -> None:
        self.base = base
        self.remap()


class TestPlainMemory:
    def test_it_is_given_where_it_is_seen_and_goes_with_its_window(self) -> None:
        front, frame = Movable("front"), Frame("frame")
        spaces = TestBench(front, frame).machine.spaces
        frame.move(BASE)
        found = spaces.memory_at(BASE + 2)
        assert found is not None
        first, length, view = found
        assert (first, length) == (BASE + 2, 12)
        view[11] = 7
        assert frame.area.memory[11] == 7
        assert [spaces.memory_at(BASE + offset) for offset in (1, 14)] == [None, None]
        front.move(BASE + 4)
        pieces = [spaces.memory_at(BASE + offset) for offset in (3, 4, 11, 13)]
        assert [piece and piece[:2] for piece in pieces] == [
            (BASE + 2, 2),
            None,
            None,
            (BASE + 12, 2),
        ]
        assert pieces[3] is not None
        pieces[3][2][1] = 9
        assert frame.area.memory[11] == 9
        frame.move(None)
        assert spaces.memory_at(BASE + 2) is None

    def test_memory_that_a_device_is_told_of_is_not_plain(self) -> None:
        class Narrow(Bank, size=16, sizes=(1, 2)):
            memory = BankMemory(0, 16)

        class Fixed(Bank, size=16):
            memory = BankMemory(0, 16, writable=False)

        class Line(Device):
            area = MmioWindow(Plain, at=BASE)
            line = IsaLine(5)

            @line.level
            def _level(self) -> bool:
                return False

        class Others(Device):
            mixed = MmioWindow(Area, at=BASE + 0x100)
            narrow = MmioWindow(Narrow, at=BASE + 0x200)
            fixed = MmioWindow(Fixed, at=BASE + 0x300)

        spaces = TestBench(Line("line"), Others("others")).machine.spaces
        assert spaces.memory == []
