"""Every shape of request does what a slow, independent model says."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .board import DEVFN, OTHER_PORTS, PLACES, PORTS, WINDOW, Model, Rig
from .fake_xen import CONFIG, COPY, DF, INVALIDATE, ONES, PIO, POINTER, READ, TIME_OFFSET

Shape = tuple[int, int, int, int, int, int]

BASES = (PORTS, OTHER_PORTS, WINDOW, DEVFN << 32, (DEVFN << 32) + 0x40, 0xFFFF, 0, (1 << 64) - 4)
addresses = st.builds(
    lambda base, by: max(base + by, 0), st.sampled_from(BASES), st.integers(-9, 70)
)
requests = st.tuples(
    st.one_of(st.sampled_from((PIO, COPY, CONFIG)), st.integers(0, 255)),
    st.sampled_from((0, READ, POINTER, READ | POINTER, DF, DF | READ, DF | POINTER, 0x70, 0xF0)),
    st.one_of(addresses, st.integers(0, ONES)),
    st.one_of(st.integers(0, 0x1100), st.integers(0xFF00, 0x10100), st.integers(0, ONES)),
    st.one_of(st.just(1), st.integers(0, 9), st.sampled_from((4096, 4097, 0xFFFFFFFF))),
    st.one_of(st.sampled_from((1, 2, 4, 8)), st.integers(0, 9), st.just(0xFFFFFFFF)),
)


class Twins:
    """The machine and the model of it, side by side."""

    def __init__(self) -> None:
        self.rig = Rig()
        self.rig.domain.memory.ram[:4096] = random.Random(1).randbytes(4096)
        self.model = Model(bytearray(self.rig.domain.memory.ram))

    def compare(self, shape: Shape) -> None:
        kind, flags, address, data, count, size = shape
        address &= ONES
        rig, slots = self.rig, self.rig.server.slots
        refused = slots.refused
        answer = rig.ask(kind=kind, flags=flags, address=address, data=data, count=count, size=size)
        expected = self.model.perform(kind, flags, address, data, count, size)
        assert (answer, slots.refused != refused) == expected
        assert rig.mixed.log == self.model.log
        assert rig.domain.memory.ram == self.model.ram
        for place in PLACES:
            if place.readable and place.name != "stream":
                value = rig.machine.bus.read(place.space, place.address, place.size)
                assert value == self.model.values[place.space, place.address], place
        assert rig.machine.errors == 0
        assert rig.domain.punishments == []


@settings(max_examples=150)
@given(st.lists(requests, max_size=12))
def test_every_request_does_what_the_model_says(shapes: list[Shape]) -> None:
    twins = Twins()
    for shape in shapes:
        twins.compare(shape)
    twins.rig.xen.close()


@pytest.mark.parametrize("seed", range(4))
def test_long_mixed_sequences_do_what_the_model_says(seed: int) -> None:
    chance, twins = random.Random(seed), Twins()
    for _ in range(2500):
        kind = chance.choice((PIO, PIO, COPY, COPY, CONFIG))
        base = chance.choice(
            ((PORTS, OTHER_PORTS), (WINDOW,), (DEVFN << 32, (DEVFN << 32) + 64))[kind]
        )
        flags = chance.choice((0, READ)) | chance.choice((0, 0, POINTER)) | chance.choice((0, DF))
        data = chance.choice((chance.randrange(0x1000), chance.getrandbits(64)))
        count = chance.choice((1, 1, 1, 2, 3, 8))
        size = chance.choice((1, 2, 4, 8))
        twins.compare((kind, flags, base + chance.randrange(-4, 64), data, count, size))


@pytest.mark.parametrize("flags", [READ, DF | READ])
@pytest.mark.parametrize("kind", [PIO, CONFIG])
def test_a_string_read_goes_to_memory_in_the_direction_of_the_flag(kind: int, flags: int) -> None:
    rig = Rig()
    address = PORTS + 15 if kind == PIO else (DEVFN << 32) | 0x40
    rig.ask(kind=CONFIG, address=(DEVFN << 32) | 0x40, data=0x44332211, size=4)
    rig.ask(kind=kind, address=address, data=0x100, count=3, size=1, flags=flags | POINTER)
    ram = rig.domain.memory.ram
    low = 0x100 - 2 if flags & DF else 0x100
    expected = [0x11, 0x11, 0x11]
    if kind == PIO:
        expected = [3, 2, 1] if flags & DF else [1, 2, 3]
    assert list(ram[low : low + 3]) == expected


def test_a_string_write_to_config_space_takes_the_last_element_in_the_flags_direction() -> None:
    rig = Rig()
    rig.domain.memory.ram[0x100:0x104] = b"\x01\x02\x03\x04"
    address = (DEVFN << 32) | 0x40
    rig.ask(kind=CONFIG, address=address, data=0x103, count=4, size=1, flags=POINTER | DF)
    assert rig.ask(kind=CONFIG, address=address, size=1, flags=READ) == 1
    rig.ask(kind=CONFIG, address=address, data=0x100, count=4, size=1, flags=POINTER)
    assert rig.ask(kind=CONFIG, address=address, size=1, flags=READ) == 4


def test_invalidate_drops_cached_mappings() -> None:
    rig = Rig()
    assert rig.ask(kind=INVALIDATE, size=4, data=ONES) == ONES
    assert rig.domain.memory.invalidations == 1
    assert rig.server.executor.invalidations == 1


def test_time_offset_is_answered_and_counted() -> None:
    rig = Rig()
    rig.ask(kind=TIME_OFFSET, size=8, data=3600)
    assert rig.server.executor.time_offsets == 1


def test_an_unknown_type_is_answered_with_ones_and_counted() -> None:
    rig = Rig()
    assert rig.ask(kind=5, size=2, flags=READ) == 0xFFFF
    assert (rig.server.executor.unknown, rig.server.slots.refused) == (1, 1)


def test_a_read_by_pointer_that_fails_fills_the_buffer_with_ones() -> None:
    rig = Rig()
    rig.ask(kind=PIO, address=0x300, data=0x40, count=3, size=1, flags=READ | POINTER)
    assert rig.domain.memory.ram[0x40:0x43] == b"\xff\xff\xff"
    assert rig.machine.errors == 1


def test_only_memory_takes_elements_of_eight_bytes() -> None:
    rig = Rig()
    assert rig.ask(kind=PIO, address=PORTS, size=8, flags=READ) == ONES
    assert rig.ask(kind=CONFIG, address=DEVFN << 32, size=8, flags=READ) == ONES
    assert rig.server.slots.refused == 2
    rig.ask(kind=COPY, address=WINDOW, size=8, data=0x0102030405060708)
    assert rig.ask(kind=COPY, address=WINDOW, size=8, flags=READ) == 0x0102030405060708
