"""The event loop that child processes hang on: what they ask of one, and a small one.

The interface is that of every loop of this project, so that a context can be put into whichever
loop its process has.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Protocol

from tools.hypervisor.clock import Clock, RealClock

__all__ = ["EventLoop", "Loop", "Timer"]

MOST_SECONDS = 3600.0


class Timer(Protocol):
    """A call that will be made."""

    def cancel(self) -> None:
        """Never make the call; nothing happens if it has been made or cancelled."""


class EventLoop(Protocol):
    """Level-triggered descriptors and timers; every callback runs on the loop's thread."""

    def add(self, fd: int, events: int, callback: Callable[[int], object]) -> None:
        """Call ``callback`` with the pending events (EPOLL*) whenever ``fd`` has any."""

    def remove(self, fd: int) -> None:
        """Forget ``fd``."""

    def now(self) -> int:
        """The loop's time, in nanoseconds."""

    def call_at(self, deadline_ns: int, callback: Callable[[], None], /) -> Timer:
        """Call ``callback`` once, at ``deadline_ns`` or as soon as possible after it."""


class Loop:
    """An `EventLoop` by epoll. ``clock``: the host's monotonic time unless told otherwise."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or RealClock()
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], object]] = {}

    def add(self, fd: int, events: int, callback: Callable[[int], object]) -> None:
        """Call ``callback`` with the pending events whenever ``fd`` has any."""
        self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def remove(self, fd: int) -> None:
        """Forget ``fd``."""
        self._epoll.unregister(fd)
        del self._callbacks[fd]

    def now(self) -> int:
        """The time of the clock, in nanoseconds."""
        return self._clock.now()

    def call_at(self, deadline_ns: int, callback: Callable[[], None], /) -> Timer:
        """Call ``callback`` once, at ``deadline_ns`` or as soon as possible after it."""
        return self._clock.call_at(deadline_ns, callback)

    def step(self, timeout: float = MOST_SECONDS) -> int:
        """Wait for something, for at most ``timeout`` seconds, and serve all that is there.

        Gives the number of descriptors that were served.
        """
        ready = self._epoll.poll(max(0.0, min(timeout, self._until_deadline())))
        served = 0
        for fd, events in ready:
            # An earlier callback of this round may have removed it.
            callback = self._callbacks.get(fd)
            if callback is not None:
                callback(events)
                served += 1
        self._clock.run_due()
        return served

    def run_until(self, done: Callable[[], bool]) -> None:
        """Serve until ``done`` says so; it is asked after every step."""
        while not done():
            self.step()

    def close(self) -> None:
        """Close the epoll descriptor; the descriptors in it belong to others."""
        self._epoll.close()

    def _until_deadline(self) -> float:
        deadline = self._clock.next_deadline()
        return MOST_SECONDS if deadline is None else (deadline - self._clock.now()) / 1e9
