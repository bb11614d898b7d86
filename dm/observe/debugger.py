"""Stops at an exception of a device's: a debugger at the failing frame, the request in hand."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import traceback

from dm.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

    from .events import Access

__all__ = ["Debugger"]

REQUEST = "request"
"""What the access is called at the debugger's prompt."""
END_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
LONGEST_LINE = 65536


class Debugger:
    """Reports exceptions: at a terminal by a debugger, elsewhere by a traceback.

    ``source``, ``target``: where commands come from and words go; None for the process's standard
    input and error. The guest waits until the debugger is left; then all goes on as without it.
    """

    def __init__(self, source: TextIO | None = None, target: TextIO | None = None) -> None:
        self._source = source
        self._target = target
        self._ended = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def interrupt(self) -> None:
        """Leave the debugger, and stop at nothing any more; from any thread or signal handler."""
        os.eventfd_write(self._ended, 1)

    def close(self) -> None:
        """Nothing will be reported any more."""
        os.close(self._ended)

    def failed(self, error: Exception, what: str, access: Access | None) -> bool:
        """Report ``error``, raised during ``access`` if there was one; False: not a device's."""
        if isinstance(error, HostError) or error.__traceback__ is None:
            return False
        source = self._source or sys.stdin
        target = self._target or sys.stderr
        target.write("".join(traceback.format_exception(error)))
        target.write(f"{what}\n" if access is None else f"{what}\nrequest: {access!r}\n")
        target.flush()
        at_terminal = source is not None and not source.closed and source.isatty()
        if source is not None and at_terminal and not _readable(self._ended):
            self._stop(error, access, source, target)
        return True

    def _stop(
        self, error: Exception, access: Access | None, source: TextIO, target: TextIO
    ) -> None:
        """Run a debugger until it is left."""
        import builtins
        import pdb

        target.write("c(ontinue) goes on: the guest reads ones. `request` is the access.\n")
        restore = _line_mode(source.fileno())
        undo = _on_signals(self.interrupt)
        setattr(builtins, REQUEST, access)
        commands: Any = Commands(source.fileno(), self._ended)
        debugger = pdb.Pdb(stdin=commands, stdout=target, nosigint=True)
        debugger.reset()
        try:
            debugger.interaction(None, error.__traceback__)
        except KeyboardInterrupt:
            target.write("\n")
        finally:
            delattr(builtins, REQUEST)
            sys.settrace(None)
            undo()
            restore()


class Commands:
    """Lines of a terminal, which has ended when ``ended`` is readable."""

    def __init__(self, fd: int, ended: int) -> None:
        self._fd = fd
        self._ended = ended

    def readline(self) -> str:
        """The next line, as the terminal gives them; "" at the end, where pdb leaves."""
        select.select([self._fd, self._ended], [], [])
        if _readable(self._ended):
            return ""
        return os.read(self._fd, LONGEST_LINE).decode(errors="replace")


def _readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def _on_signals(action: Callable[[], object]) -> _Restore:
    """Do ``action`` at the signals that end the process; gives what undoes it.

    A thread other than the main one has no signals: whoever has them does the same.
    """
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    before = {number: signal.getsignal(number) for number in END_SIGNALS}
    for number in before:
        signal.signal(number, lambda *_: action())

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    return restore


def _line_mode(fd: int) -> _Restore:
    """Make a terminal, which may be the guest's console, fit for typing; gives what undoes it."""
    import termios

    blocking = os.get_blocking(fd)
    mode = termios.tcgetattr(fd)
    typing = termios.tcgetattr(fd)
    typing[0] |= termios.ICRNL
    typing[1] |= termios.OPOST | termios.ONLCR
    typing[3] |= termios.ICANON | termios.ECHO | termios.ISIG
    termios.tcsetattr(fd, termios.TCSANOW, typing)
    os.set_blocking(fd, True)

    def restore() -> None:
        termios.tcsetattr(fd, termios.TCSANOW, mode)
        os.set_blocking(fd, blocking)

    return restore


if TYPE_CHECKING:
    from collections.abc import Callable

    _Restore = Callable[[], None]
