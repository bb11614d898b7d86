"""A virtual clock and a poll object whose readiness a test decides."""

from __future__ import annotations

from collections.abc import Callable
from select import EPOLLIN


class Clock:
    """Nanoseconds; every look at it costs ``tick``."""

    def __init__(self, tick: int = 0) -> None:
        self.time = 1_000_000_000
        self.tick = tick

    def __call__(self) -> int:
        self.time += self.tick
        return self.time


class FakePoller:
    """Stands in for `select.epoll`: time passes when nothing is ready, up to the timeout."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.interest: dict[int, int] = {}
        self.ready: dict[int, Callable[[], bool]] = {}
        self.timeouts: list[float] = []
        self.while_asleep: list[tuple[int, Callable[[], object]]] = []
        self.closed = False

    def register(self, fd: int, eventmask: int) -> None:
        assert fd not in self.interest, f"fd {fd} is registered twice"
        self.interest[fd] = eventmask

    def modify(self, fd: int, eventmask: int) -> None:
        assert fd in self.interest
        self.interest[fd] = eventmask

    def unregister(self, fd: int) -> None:
        del self.interest[fd]

    def _ready(self) -> list[tuple[int, int]]:
        return [(fd, EPOLLIN) for fd in self.interest if fd in self.ready and self.ready[fd]()]

    def poll(self, timeout: float = -1) -> list[tuple[int, int]]:
        self.timeouts.append(timeout)
        found = self._ready()
        end = None if timeout < 0 else self.clock.time + round(timeout * 1e9)
        while not found and timeout:
            if not self.while_asleep:
                assert end is not None, "asleep for ever with nothing to wait for"
                self.clock.time = max(self.clock.time, end)
                break
            delay, deed = self.while_asleep[0]
            if end is not None and self.clock.time + delay > end:
                self.while_asleep[0] = (self.clock.time + delay - end, deed)
                self.clock.time = end
                break
            self.while_asleep.pop(0)
            self.clock.time += delay
            deed()
            found = self._ready()
        return found

    def close(self) -> None:
        self.closed = True
