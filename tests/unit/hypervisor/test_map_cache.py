"""The cache of guest mappings: bounded, exact, never touching a hole, telling the dirty log all."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dm.errors import GuestError, HostError
from dm.hypervisor.xen import memory as module
from dm.hypervisor.xen.memory import MapCache

from .foreign import PAGE, Foreign

BUCKET = module.BUCKET_PAGES * PAGE


def made(pages: int = 4096) -> tuple[MapCache, Foreign]:
    foreign = Foreign(pages)
    return MapCache(foreign.map_pages, foreign.unmap_pages, foreign.note_modified), foreign


def test_what_is_written_is_read_across_pages_and_buckets() -> None:
    cache, _ = made()
    data = random.Random(1).randbytes(3 * BUCKET + 17)
    cache.write(BUCKET - 5, data)
    assert cache.read(BUCKET - 5, len(data)) == data
    assert cache.read(BUCKET - 6, 1) == b"\0"


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.sampled_from((0, PAGE, BUCKET, 2 * BUCKET, 3 * BUCKET)),
            st.integers(-9, 9),
            st.integers(0, 2 * PAGE),
        ),
        max_size=20,
    ),
    st.sets(st.integers(0, 4 * module.BUCKET_PAGES), max_size=6),
)
def test_any_accesses_are_those_of_flat_memory_with_holes(
    accesses: list[tuple[bool, int, int, int]], holes: set[int]
) -> None:
    cache, foreign = made(4 * module.BUCKET_PAGES)
    foreign.holes = holes
    flat = bytearray(4 * BUCKET)
    for number, (writing, base, by, length) in enumerate(accesses):
        gpa = base + by
        pages = range(max(gpa, 0) // PAGE, (gpa + length - 1) // PAGE + 1) if length else range(0)
        good = gpa >= 0 and gpa + length <= len(flat) and not holes.intersection(pages)
        if not good and (length or gpa < 0):
            access: Callable[[], object] = partial(cache.read, gpa, length)
            if writing:
                access = partial(cache.write, gpa, b"x" * length)
            with pytest.raises(GuestError):
                access()
        elif writing:
            data = bytes((number + 1,)) * length
            cache.write(gpa, data)
            flat[gpa : gpa + length] = data
        else:
            assert cache.read(gpa, length) == flat[gpa : gpa + length]


class TestBounds:
    def test_no_more_is_mapped_than_the_limit(self) -> None:
        cache, foreign = made(1 << 20)
        for number in range(module.BUCKET_LIMIT + 50):
            cache.read(number * BUCKET, 1)
        assert cache.mapped_pages == module.BUCKET_LIMIT * module.BUCKET_PAGES
        assert len(foreign.mapped) == module.BUCKET_LIMIT

    def test_what_was_not_used_for_longest_goes_first(self) -> None:
        cache, foreign = made(1 << 20)
        for number in range(module.BUCKET_LIMIT):
            cache.read(number * BUCKET, 1)
        cache.read(0, 1)
        cache.read(module.BUCKET_LIMIT * BUCKET, 1)
        assert foreign.unmaps == [module.BUCKET_PAGES]

    def test_the_longest_access_does_not_evict_its_own_pieces(self) -> None:
        cache, foreign = made(1 << 20)
        for number in range(module.BUCKET_LIMIT):
            cache.read((number + 300) * BUCKET, 1)
        cache.write(BUCKET - 1, b"\x5a" * module.LONGEST_ACCESS)
        assert cache.read(BUCKET - 1, module.LONGEST_ACCESS) == b"\x5a" * module.LONGEST_ACCESS
        assert len(foreign.mapped) == module.BUCKET_LIMIT

    def test_a_longer_access_is_refused_before_anything_is_mapped(self) -> None:
        cache, foreign = made()
        with pytest.raises(GuestError, match="too long"):
            cache.read(0, module.LONGEST_ACCESS + 1)
        with pytest.raises(GuestError, match="too long"):
            cache.read(0, 1 << 50)
        assert foreign.maps == []

    @pytest.mark.parametrize(
        ("gpa", "length"),
        [
            (-1, 1),
            (-1, 0),
            (0, -1),
            (1 << 52, 1),
            ((1 << 52) - 1, 2),
            ((1 << 64) - 1, 1),
            (1 << 70, 4),
        ],
    )
    def test_addresses_outside_the_address_space_are_refused(self, gpa: int, length: int) -> None:
        cache, foreign = made()
        with pytest.raises(GuestError):
            cache.read(gpa, length)
        assert foreign.maps == []

    def test_the_last_byte_of_the_address_space_has_a_mapping_of_its_own(self) -> None:
        cache, foreign = made()
        with pytest.raises(GuestError, match="is not RAM"):
            cache.read((1 << 52) - 1, 1)
        assert len(foreign.mapped) == 1


class TestHoles:
    def test_a_hole_is_refused_by_name_and_never_touched(self) -> None:
        cache, foreign = made()
        foreign.holes = {5}
        with pytest.raises(GuestError, match="GFN 0x5 is not RAM"):
            cache.read(5 * PAGE - 1, 2)
        assert cache.read(5 * PAGE - 1, 1) == b"\0"
        assert cache.read(6 * PAGE, 1) == b"\0"

    def test_a_write_that_meets_a_hole_stores_nothing(self) -> None:
        cache, foreign = made()
        foreign.holes = {module.BUCKET_PAGES}
        with pytest.raises(GuestError):
            cache.write(BUCKET - 4, b"12345678")
        assert cache.read(BUCKET - 4, 4) == bytes(4)
        assert foreign.modified == []

    def test_each_access_to_a_hole_maps_anew_once(self) -> None:
        cache, foreign = made()
        foreign.holes = {5}
        cache.read(0, 1)
        for times in (2, 3, 4):
            with pytest.raises(GuestError):
                cache.read(5 * PAGE, 1)
            assert len(foreign.maps) == times
        assert len(foreign.mapped) == 1

    def test_a_hole_that_the_guest_filled_is_found(self) -> None:
        cache, foreign = made()
        foreign.holes = {5}
        with pytest.raises(GuestError):
            cache.read(5 * PAGE, 1)
        foreign.holes = set()
        cache.write(5 * PAGE, b"here")
        assert cache.read(5 * PAGE, 4) == b"here"

    def test_a_page_that_vanished_is_forgotten_when_xen_says_so(self) -> None:
        cache, foreign = made()
        cache.write(0, b"gone")
        foreign.holes = {0}
        assert cache.read(0, 4) == b"gone"
        cache.invalidate()
        assert (cache.mapped_pages, foreign.mapped) == (0, {})
        with pytest.raises(GuestError):
            cache.read(0, 4)


def test_a_mapping_that_fails_leaves_the_cache_usable() -> None:
    cache, foreign = made()
    cache.write(0, b"kept")
    working = cache._map

    def failing(first_gfn: int, count: int) -> tuple[int, bytes]:
        raise HostError("no memory")

    cache._map = failing
    with pytest.raises(HostError):
        cache.read(BUCKET, 1)
    cache._map = working
    assert cache.read(BUCKET, 1) == b"\0"
    assert cache.read(0, 4) == b"kept"
    assert len(foreign.mapped) == 2


@pytest.mark.parametrize(
    ("gpa", "length", "expected"),
    [
        (0, 1, (0, 1)),
        (0, PAGE, (0, 1)),
        (0, PAGE + 1, (0, 2)),
        (PAGE - 1, 2, (0, 2)),
        (PAGE, PAGE, (1, 1)),
        (BUCKET - 1, 2, (module.BUCKET_PAGES - 1, 2)),
        (BUCKET - PAGE, 2 * PAGE, (module.BUCKET_PAGES - 1, 2)),
        (3 * PAGE + 5, 5 * PAGE, (3, 6)),
    ],
)
def test_the_dirty_log_is_told_of_each_page_written(
    gpa: int, length: int, expected: tuple[int, int]
) -> None:
    cache, foreign = made()
    cache.write(gpa, bytes(length))
    assert foreign.modified == []
    cache.dirty_log = True
    cache.read(gpa, length)
    cache.write(gpa, b"")
    assert foreign.modified == []
    cache.write(gpa, bytes(length))
    assert foreign.modified == [expected]
