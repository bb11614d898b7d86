"""Range arithmetic, against sets of numbers."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dm.machine.ranges import subtract, union

Ranges = list[tuple[int, int]]
ranges = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)).map(lambda r: (r[0], sum(r))))


def members(some: Ranges) -> set[int]:
    return {number for first, last in some for number in range(first, last + 1)}


def is_canonical(some: Ranges) -> bool:
    return all(a[1] + 1 < b[0] for a, b in pairwise(some))


@given(ranges)
def test_a_union_has_the_same_members_in_the_fewest_ranges(some: Ranges) -> None:
    joined = union(some)
    assert members(joined) == members(some)
    assert is_canonical(joined)
    assert union(joined) == joined


@given(ranges, ranges)
def test_a_difference_has_the_members_that_are_not_taken(some: Ranges, taken: Ranges) -> None:
    left = subtract(union(some), union(taken))
    assert members(left) == members(some) - members(taken)
    assert is_canonical(left)


def test_ranges_that_touch_are_one() -> None:
    assert union([(5, 9), (0, 4), (11, 12)]) == [(0, 9), (11, 12)]


def test_taking_the_middle_leaves_both_ends() -> None:
    assert subtract([(0, 9)], [(3, 5)]) == [(0, 2), (6, 9)]
    assert subtract([(0, 9)], [(0, 9)]) == []
    assert subtract([(0, (1 << 64) - 1)], [(0, 0)]) == [(1, (1 << 64) - 1)]
