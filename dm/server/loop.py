"""One epoll loop: descriptors, timed calls and the moment before sleep, all in one thread.

The clock and the poll object are parameters, so that tests decide what time it is and what is
ready.
"""

from __future__ import annotations

import select
from time import monotonic_ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Poller(Protocol):
        """What `select.epoll` offers."""

        def register(self, fd: int, eventmask: int) -> None: ...
        def modify(self, fd: int, eventmask: int) -> None: ...
        def unregister(self, fd: int) -> None: ...
        def poll(self, timeout: float = ...) -> list[tuple[int, int]]: ...
        def close(self) -> None: ...


__all__ = ["Call", "Loop"]

NANOSECONDS = 1_000_000_000
LONGEST_SLEEP = 3600.0
"""Seconds. A guest may set a timer for the next century, which epoll refuses to wait for."""


class Call:
    """A call that is due at ``deadline``, nanoseconds of the loop's clock."""

    __slots__ = ("callback", "cancelled", "deadline")

    def __init__(self, deadline: int, callback: Callable[[], object]) -> None:
        self.deadline = deadline
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        """Do not make the call."""
        self.cancelled = True


class Loop:
    """Calls what is ready. ``now`` gives nanoseconds of a monotonic clock.

    ``calls``: what is to be called by time; empty when nothing is.
    """

    def __init__(self, poller: Poller | None = None, now: Callable[[], int] = monotonic_ns) -> None:
        self._poller: Poller = select.epoll() if poller is None else poller
        self.now = now
        self._callbacks: dict[int, Callable[[int], object]] = {}
        self.calls: list[Call] = []
        self.next_deadline: Callable[[], int | None] = lambda: None
        self.running = False

    def add(self, fd: int, events: int, callback: Callable[[int], object]) -> None:
        """Call ``callback(events)`` when ``fd`` has some of ``events`` (select.EPOLL…)."""
        self._poller.register(fd, events)
        self._callbacks[fd] = callback

    def modify(self, fd: int, events: int) -> None:
        """Wait for other events of ``fd``."""
        self._poller.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Forget ``fd``; before it is closed."""
        del self._callbacks[fd]
        self._poller.unregister(fd)

    def call_at(self, deadline: int, callback: Callable[[], object]) -> Call:
        """Make a call at ``deadline``, nanoseconds of the loop's clock."""
        call = Call(deadline, callback)
        self.calls.append(call)
        return call

    def deadline(self) -> int | None:
        """When, in nanoseconds of the loop's clock, something is due by time; None for never."""
        other = self.next_deadline()
        if not self.calls:
            return other
        self.calls = [call for call in self.calls if not call.cancelled]
        deadlines = [call.deadline for call in self.calls]
        if other is not None:
            deadlines.append(other)
        return min(deadlines) if deadlines else None

    def timeout(self) -> float:
        """Seconds to wait at most until something is due by time; -1 when nothing is."""
        deadline = self.deadline()
        if deadline is None:
            return -1
        return min(max(deadline - self.now(), 0) / NANOSECONDS, LONGEST_SLEEP)

    def run_once(self, timeout: float) -> None:
        """Wait at most ``timeout`` seconds (-1: for ever), then make every call that is due."""
        for fd, events in self._poller.poll(timeout):
            callback = self._callbacks.get(fd)
            if callback is not None:
                callback(events)
        if self.calls:
            self.run_calls()

    def run_calls(self) -> None:
        """Make every call that is due."""
        now = self.now()
        due = [call for call in self.calls if call.deadline <= now]
        if due:
            self.calls = [call for call in self.calls if call.deadline > now]
            for call in sorted(due, key=lambda call: call.deadline):
                if not call.cancelled:
                    call.callback()

    def close(self) -> None:
        """Give the poll object up."""
        self._poller.close()
