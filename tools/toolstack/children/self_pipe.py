"""A pipe to oneself: how a signal handler or another thread wakes an event loop.

Both ends are non-blocking and close-on-exec. libxl's were neither at first (contract §8.5): a
handler that writes to a full blocking pipe, which only the interrupted thread would drain, never
returns. A full pipe is success, since a wake-up is then pending anyhow.
"""

from __future__ import annotations

import os

from tools.toolstack.errors import HostFailure

__all__ = ["SelfPipe"]

CHUNK = 4096


class SelfPipe:
    """``reader`` is readable while a wake-up is pending; ``writer`` suits signal.set_wakeup_fd.

    HostFailure: the process can have no more descriptors.
    """

    __slots__ = ("reader", "writer")

    def __init__(self) -> None:
        try:
            self.reader, self.writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise HostFailure(f"pipe2, for wake-ups: {error.strerror}") from None

    def wake(self, mark: bytes = b"\0") -> None:
        """Make ``reader`` readable. Callable from a signal handler and from any thread.

        EINTR is retried (by os.write, PEP 475). HostFailure: the pipe is no more what it was,
        for example because somebody has closed a descriptor that was not theirs.
        """
        try:
            os.write(self.writer, mark)
        except BlockingIOError:
            pass
        except OSError as error:
            raise HostFailure(f"write, to wake the event loop: {error.strerror}") from None

    def drain(self) -> bytes:
        """Take all wake-ups; gives their marks. HostFailure as for `wake`."""
        marks = b""
        try:
            while True:
                chunk = os.read(self.reader, CHUNK)
                marks += chunk
                if len(chunk) < CHUNK:
                    return marks
        except BlockingIOError:
            return marks
        except OSError as error:
            raise HostFailure(f"read, of the event loop's wake-ups: {error.strerror}") from None

    def close(self) -> None:
        """Close both ends."""
        os.close(self.reader)
        os.close(self.writer)
