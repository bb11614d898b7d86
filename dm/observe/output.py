"""Where observations are written: a file, or standard error, one whole piece at a time.

A piece is written by one system call, so that a process that is killed leaves whole pieces. What
cannot be written (a full disk) ends the output and not the machine.
"""

from __future__ import annotations

import os
import sys

from dm.errors import ConfigError
from dm.observe.log import Log

__all__ = ["Output"]

STANDARD = "-"


class Output:
    """A file that is made anew, or standard error for ``-``; ``option`` names it in messages.

    Raises:
        ConfigError: the file cannot be made.
    """

    def __init__(self, option: str, path: str) -> None:
        self._name = f"{option}={path}"
        self._own = path != STANDARD
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            self._fd = os.open(path, flags, 0o644) if self._own else sys.stderr.fileno()
        except OSError as error:
            raise ConfigError(f"-observe {self._name}: {error.strerror}") from None

    def write(self, data: bytes) -> None:
        """Write one piece."""
        if self._fd < 0:
            return
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            self.close()
            Log("observe").error("%s: %s; it ends here", self._name, error.strerror)

    def close(self) -> None:
        """Write nothing more."""
        if self._own and self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
