"""How KVM is asked for anything: one ioctl by the C library.

Not fcntl.ioctl: from Python 3.14 on that begins an interrupted call again, and being interrupted is
how a vCPU comes to rest; it takes no argument beyond 31 bits either.
"""

from __future__ import annotations

import ctypes as c
import os

__all__ = ["attempt", "control"]

_ioctl = c.CDLL(None, use_errno=True).ioctl
_ioctl.argtypes = (c.c_int, c.c_ulong, c.c_ulong)


def control(fd: int, request: int, argument: int | c.Structure | c.c_uint64 = 0) -> int:
    """Make a request with a number or a structure, which the kernel may change. Raises OSError."""
    value = argument if isinstance(argument, int) else c.addressof(argument)
    result: int = _ioctl(fd, request, value)
    if result < 0:
        error = c.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def attempt(fd: int, request: int) -> int:
    """Make a request; gives 0, or the error number."""
    return c.get_errno() if _ioctl(fd, request, 0) < 0 else 0
