"""A small event loop with the interface of the process's own, for tests that drive real sockets.

It never sleeps without something to wait for: `run_until` waits in epoll, bounded by a deadline.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable

LIMIT_SECONDS = 10.0


class Timer:
    def __init__(self, deadline: int, callback: Callable[[], None]) -> None:
        self.deadline = deadline
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class MiniLoop:
    """Level-triggered epoll; virtual time that only `advance` moves."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._timers: list[Timer] = []
        self._now = 0
        self.wakeups = 0

    def add(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def modify(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        self._epoll.unregister(fd)
        del self._callbacks[fd]

    def now(self) -> int:
        return self._now

    def call_at(self, deadline_ns: int, callback: Callable[[], None]) -> Timer:
        timer = Timer(deadline_ns, callback)
        self._timers.append(timer)
        return timer

    def advance(self, nanoseconds: int) -> None:
        self._now += nanoseconds
        for timer in [one for one in self._timers if one.deadline <= self._now]:
            self._timers.remove(timer)
            if timer.callback is not None:
                timer.callback()

    def step(self, timeout: float = 0.0) -> int:
        """Serves what is ready; returns how many descriptors were."""
        ready = self._epoll.poll(timeout)
        for fd, events in ready:
            callback = self._callbacks.get(fd)
            if callback is not None:
                callback(events)
        self.wakeups += len(ready)
        return len(ready)

    def run_until(self, done: Callable[[], bool]) -> None:
        """Serves until `done()`; fails after a bounded time."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while not done():
            assert time.monotonic() < deadline, "the awaited condition never came"
            self.step(0.05)

    def settle(self) -> None:
        """Serves until nothing is ready any more; fails when something is ready for ever."""
        for _ in range(10_000):
            if not self.step(0.0):
                return
        raise AssertionError("a descriptor stays ready and nobody consumes it: the loop would spin")

    def close(self) -> None:
        self._epoll.close()
