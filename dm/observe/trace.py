"""The text trace: a line for each event that a user asked for."""

from __future__ import annotations

from .events import Sink
from .words import lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .events import Event
    from .filter import Filter
    from .output import Output

__all__ = ["TextTrace"]


class TextTrace(Sink):
    """Writes the lines of what passes ``wanted``; ``timed``: with guest time in front."""

    def __init__(self, output: Output, wanted: Filter, *, timed: bool) -> None:
        self._output = output
        self._wanted = wanted
        self._timed = timed

    def event(self, event: Event) -> None:
        """See `Sink.event`."""
        found = lines(event, timed=self._timed, wanted=self._wanted)
        text = "".join(f"{line}\n" for line in found)
        if text:
            self._output.write(text.encode(errors="backslashreplace"))

    def close(self) -> None:
        """See `Sink.close`."""
        self._output.close()
