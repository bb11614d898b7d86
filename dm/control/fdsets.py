"""Descriptors that a monitor's clients pass in, and the paths /dev/fdset/N that name them.

Source: QEMU 7.2, monitor/fds.c; libxl saves state and changes media through them.
"""

from __future__ import annotations

import fcntl
import os
import stat

from dm.control.qmp_error import QmpError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["FdSets", "open_for_saving"]

_PREFIX = "/dev/fdset/"
# A client may not make the process run out of descriptors.
_LIMIT = 256


class FdSets:
    """Sets of descriptors by number; each descriptor has an optional note of its owner."""

    def __init__(self) -> None:
        self._sets: dict[int, list[tuple[int, str | None]]] = {}

    def add(self, fd: int, number: int | None, note: str | None) -> dict[str, int]:
        """Adds a descriptor, which becomes this object's, to a set, by default a new one."""
        if sum(map(len, self._sets.values())) >= _LIMIT:
            raise QmpError(f"No more than {_LIMIT} file descriptors can be kept")
        if number is None:
            number = next(one for one in range(_LIMIT + 1) if one not in self._sets)
        elif number < 0:
            raise QmpError("Parameter 'fdset-id' expects a non-negative value")
        self._sets.setdefault(number, []).append((fd, note))
        return {"fdset-id": number, "fd": fd}

    def remove(self, number: int, fd: int | None) -> None:
        """Closes one descriptor of a set, or all of them."""
        members = self._sets.get(number, [])
        going = [one for one in members if fd is None or one[0] == fd]
        if not going:
            place = f"fdset-id:{number}" + ("" if fd is None else f", fd:{fd}")
            raise QmpError(f"File descriptor named '{place}' not found")
        for one in going:
            members.remove(one)
            os.close(one[0])
        if not members:
            del self._sets[number]

    def listing(self) -> list[dict[str, Any]]:
        """What query-fdsets returns."""
        return [
            {
                "fdset-id": number,
                "fds": [
                    {"fd": fd} if note is None else {"fd": fd, "opaque": note} for fd, note in one
                ],
            }
            for number, one in self._sets.items()
        ]

    def close(self) -> None:
        """Closes everything: the last monitor's client has gone."""
        for number in list(self._sets):
            self.remove(number, None)

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        """Opens a path; /dev/fdset/N duplicates a member whose access mode fits.

        :param flags: O_RDONLY, O_WRONLY or O_RDWR, and for paths of the file system more.
        Raises QmpError with QEMU's words.
        """
        try:
            if path.startswith(_PREFIX):
                return self._duplicate(path[len(_PREFIX) :], flags & os.O_ACCMODE)
            return os.open(path, flags | os.O_CLOEXEC, mode)
        except (OSError, ValueError) as error:
            cause = error.strerror if isinstance(error, OSError) else str(error)
            raise QmpError(f"Unable to open {path}: {cause}") from error

    def _duplicate(self, text: str, access: int) -> int:
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
        if number not in self._sets:
            raise FileNotFoundError(2, os.strerror(2))
        for fd, _ in self._sets[number]:
            if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE in (access, os.O_RDWR):
                return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0)
        raise PermissionError(13, os.strerror(13))


def open_for_saving(sets: FdSets, path: str) -> int:
    """An empty file to write state to.

    libxl passes a descriptor of an existing file that it did not truncate: what a longer, earlier
    state left behind must not remain.
    """
    fd = sets.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK)
    try:
        os.set_blocking(fd, True)
        if stat.S_ISREG(os.fstat(fd).st_mode):
            os.ftruncate(fd, 0)
            os.lseek(fd, 0, os.SEEK_SET)
    except OSError as error:
        os.close(fd)
        raise QmpError(f"Unable to open {path}: {error.strerror}") from error
    return fd
