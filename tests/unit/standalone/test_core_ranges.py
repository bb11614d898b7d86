"""Ranges of an ioreq server: coalescing, splitting, limits, refusals (xen/common/rangeset.c)."""

from __future__ import annotations

from collections.abc import Callable
from errno import EEXIST, EINVAL, ENOENT, ENOMEM

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.hypervisor.errors import HypercallError
from tools.hypervisor.ranges import Ranges


def refusal(function: object, first: int, last: int) -> int:
    with pytest.raises(HypercallError) as caught:
        function(first, last)  # type: ignore[operator]
    return caught.value.errno


def attempt(function: Callable[[int, int], None], first: int, last: int) -> int:
    """The error number, 0 for none."""
    try:
        function(first, last)
    except HypercallError as error:
        return error.errno
    return 0


def full(limit: int = 4) -> Ranges:
    ranges = Ranges(limit)
    for index in range(limit):
        ranges.add(10 * index + 10, 10 * index + 14)
    return ranges


def test_both_ends_are_included() -> None:
    ranges = Ranges()
    ranges.add(5, 7)
    assert ranges.contains(5, 7)
    assert not ranges.contains(4, 5)
    assert not ranges.contains(7, 8)


def test_a_range_upside_down_is_refused_either_way() -> None:
    assert refusal(Ranges().add, 2, 1) == EINVAL
    assert refusal(Ranges().remove, 2, 1) == EINVAL


@pytest.mark.parametrize(("first", "last"), [(10, 14), (0, 10), (14, 20), (12, 12), (0, 99)])
def test_any_overlap_is_refused(first: int, last: int) -> None:
    ranges = Ranges()
    ranges.add(10, 14)
    assert refusal(ranges.add, first, last) == EEXIST
    assert list(ranges) == [(10, 14)]


def test_adjacent_ranges_become_one_and_count_once() -> None:
    ranges = Ranges(2)
    ranges.add(0, 1)
    ranges.add(4, 5)
    ranges.remove(4, 5)
    for first in (2, 4, 6):
        ranges.add(first, first + 1)
    assert list(ranges) == [(0, 7)]
    assert ranges.contains(1, 6)


def test_an_access_over_two_joined_ranges_is_in_one() -> None:
    ranges = Ranges()
    ranges.add(8, 9)
    ranges.add(4, 5)
    ranges.add(6, 7)
    assert list(ranges) == [(4, 9)]


def test_one_range_too_many_is_refused() -> None:
    ranges = full()
    assert refusal(ranges.add, 1000, 1000) == ENOMEM
    assert len(ranges) == 4


def test_a_full_set_still_takes_what_continues_a_range_upwards() -> None:
    ranges = full()
    ranges.add(15, 16)
    assert (10, 16) in list(ranges)


def test_a_full_set_refuses_what_continues_a_range_downwards() -> None:
    # Xen allocates before it joins with the range above.
    assert refusal(full().add, 8, 9) == ENOMEM


def test_the_limit_of_a_server_is_256_of_each_type() -> None:
    ranges = Ranges()
    for index in range(256):
        ranges.add(2 * index, 2 * index)
    assert refusal(ranges.add, 1000, 1000) == ENOMEM


@pytest.mark.parametrize(("first", "last"), [(9, 10), (14, 15), (15, 19), (12, 22), (0, 0)])
def test_what_is_not_all_there_cannot_be_removed(first: int, last: int) -> None:
    ranges = full()
    assert refusal(ranges.remove, first, last) == ENOENT
    assert len(ranges) == 4


def test_removing_from_the_middle_splits_and_needs_room() -> None:
    assert refusal(full().remove, 12, 12) == ENOMEM
    ranges = full(3)
    ranges.remove(30, 34)
    ranges.remove(12, 12)
    assert list(ranges) == [(10, 11), (13, 14), (20, 24)]


def test_removing_an_end_needs_no_room() -> None:
    ranges = full()
    ranges.remove(10, 11)
    ranges.remove(23, 24)
    ranges.remove(30, 34)
    assert list(ranges) == [(12, 14), (20, 22), (40, 44)]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40), st.integers(0, 6)), max_size=60))
def test_ranges_are_what_a_set_of_numbers_is(steps: list[tuple[bool, int, int]]) -> None:
    ranges = Ranges(6)
    numbers: set[int] = set()
    for adds, first, length in steps:
        piece = set(range(first, first + length + 1))
        error = attempt(ranges.add if adds else ranges.remove, first, first + length)
        possible = not numbers & piece if adds else piece <= numbers
        if error == 0:
            assert possible
            numbers = numbers | piece if adds else numbers - piece
        elif error == ENOMEM:
            assert possible
            assert len(ranges) == 6
        else:
            assert error == (EEXIST if adds else ENOENT)
            assert not possible
        assert {n for low, high in ranges for n in range(low, high + 1)} == numbers
        assert all(a[1] + 1 < b[0] for a, b in zip(list(ranges), list(ranges)[1:], strict=False))
        for number in range(48):
            assert ranges.contains(number, number) == (number in numbers)
