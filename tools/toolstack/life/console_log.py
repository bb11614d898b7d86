"""The file of a guest's lines: what it writes to port 0xe9, one line after the other.

A guest can write for ever: a file that has its full size becomes the one before, of which there is
one.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["ConsoleLog"]

LARGEST = 1 << 20


class ConsoleLog:
    """The lines of one domain, in the file ``path`` and, before that, in ``path``.1."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0)

    def write(self, line: str) -> None:
        """Add a line; where the disk is full it is lost."""
        try:
            if self._file.tell() > LARGEST:
                os.replace(self._path, f"{self._path}.1")
                self._file.close()
                self._file = self._path.open("ab", buffering=0)
            self._file.write(f"{line}\n".encode())
        except OSError:
            pass

    def close(self) -> None:
        """No more lines."""
        self._file.close()
