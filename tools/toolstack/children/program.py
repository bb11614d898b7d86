"""How a program is started as a device model wants to be, between fork and exec.

Facts: contract §1.2 (libxl__exec, libxl__spawn_spawn): own session, stdin from /dev/null, stdout
and stderr to one log, SIGPIPE as by default, the caller's environment with additions, the caller's
working directory and umask. Python ignores SIGXFSZ and SIGPIPE; xl, being a C program, only the
latter, so both go back to the default, as does SIGCHLD.

libxl forks twice, so that a device model outlives its context without being the context's child.
Here it stays a child: its death is then an event as long as the toolstack runs, and init's concern
thereafter, as it is with libxl.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.toolstack.errors import HostFailure, ToolstackError

from .log_file import open_log

__all__ = ["Program"]

FIRST_FREE = 3
CANNOT_EXECUTE = 127
RESET_SIGNALS = (signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ)
OPEN_FILES = "/proc/self/fd"


@dataclass(frozen=True)
class Program:
    """What to run: an absolute ``path``, ``arguments`` after it, the ``log`` of its output.

    ``environment`` is added to that of this process. ``inherited`` are descriptors, from 3 on, that
    it gets under the same numbers; it gets no others. ValueError: a standard one among them.
    """

    path: Path
    arguments: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    inherited: Sequence[int] = ()

    def __post_init__(self) -> None:
        if any(fd < FIRST_FREE for fd in self.inherited):
            raise ValueError("the standard descriptors are /dev/null and the log")

    def check(self) -> None:
        """ToolstackError: it cannot be executed (libxl__spawn_local_dm's only check)."""
        if not self.path.is_file() or not os.access(self.path, os.X_OK):
            raise ToolstackError(f"device model {self.path} is not executable")

    def prepare(self) -> Prepared:
        """Rotate the log and open what the child needs. HostFailure: what cannot be opened."""
        log = _above_standard(open_log(self.log))
        try:
            null = _above_standard(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            os.close(log)
            raise HostFailure(f"open {os.devnull}: {error.strerror}") from None
        return Prepared(self, null, log)


class Prepared:
    """A program and the descriptors that its standard ones will be copies of."""

    def __init__(self, program: Program, null: int, log: int) -> None:
        self._path = os.fspath(program.path)
        self._words = [self._path, *program.arguments]
        self._environment = {**os.environ, **program.environment}
        self._inherited = frozenset(program.inherited)
        self._null = null
        self._log = log

    def close(self) -> None:
        """In the parent, after the fork."""
        os.close(self._null)
        os.close(self._log)

    def run(self) -> int:
        """In the child: become the program. What fails is told in the log."""
        os.setsid()
        for fd, source in enumerate((self._null, self._log, self._log)):
            os.dup2(source, fd)
        for fd in self._inherited:
            os.set_inheritable(fd, True)
        for number in RESET_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        _keep_only(self._inherited)
        try:
            os.execve(self._path, self._words, self._environment)
        except OSError as error:
            os.write(2, f"ioreqd: execve {self._path}: {error.strerror}\n".encode())
        return CANNOT_EXECUTE


def _above_standard(fd: int) -> int:
    """``fd`` itself, or, where this process has closed a standard one, a copy out of their way."""
    if fd >= FIRST_FREE:
        return fd
    copy = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE)
    os.close(fd)
    return copy


def _keep_only(kept: frozenset[int]) -> None:
    """Have exec close all others, those among them that this process inherited itself."""
    for name in os.listdir(OPEN_FILES):
        fd = int(name)
        if fd >= FIRST_FREE and fd not in kept:
            try:
                os.set_inheritable(fd, False)
            except OSError:
                pass  # the descriptor of the listing, which is closed again
