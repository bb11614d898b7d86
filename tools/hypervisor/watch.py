"""Watching a slot's state for a short while before sleeping: how long, and when not to."""

from __future__ import annotations

import os
from time import perf_counter_ns

from protocol import layouts

__all__ = ["WATCH_NS", "TransitionError", "Watch"]

WATCH_NS = 50_000 if len(os.sched_getaffinity(0)) > 1 else 0
"""Nanoseconds: about what a wake-up costs; nobody can answer meanwhile on one CPU."""
MISSES_ALLOWED = 8
WATCH_EVERY = 64
"""After so many watches in a row without an answer, only one request in so many is watched."""
LOOKS = range(32)
READY = layouts.IOREQ_STATE_READY
INPROCESS = layouts.IOREQ_STATE_INPROCESS
STATE_MASK = layouts.IOREQ_STATE_MASK


class TransitionError(Exception):
    """A slot's state went back while it was watched; the message is Xen's (wait_for_io)."""


class Watch:
    """How one vCPU watches its slots. ``length``: nanoseconds; 0 never watches."""

    __slots__ = ("_misses", "length")

    def __init__(self, length: int = WATCH_NS) -> None:
        self.length = length
        self._misses = 0

    def look(self, page: memoryview[int], at: int) -> int:
        """The state in the byte ``at`` of ``page`` once it is an answer, or when time is up.

        A slot that is emptied counts as answered (TransitionError is for INPROCESS to READY only).
        """
        if self._misses >= MISSES_ALLOWED:
            self._misses += 1
            if self._misses % WATCH_EVERY:
                return page[at] & STATE_MASK
        before = READY
        end = perf_counter_ns() + self.length
        while True:
            for _ in LOOKS:
                state = page[at] & STATE_MASK
                if state == before:
                    continue
                if state == READY:
                    raise TransitionError(f"Weird HVM ioreq state transition {before} -> {state}")
                if state != INPROCESS:
                    self._misses = 0
                    return state
                before = state
            if perf_counter_ns() > end:
                self._misses += 1
                return before
