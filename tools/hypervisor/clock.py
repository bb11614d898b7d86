"""Guest time of a domain: nanoseconds from zero, and the timers that hang on it.

The owner of a clock calls everything but `Clock.now` and `Clock.deadline` under the domain's lock;
`RealClock.start` brings a thread that asks the owner to do so when something is due.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable

__all__ = ["NEVER", "Clock", "RealClock", "Timer", "VirtualClock"]

NEVER = 1 << 63
"""The deadline of a clock on which nothing waits."""

_FEWEST_TO_SWEEP = 64
_REFUSED_WAIT = 0.01
_LONGEST_WAIT = 3600.0
"""Seconds; a thread cannot wait for the whole of `NEVER`."""


class Timer:
    """One call that a clock will make. `deadline` is in nanoseconds of guest time."""

    __slots__ = ("_clock", "callback", "deadline")

    def __init__(self, clock: Clock, deadline: int, callback: Callable[[], None]) -> None:
        self._clock = clock
        self.deadline = deadline
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Never make the call; nothing happens if it has been made or cancelled."""
        if self.callback is not None:
            self.callback = None
            self._clock.forget()


class Clock:
    """Guest time and its timers; a subclass says what time it is.

    `deadline` is the earliest deadline, or `NEVER`: one attribute for a vCPU's loop to compare
    `now()` with.
    """

    def __init__(self) -> None:
        self.deadline = NEVER
        self._heap: list[tuple[int, int, Timer]] = []
        self._serial = 0
        self._dead = 0

    def now(self) -> int:
        """Guest time in nanoseconds."""
        raise NotImplementedError

    def call_at(self, deadline: int, callback: Callable[[], None]) -> Timer:
        """Have ``callback`` called at ``deadline`` nanoseconds, or as soon as possible after it."""
        timer = Timer(self, deadline, callback)
        self._serial += 1
        heapq.heappush(self._heap, (deadline, self._serial, timer))
        if deadline < self.deadline:
            self.deadline = deadline
            self._sooner()
        return timer

    def next_deadline(self) -> int | None:
        """The earliest deadline in nanoseconds; None when no timer waits."""
        return None if self.deadline == NEVER else self.deadline

    def run_due(self) -> None:
        """Make the calls that are due, in the order of their deadlines."""
        while self.deadline <= self.now():
            self._call_first()

    def forget(self) -> None:
        """A timer was cancelled; a guest that re-arms one for ever must not fill the heap."""
        self._dead += 1
        if self._dead > _FEWEST_TO_SWEEP and self._dead * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].callback is not None]
            heapq.heapify(self._heap)
            self._dead = 0
        self._look()

    def _call_first(self) -> None:
        callback = heapq.heappop(self._heap)[2]
        call, callback.callback = callback.callback, None
        self._look()
        if call is not None:
            call()

    def _look(self) -> None:
        """Drop cancelled timers from the front and note the earliest deadline."""
        heap = self._heap
        while heap and heap[0][2].callback is None:
            heapq.heappop(heap)
            self._dead = max(0, self._dead - 1)
        self.deadline = heap[0][0] if heap else NEVER

    def _sooner(self) -> None:
        """The earliest deadline has come nearer."""


class VirtualClock(Clock):
    """Time that moves only when told to."""

    def __init__(self, start: int = 0) -> None:
        super().__init__()
        self._now = start

    def now(self) -> int:
        """Guest time in nanoseconds."""
        return self._now

    def advance_to(self, target: int) -> None:
        """Let time pass until ``target`` nanoseconds, each timer called at its own deadline.

        Timers that calls add on the way fire, too. Time never goes back.
        """
        while self.deadline <= target:
            self._now = max(self._now, self.deadline)
            self._call_first()
        self._now = max(self._now, target)


class RealClock(Clock):
    """The host's monotonic time, from ``start`` nanoseconds on."""

    def __init__(self, start: int = 0) -> None:
        super().__init__()
        self._origin = time.monotonic_ns() - start
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        self._running = False

    def now(self) -> int:
        """Guest time in nanoseconds."""
        return time.monotonic_ns() - self._origin

    def start(self, on_due: Callable[[], None]) -> None:
        """Have a thread call ``on_due`` whenever a deadline has come.

        ``on_due`` takes the owner's lock and calls `run_due`; while it does not, because time
        stands still for the domain, it is called again every 10 ms.
        """
        self._running = True
        self._thread = threading.Thread(
            target=self._watch, args=(on_due,), name="guest-clock", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End the thread, if there is one, and wait for it, unless it is the caller.

        Called without the owner's lock, which the thread may be waiting for.
        """
        with self._condition:
            self._running = False
            self._condition.notify()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _watch(self, on_due: Callable[[], None]) -> None:
        while True:
            with self._condition:
                while self._running and (wait := self.deadline - self.now()) > 0:
                    self._condition.wait(min(wait / 1e9, _LONGEST_WAIT))
                if not self._running:
                    return
            deadline = self.deadline
            on_due()
            with self._condition:
                if self._running and self.deadline == deadline <= self.now():
                    self._condition.wait(_REFUSED_WAIT)

    def _sooner(self) -> None:
        if self._running:
            with self._condition:
                self._condition.notify()
