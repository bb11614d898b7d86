"""Stops at an exception of a device's: a debugger at the failing frame, the request in hand."""

from __future__ import annotations

import os
import sys
import traceback

from dm.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from .events import Access

__all__ = ["Debugger"]

REQUEST = "request"
"""What the access is called at the debugger's prompt."""


class Debugger:
    """Reports exceptions: at a terminal by a debugger, elsewhere by a traceback.

    ``source``, ``target``: where commands come from and words go; None for the process's standard
    input and error. The guest waits until the debugger is left; then all goes on as without it.
    """

    def __init__(self, source: TextIO | None = None, target: TextIO | None = None) -> None:
        self._source = source
        self._target = target

    def failed(self, error: Exception, what: str, access: Access | None) -> bool:
        """Report ``error``, raised during ``access`` if there was one; False: not a device's."""
        if isinstance(error, HostError) or error.__traceback__ is None:
            return False
        source = self._source or sys.stdin
        target = self._target or sys.stderr
        target.write("".join(traceback.format_exception(error)))
        target.write(f"{what}\n" if access is None else f"{what}\nrequest: {access!r}\n")
        target.flush()
        if source is not None and not source.closed and source.isatty():
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
        setattr(builtins, REQUEST, access)
        debugger = pdb.Pdb(stdin=source, stdout=target, nosigint=True)
        debugger.reset()
        try:
            debugger.interaction(None, error.__traceback__)
        except KeyboardInterrupt:
            target.write("\n")
        finally:
            delattr(builtins, REQUEST)
            sys.settrace(None)
            restore()


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
