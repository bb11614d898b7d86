"""Sets of inclusive ranges with a limit on their number, as Xen keeps them for an ioreq server.

Facts: xen/common/rangeset.c (what needs a new range and what only moves a border) and
xen/common/ioreq.c (ioreq_server_map_io_range: overlaps are refused, the limit is 256 per type).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from errno import EEXIST, EINVAL, ENOENT, ENOMEM

from protocol import layouts

from .errors import HypercallError

__all__ = ["Ranges"]


class Ranges:
    """Disjoint ranges, adjacent ones joined. ``limit``: how many there may be."""

    def __init__(self, limit: int = layouts.IO_RANGE_MAX) -> None:
        self._limit = limit
        self._firsts: list[int] = []
        self._lasts: list[int] = []

    def __len__(self) -> int:
        return len(self._firsts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(list(zip(self._firsts, self._lasts, strict=True)))

    def contains(self, first: int, last: int) -> bool:
        """Whether one range has all of ``first`` to ``last``."""
        index = bisect_right(self._firsts, first) - 1
        return index >= 0 and self._lasts[index] >= last

    def overlaps(self, first: int, last: int) -> bool:
        """Whether any range has any of ``first`` to ``last``."""
        index = bisect_right(self._firsts, last) - 1
        return index >= 0 and self._lasts[index] >= first

    def add(self, first: int, last: int) -> None:
        """Add a range. HypercallError: EINVAL upside down, EEXIST any overlap, ENOMEM full.

        A range that continues the one below only moves its border; any other needs room for one
        more first, even if it is then joined with the one above.
        """
        if first > last:
            raise HypercallError(EINVAL, f"range {first:#x} to {last:#x}")
        if self.overlaps(first, last):
            raise HypercallError(EEXIST, f"range {first:#x} to {last:#x} overlaps another one")
        index = bisect_right(self._firsts, first)
        if index and self._lasts[index - 1] + 1 == first:
            index -= 1
            self._lasts[index] = last
        else:
            self._need_room()
            self._firsts.insert(index, first)
            self._lasts.insert(index, last)
        if index + 1 < len(self._firsts) and self._firsts[index + 1] == last + 1:
            self._lasts[index] = self._lasts.pop(index + 1)
            del self._firsts[index + 1]

    def remove(self, first: int, last: int) -> None:
        """Remove a range or a part of one.

        HypercallError: EINVAL upside down, ENOENT not all of it is there, ENOMEM it would split a
        range and there is no room for one more.
        """
        if first > last:
            raise HypercallError(EINVAL, f"range {first:#x} to {last:#x}")
        if not self.contains(first, last):
            raise HypercallError(ENOENT, f"range {first:#x} to {last:#x} is not there")
        index = bisect_right(self._firsts, first) - 1
        below, above = self._firsts[index] < first, self._lasts[index] > last
        if below and above:
            self._need_room()
            self._firsts.insert(index + 1, last + 1)
            self._lasts.insert(index, first - 1)
        elif below:
            self._lasts[index] = first - 1
        elif above:
            self._firsts[index] = last + 1
        else:
            del self._firsts[index], self._lasts[index]

    def _need_room(self) -> None:
        if len(self._firsts) >= self._limit:
            raise HypercallError(ENOMEM, f"more than {self._limit} ranges")
