"""Guest time and the timers that hang on it.

Guest time is nanoseconds since the machine was first started; it stands still while the machine is
stopped and goes on where it was after a load.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dm.device.state import LiveTimer

__all__ = ["GuestClock", "Timers"]


class GuestClock:
    """Guest time over a monotonic host clock in nanoseconds; starts stopped, at zero."""

    def __init__(self, host_now: Callable[[], int]) -> None:
        self._host_now = host_now
        self.changed: Callable[[int, int], None] = lambda elapsed, started: None
        self._elapsed = 0
        self._started_at: int | None = None

    def now(self) -> int:
        """Guest time in nanoseconds."""
        if self._started_at is None:
            return self._elapsed
        return self._elapsed + self._host_now() - self._started_at

    def start(self) -> None:
        """Let time run."""
        if self._started_at is None:
            self._started_at = self._host_now()
            self._tell()

    def stop(self) -> None:
        """Let time stand still."""
        self._elapsed = self.now()
        self._started_at = None
        self._tell()

    def set(self, now: int) -> None:
        """Go on from ``now`` nanoseconds."""
        self._elapsed = now
        if self._started_at is not None:
            self._started_at = self._host_now()
        self._tell()

    def _tell(self) -> None:
        """Tell `changed` (elapsed guest time, host time since when it runs, or 0)."""
        self.changed(self._elapsed, self._started_at or 0)

    @property
    def running(self) -> bool:
        """Whether time runs."""
        return self._started_at is not None


class Timers:
    """The armed timers of a machine, few enough that the earliest is found by looking.

    ``armed``: empty when there is none.
    """

    def __init__(self, clock: GuestClock) -> None:
        self._clock = clock
        self.armed: dict[int, LiveTimer] = {}
        self.on_change: Callable[[], object] = _nothing
        """Called when the earliest deadline may have changed."""

    def changed(self, timer: LiveTimer) -> None:
        """A timer was started or stopped."""
        if timer.armed:
            self.armed[id(timer)] = timer
        else:
            self.armed.pop(id(timer), None)
        self.on_change()

    def forget(self, timer: LiveTimer) -> None:
        """A timer's device is no more."""
        self.armed.pop(id(timer), None)

    def next_deadline(self) -> int | None:
        """Guest time of the earliest armed timer, None when there is none."""
        if not self.armed or not self._clock.running:
            return None
        return min(timer.deadline for timer in self.armed.values())

    def due(self, before: Callable[[LiveTimer], object] | None = None) -> Iterator[LiveTimer]:
        """Take the timers whose time has come, earliest first, each disarmed as it is given.

        ``before`` is told of each while it is still armed.
        What one timer's handler does to another that is due counts: a stopped one does not fire.
        """
        now = self._clock.now()
        due = [timer for timer in self.armed.values() if timer.deadline <= now]
        due.sort(key=lambda timer: timer.deadline)
        for timer in due:
            if timer.armed and timer.deadline <= now:
                if before is not None:
                    before(timer)
                timer.stop()
                yield timer


def _nothing() -> None:
    pass
