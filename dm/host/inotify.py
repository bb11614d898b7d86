"""Tells when a file was written anew, through Linux's inotify (inotify(7)).

Folders are watched, not files: an editor replaces a file by another one as often as it writes to
it. A file is reported when who wrote it closes it, or when it is renamed to its place.
"""

from __future__ import annotations

import ctypes
import os
from select import EPOLLIN
from struct import Struct

from dm.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Loop(Protocol):
        """What is needed of the event loop."""

        def add(self, fd: int, events: int, callback: Callable[[int], object]) -> None: ...
        def remove(self, fd: int) -> None: ...


__all__ = ["FileWatch"]

CLOSE_WRITE, MOVED_TO = 0x8, 0x80
"""Source: linux/inotify.h, as are the layout of an event and the flags below."""
EVENT = Struct("iIII")
BUFFER_SIZE = 1 << 16


class FileWatch:
    """Calls ``changed(path)`` from the loop, once for all that happened to a file meanwhile."""

    def __init__(self, loop: Loop, changed: Callable[[str], object]) -> None:
        self._loop = loop
        self._changed = changed
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.inotify_init1.argtypes = (ctypes.c_int,)
        self._libc.inotify_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
        self._folders: dict[int, str] = {}
        self._paths: dict[str, set[str]] = {}
        self._fd: int = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise self._error("inotify_init1")
        loop.add(self._fd, EPOLLIN, self._ready)

    def _error(self, call: str) -> HostError:
        number = ctypes.get_errno()
        return HostError(f"{call}: {os.strerror(number)}", number)

    def add(self, path: str) -> None:
        """Watch the file at ``path``; HostError when its folder cannot be watched.

        Of a symbolic link, both the link and what it leads to now.
        """
        folder, name = os.path.split(os.path.abspath(path))
        for whole in {os.path.join(os.path.realpath(folder), name), os.path.realpath(path)}:
            self._paths.setdefault(whole, set()).add(path)
            self._watch(os.path.dirname(whole))

    def _watch(self, folder: str) -> None:
        if folder in self._folders.values():
            return
        watch = self._libc.inotify_add_watch(self._fd, os.fsencode(folder), CLOSE_WRITE | MOVED_TO)
        if watch < 0:
            raise self._error(f"inotify_add_watch {folder}")
        self._folders[watch] = folder

    def _ready(self, events: int) -> None:
        changed: dict[str, None] = {}
        while True:
            try:
                data = os.read(self._fd, BUFFER_SIZE)
            except BlockingIOError:
                break
            position = 0
            while position < len(data):
                watch, _, _, length = EVENT.unpack_from(data, position)
                start = position + EVENT.size
                name = os.fsdecode(data[start : start + length].rstrip(b"\0"))
                whole = os.path.join(self._folders.get(watch, ""), name)
                for path in sorted(self._paths.get(whole, ())):
                    changed[path] = None
                position = start + length
        for path in changed:
            self._changed(path)

    def close(self) -> None:
        """Watch nothing any more."""
        if self._fd >= 0:
            self._loop.remove(self._fd)
            os.close(self._fd)
            self._fd = -1
