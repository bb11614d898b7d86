"""A process's log file: earlier ones move up, the new one starts empty, its end is told.

libxl keeps NAME.log and NAME.log.1 to NAME.log.10, the last being the oldest (libxl_create_logfile,
tools/libs/light/libxl_utils.c, recalled), and opens the log write-only, appending, mode 0644
(contract §1.2).
"""

from __future__ import annotations

import os
from pathlib import Path

from tools.toolstack.errors import HostFailure

__all__ = ["KEPT", "open_log", "tail"]

KEPT = 10
TAIL_BYTES = 4096
TAIL_LINES = 10


def open_log(path: Path) -> int:
    """Rotate the logs at ``path`` and give a descriptor of the new, empty one.

    HostFailure: a file cannot be renamed or created.
    """
    try:
        if path.exists():
            _rotate(path)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise HostFailure(f"log file {path}: {error.strerror}") from None


def _rotate(path: Path) -> None:
    for number in range(KEPT, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        newer = path.with_name(f"{path.name}.{number - 1}") if number > 1 else path
        if newer.exists():
            newer.replace(older)


def tail(path: Path) -> list[str]:
    """The last lines, few and short, fit for a terminal; none if there is nothing to read."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            data = file.read(TAIL_BYTES)
    except OSError:
        return []
    lines = data.decode(errors="replace").splitlines()[-TAIL_LINES:]
    return ["".join(one if one.isprintable() else "?" for one in line) for line in lines]
