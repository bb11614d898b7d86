"""The log of a keeper: what became of its domains, one line for each event, with the time."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tools.toolstack.children.log_file import open_log
from tools.toolstack.errors import HostFailure

__all__ = ["Journal"]

MOST_BYTES = 1 << 20
"""A guest that reboots for ever fills no disk: from here on lines are lost."""


class Journal:
    """The log of the keeper of a guest named ``name``, in the folder ``logs``.

    Earlier ones are kept as those of device models are. HostFailure: there can be no such file.
    """

    def __init__(self, logs: Path, name: str) -> None:
        try:
            logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise HostFailure(f"mkdir {logs}: {error.strerror}") from None
        self.path = logs / f"{name}.log"
        self._fd = open_log(self.path)
        self._room = MOST_BYTES

    def write(self, line: str) -> None:
        """Add a line."""
        data = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n".encode()
        self._room -= len(data)
        if self._room >= 0:
            try:
                os.write(self._fd, data)
            except OSError:
                pass

    def close(self) -> None:
        """No more lines."""
        os.close(self._fd)
