"""Several processors, one at a time: what keeps a guest's atomic instructions atomic.

Each processor is a library instance of its own that believes to be alone: its locked instructions
are plain ones. So only one runs guest code at a time, and hands over between two instructions, or
while it waits for the answer to an access. Turns come in the order of asking; a plain lock would
let the thread that gave it up take it again at once.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .access import Requests

__all__ = ["Turns"]


class Turns:
    """A lock whose waiters are served in order."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._taken = False
        self._waiters: deque[threading.Lock] = deque()

    def take(self) -> None:
        """Wait for the turn."""
        with self._guard:
            if not self._taken:
                self._taken = True
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiters.append(mine)
        mine.acquire()

    def give(self) -> None:
        """Pass the turn on."""
        with self._guard:
            if self._waiters:
                self._waiters.popleft().release()
            else:
                self._taken = False

    def around(self, requests: Requests) -> Requests:
        """The same requests, each made while somebody else has the turn."""
        return _Released(self, requests)


class _Released:
    """Gives the turn back for the time of each request."""

    def __init__(self, turns: Turns, requests: Requests) -> None:
        self._turns, self._requests = turns, requests

    @property
    def attention(self) -> bool:
        return self._requests.attention

    def read(self, space: int, address: int, size: int, /) -> int:
        self._turns.give()
        try:
            return self._requests.read(space, address, size)
        finally:
            self._turns.take()

    def write(self, space: int, address: int, size: int, value: int, /) -> None:
        self._turns.give()
        try:
            self._requests.write(space, address, size, value)
        finally:
            self._turns.take()

    def string(
        self, *, port: int, size: int, count: int, gpa: int, reads: bool, down: bool
    ) -> None:
        self._turns.give()
        try:
            self._requests.string(
                port=port, size=size, count=count, gpa=gpa, reads=reads, down=down
            )
        finally:
            self._turns.take()

    def move(self, *, mmio: int, size: int, count: int, gpa: int, reads: bool, down: bool) -> None:
        self._turns.give()
        try:
            self._requests.move(mmio=mmio, size=size, count=count, gpa=gpa, reads=reads, down=down)
        finally:
            self._turns.take()

    def fill(self, *, mmio: int, size: int, count: int, value: int, down: bool) -> None:
        self._turns.give()
        try:
            self._requests.fill(mmio=mmio, size=size, count=count, value=value, down=down)
        finally:
            self._turns.take()
