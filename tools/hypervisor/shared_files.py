"""Files that emulators share with the hypervisor, and what a hostile one can do to them.

A shared descriptor is one open file for both sides: an emulator can truncate a memory file, fill an
eventfd to its limit, drain it, and change whether it blocks. So memory files are sealed, nothing is
read from an eventfd in a way that its flags decide, and one that has no room is not written to. (An
emulator that fills a blocking eventfd between the look and the write makes the writer wait for it;
Linux has no write that could not be held so.)

Facts: memfd_create(2), fcntl(2) on F_ADD_SEALS, eventfd(2), preadv2(2) on RWF_NOWAIT.
"""

from __future__ import annotations

import fcntl
import os
import select
import weakref

__all__ = ["SharedEvent", "drain", "sealed_file"]

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
COUNT_SIZE = 8
NO_OFFSET = -1
"""Where preadv2 reads a file that has no positions."""


def sealed_file(name: str, size: int) -> int:
    """The descriptor of a memory file of ``size`` zero bytes, which nobody can resize. OSError."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    except OSError:
        os.close(fd)
        raise
    return fd


def drain(fd: int) -> None:
    """Take the count of an eventfd that an emulator shares, without waiting."""
    try:
        os.preadv(fd, [bytearray(COUNT_SIZE)], NO_OFFSET, os.RWF_NOWAIT)
    except BlockingIOError:
        return


class SharedEvent:
    """An eventfd that an emulator waits for; ``fd`` is its descriptor until `close`. OSError.

    ``count``: what it holds at first. One thread raises it at a time.
    """

    __slots__ = ("__weakref__", "_close", "_poller", "fd")

    def __init__(self, count: int = 0) -> None:
        self.fd = os.eventfd(count, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._close = weakref.finalize(self, os.close, self.fd)
        self._poller = select.poll()
        self._poller.register(self.fd, select.POLLOUT)

    def raise_it(self) -> None:
        """Raise it; one that the emulator has filled is raised already."""
        if self._poller.poll(0):
            try:
                os.eventfd_write(self.fd, 1)
            except BlockingIOError:
                return

    def close(self) -> None:
        """Close the descriptor; the emulator has its own."""
        self._close()
        self.fd = -1
