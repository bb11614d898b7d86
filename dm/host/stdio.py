"""The process's own standard input and output as back end.

Under libxl they are /dev/null and the log file, whose growth libxl of Xen 4.17 bounds by an
environment variable (XSA-180): a guest must not fill the host's disk through its serial port.
"""

from __future__ import annotations

import os
import termios

from dm.host.pty import make_raw
from dm.host.stream import StreamChardev

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dm.host.chardev import Loop

__all__ = ["StdioChardev"]

_LIMIT_VARIABLE = "XEN_QEMU_CONSOLE_LIMIT"


def _limit() -> int | None:
    """How many bytes may be written in all, or None for no limit."""
    text = os.environ.get(_LIMIT_VARIABLE, "")
    return int(text) if text.isascii() and text.isdigit() and text != "0" else None


class StdioChardev(StreamChardev):
    """Descriptors 0 and 1; a terminal is raw until :meth:`close`.

    :param signals: whether the terminal's keys for signals keep their meaning.
    """

    kind = "stdio"

    def __init__(
        self, label: str, loop: Loop, *, signals: bool = True, read_fd: int = 0, write_fd: int = 1
    ) -> None:
        super().__init__(label, loop)
        self._left = _limit()
        self._terminal: list[object] | None = None
        self._blocking: list[tuple[int, bool]] = []
        if os.isatty(read_fd):
            self._terminal = list(termios.tcgetattr(read_fd))
            make_raw(read_fd, signals)
        self._stdin = read_fd
        self._plain_fd = -1
        for fd in (read_fd, write_fd):
            self._blocking.append((fd, os.get_blocking(fd)))
            os.set_blocking(fd, False)
        readable = read_fd if self._waitable(read_fd) else -1
        if self._waitable(write_fd):
            self._attach(readable, write_fd)
        else:
            # A regular file takes everything at once; epoll refuses it.
            self._plain_fd = write_fd
            self._attach(readable, -1)

    def _waitable(self, fd: int) -> bool:
        """Whether epoll accepts the descriptor; regular files and /dev/null it refuses."""
        try:
            self._loop.add(fd, 0, self._ready)
        except PermissionError:
            return False
        self._loop.remove(fd)
        return True

    def _lost(self) -> None:
        """End of input: the output goes on."""
        write_fd = self._write_fd
        self._detach()
        if write_fd >= 0 and write_fd != self._read_fd:
            self._write_fd = write_fd

    def write(self, data: bytes) -> int:
        """Takes everything; beyond the limit of libxl it is dropped."""
        taken = data if self._left is None else data[: self._left]
        if self._left is not None:
            self._left -= len(taken)
            self.dropped += len(data) - len(taken)
        if self._plain_fd < 0:
            super().write(taken)
        elif taken:
            try:
                self.dropped += len(taken) - os.write(self._plain_fd, taken)
            except OSError:
                self.dropped += len(taken)
        return len(data)

    def close(self) -> None:
        """Gives the terminal and the descriptors back as they were; closes neither."""
        super().close()
        if self._terminal is not None:
            termios.tcsetattr(self._stdin, termios.TCSANOW, self._terminal)  # type: ignore[arg-type]
            self._terminal = None
        for fd, blocking in self._blocking:
            os.set_blocking(fd, blocking)
        self._blocking = []
        self._plain_fd = -1
