"""Sets of address ranges: their union, and what is in one and not in the other.

Ranges are (first, last) pairs, inclusive on both ends, as Xen's range operations take them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Range = tuple[int, int]

__all__ = ["subtract", "union"]


def union(ranges: Iterable[Range]) -> list[Range]:
    """The same addresses as sorted ranges that neither overlap nor touch."""
    merged: list[Range] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged


def subtract(ranges: list[Range], taken: list[Range]) -> list[Range]:
    """The addresses of ``ranges`` that are not in ``taken``; both as `union` gives them."""
    left: list[Range] = []
    index = 0
    for first, last in ranges:
        while index < len(taken) and taken[index][1] < first:
            index += 1
        position, at = first, index
        while at < len(taken) and taken[at][0] <= last:
            if taken[at][0] > position:
                left.append((position, taken[at][0] - 1))
            position = max(position, taken[at][1] + 1)
            at += 1
        if position <= last:
            left.append((position, last))
    return left
