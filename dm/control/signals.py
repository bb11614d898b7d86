"""How signals reach the event loop: as a readable descriptor, when the loop looks."""

from __future__ import annotations

import os
from select import EPOLLIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable

    from dm.server.loop import Loop
else:
    # What `signal` wraps: its enums would be the only ones that the process loads at start-up.
    import _signal

__all__ = ["end_on_signals"]

END_SIGNALS = (_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM)


def end_on_signals(loop: Loop, end: Callable[[], None]) -> None:
    """Call ``end`` from the loop after SIGHUP, SIGINT or SIGTERM."""
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    _signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in END_SIGNALS:
        _signal.signal(number, lambda *_: None)

    def received(events: int) -> None:
        os.read(reading, 64)
        end()

    loop.add(reading, EPOLLIN, received)
