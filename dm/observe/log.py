"""Messages: one logger per device under ``ioreqd``, rate-limited where a guest can trigger them.

`logging` is imported when the first message is written, not before: a process that has nothing to
say does not pay for it.
"""

from __future__ import annotations

from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from logging import Logger

__all__ = ["Log"]

BURST = 10
"""Messages of one kind that are written at once; after that one every ``INTERVAL`` seconds."""
INTERVAL = 5.0


class Log:
    """A logger that knows its rate limit.

    ``name`` is the part after ``ioreqd.``; ``now`` gives seconds.
    """

    def __init__(self, name: str, now: Callable[[], float] = monotonic) -> None:
        self.name = name
        self._now = now
        self._logger: Logger | None = None
        self._seen: dict[str, tuple[int, float]] = {}

    @property
    def real(self) -> Logger:
        """The `logging` logger behind it."""
        if self._logger is None:
            import logging

            self._logger = logging.getLogger(f"ioreqd.{self.name}")
        return self._logger

    def info(self, message: str, *arguments: object) -> None:
        """Write something that only the host can trigger."""
        self.real.info(message, *arguments)

    def warning(self, message: str, *arguments: object) -> None:
        """Write a warning that only the host can trigger."""
        self.real.warning(message, *arguments)

    def error(self, message: str, *arguments: object) -> None:
        """Write an error that only the host can trigger."""
        self.real.error(message, *arguments)

    def limited(self, message: str, *arguments: object) -> None:
        """Write a warning that a guest can trigger, unless this message came too often."""
        suppressed = self._admit(message)
        if suppressed is not None:
            self.real.warning(message + suppressed, *arguments)

    def limited_exception(self, error: Exception, message: str, *arguments: object) -> None:
        """The same for an exception: one limit for each place that raises it, traceback once."""
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else message
        first = place not in self._seen
        suppressed = self._admit(place)
        if suppressed is not None:
            self.real.error(message + suppressed, *arguments, exc_info=error if first else None)

    def _admit(self, key: str) -> str | None:
        """What to append (how many were left out), or None to leave this one out too."""
        count, since = self._seen.get(key, (0, 0.0))
        now = self._now()
        if count < BURST:
            self._seen[key] = (count + 1, now)
            return ""
        if now - since < INTERVAL:
            self._seen[key] = (count + 1, since)
            return None
        left_out = count - BURST
        self._seen[key] = (BURST, now)
        return f" ({left_out} more left out)" if left_out else ""
