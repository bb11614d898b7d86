"""How long to watch the slots before sleeping, tuned by what watching has brought.

A wake-up costs tens of microseconds, a look at the page a fraction of one. After an answer the
server therefore looks for the next request for a short window. The window grows when a request
came just after the server had gone to sleep, shrinks when watching was in vain, and is closed when
there is only one CPU, on which watching would only delay the guest. There the server yields the
CPU instead: a guest that makes one request after the other is back with the next one when the
server runs again, and neither has paid for a sleep and a wake-up.
"""

from __future__ import annotations

__all__ = ["PollWindow"]

SMALLEST = 10_000
"""Nanoseconds; a window below this is closed."""
LARGEST = 3_000_000
"""Nanoseconds; no request is watched for longer."""
WAKE_UP_FACTOR = 100
"""A window may last as long as this many system calls take: some ten wake-ups."""
STRETCH_FACTOR = 50
"""Watching may go on for as long as this many system calls take before some go into other work."""
MOST_SKIPPED = 63
"""After yielding in vain again and again, so many answers pass before it is tried again."""


class PollWindow:
    """The window, in nanoseconds; 0 while it does not pay to watch. ``yields``: yield instead.

    ``cpus``: physical CPUs that the server and the guest share. ``limit``: the largest window, or
    None to derive it from what a system call costs here. ``spent``: nanoseconds of watching, the
    answers in between included. ``stretch``: for how many a busy guest may be watched without a
    look at anything else, as far as that depends on what a system call costs.
    """

    def __init__(self, cpus: int, limit: int | None = None) -> None:
        self._fixed = limit
        self.limit = 0 if cpus < 2 else (LARGEST if limit is None else limit)
        self._call_cost: float | None = None
        self.yields = cpus < 2 and limit != 0
        self._skip = 0
        self._skipped = 0
        self.length = 0
        self.stretch = 0
        self.hits = 0
        self.misses = 0
        self.spent = 0

    def measured(self, nanoseconds: int) -> None:
        """Say what a system call that did not wait has cost."""
        if self._fixed is not None or not self.limit:
            return
        before = self._call_cost
        # Interruptions only ever make a call look dearer, so the estimate rises slowly.
        if before is None or nanoseconds < before:
            self._call_cost = nanoseconds
        else:
            self._call_cost = before + (nanoseconds - before) / 64
        self.limit = max(SMALLEST, min(LARGEST, int(self._call_cost * WAKE_UP_FACTOR)))
        self.length = min(self.length, self.limit)
        self.stretch = min(LARGEST, int(self._call_cost * STRETCH_FACTOR))

    def watched(self, requests: int, nanoseconds: int) -> None:
        """So many requests came while the slots were watched, and so long it took."""
        self.hits += requests
        self.spent += nanoseconds

    def missed(self) -> None:
        """Nothing came as long as the window was open."""
        self.misses += 1
        self.length //= 2
        if self.length < SMALLEST:
            self.length = 0

    def woke(self, slept: int) -> None:
        """A request ended a sleep of ``slept`` nanoseconds."""
        if slept < self.limit:
            self.length = min(self.limit, max(self.length * 2, 2 * slept, SMALLEST))

    def may_yield(self) -> bool:
        """Whether to yield the CPU and look again, after an answer, instead of sleeping."""
        if not self.yields:
            return False
        if self._skipped < self._skip:
            self._skipped += 1
            return False
        self._skipped = 0
        return True

    def yielded(self, *, paid: bool) -> None:
        """Say whether a request was there when the server ran again."""
        if paid:
            self.hits += 1
            self._skip = 0
        else:
            self.misses += 1
            self._skip = min(2 * self._skip + 1, MOST_SKIPPED)
