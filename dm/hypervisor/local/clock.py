"""Time that the hypervisor moves: the clock page of protocol/local.py, this side of it."""

from __future__ import annotations

import os
from mmap import mmap

from dm.errors import HostError
from dm.hypervisor.interface import VirtualClock
from protocol import layouts

__all__ = ["LocalClock"]

NOW = layouts.LOCAL_CLOCK_NOW_OFFSET // 8
ASKED = layouts.LOCAL_CLOCK_ASKED_OFFSET // 8
DONE = layouts.LOCAL_CLOCK_DONE_OFFSET // 8
DEADLINE = layouts.LOCAL_CLOCK_DEADLINE_OFFSET // 8
NEVER = (1 << 64) - 1


class LocalClock(VirtualClock):
    """The clock of one connection. The descriptors, page and two events, become the clock's."""

    def __init__(self, page: int, question: int, done: int) -> None:
        self.fd = question
        self._done = done
        try:
            self._words = memoryview(mmap(page, layouts.LOCAL_CLOCK_PAGE_SIZE)).cast("Q")
        except (OSError, ValueError) as error:
            raise HostError(f"mmap of the clock page: {error}") from None
        finally:
            os.close(page)
        os.set_blocking(question, False)

    def now(self) -> int:
        """See `VirtualClock.now`."""
        return self._words[NOW]

    def question(self) -> int | None:
        """See `VirtualClock.question`."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            pass
        asked = self._words[ASKED]
        return None if asked == self._words[DONE] else asked

    def answer(self, question: int, deadline: int | None) -> None:
        """See `VirtualClock.answer`."""
        words = self._words
        words[DEADLINE] = NEVER if deadline is None else min(deadline, NEVER)
        words[DONE] = question
        os.eventfd_write(self._done, 1)

    def close(self) -> None:
        """Close the descriptors."""
        os.close(self.fd)
        os.close(self._done)
