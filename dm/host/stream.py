"""How bytes flow through a descriptor that may be slow: a bounded queue out, flow control in."""

from __future__ import annotations

import os
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT

from dm.host.chardev import KEPT_BYTES, Chardev

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dm.host.chardev import Loop

__all__ = ["StreamChardev"]

_READ_AT_ONCE = 4096


class StreamChardev(Chardev):
    """A back end on one descriptor at a time, which may come and go.

    Subclasses call :meth:`_attach` when there is a descriptor and override :meth:`_lost`.
    """

    def __init__(self, label: str, loop: Loop) -> None:
        super().__init__(label)
        self._loop = loop
        self._read_fd = self._write_fd = -1
        self._interest: dict[int, int] = {}
        self._queue = bytearray()

    def _attach(self, read_fd: int, write_fd: int) -> None:
        """Begins with non-blocking descriptors (often one and the same); -1 for none."""
        self._read_fd, self._write_fd = read_fd, write_fd
        self._flush()

    def _detach(self) -> None:
        """Forgets the descriptors, and keeps what was not written for the next ones."""
        for fd in self._interest:
            self._loop.remove(fd)
        self._interest.clear()
        self._read_fd = self._write_fd = -1

    def _lost(self) -> None:
        """The other side is gone: end of file or an error."""
        self._detach()

    def accept_input(self) -> None:
        """The device can take bytes again."""
        self._watch()

    def _watch(self) -> None:
        """Waits for exactly what is of use now."""
        wanted: dict[int, int] = {}
        if self._read_fd >= 0:
            wanted[self._read_fd] = EPOLLIN if self._room() > 0 else 0
        if self._write_fd >= 0:
            events = EPOLLOUT if self._queue else 0
            wanted[self._write_fd] = wanted.get(self._write_fd, 0) | events
        for fd, events in wanted.items():
            known = self._interest.get(fd)
            if known is None:
                self._loop.add(fd, events, self._ready)
            elif known != events:
                self._loop.modify(fd, events)
            self._interest[fd] = events

    def _ready(self, events: int) -> None:
        if events & EPOLLOUT:
            self._flush()
        if events & EPOLLIN:
            self._fill()
        elif events & (EPOLLHUP | EPOLLERR) and self._read_fd >= 0:
            self._lost()

    def _fill(self) -> None:
        """Passes on as much input as the device has room for."""
        room = min(self._room(), _READ_AT_ONCE)
        if room > 0 and self._read_fd >= 0:
            try:
                data = os.read(self._read_fd, room)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data = b""
            if not data:
                self._lost()
                return
            if self._receive is not None:
                self._receive(data)
        self._watch()

    def _flush(self) -> None:
        """Writes what the descriptor takes of the queue."""
        if self._queue and self._write_fd >= 0:
            written = self._write_now(self._queue)
            del self._queue[:written]
            if written and self._writable is not None:
                self._writable()
        if self._write_fd >= 0:
            self._watch()

    def _write_now(self, data: bytes | bytearray) -> int:
        """Writes to the descriptor; returns how many bytes it took, 0 when it is full or gone."""
        try:
            return os.write(self._write_fd, data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            self._lost()
            return 0

    def _make_room(self, excess: int) -> None:
        """The queue is too long by ``excess`` bytes: the oldest ones go."""
        del self._queue[:excess]
        self.dropped += excess

    def write(self, data: bytes) -> int:
        """Takes all of ``data``; the oldest bytes go when nobody reads (64 KiB are kept)."""
        written = 0
        if not self._queue and self._write_fd >= 0:
            written = self._write_now(data)
            if written == len(data):
                return written
        self._queue += data[written:]
        if len(self._queue) > KEPT_BYTES:
            self._make_room(len(self._queue) - KEPT_BYTES)
        if self._write_fd >= 0:
            self._watch()
        return len(data)

    def close(self) -> None:
        """Stops watching; subclasses close what they opened."""
        self._detach()
