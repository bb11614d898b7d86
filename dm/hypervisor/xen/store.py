"""xenstore through libxenstore: the few calls that the hand-shake needs."""

from __future__ import annotations

from errno import ENOENT

from dm.hypervisor.interface import Store

from .ffi import POINTER, UINT, SharedObject, byref, get_errno
from .library import STORE, Library

__all__ = ["XenStore"]


class XenStore(Store):
    """A connection to xenstored. Paths may be absolute or relative to the own domain's home."""

    def __init__(self) -> None:
        self._library = Library(*STORE)
        self._handle = self._library.open(0)

    def read(self, path: str) -> str | None:
        """See `Store.read`."""
        from ctypes import string_at

        length = UINT()
        pointer = self._library.function("read")(self._handle, 0, path.encode(), byref(length))
        if not pointer:
            if get_errno() == ENOENT:
                return None
            raise self._library.error("read", path, get_errno())
        try:
            return string_at(pointer, length.value).decode("utf-8", "replace")
        finally:
            SharedObject(None).function("free", None, (POINTER,))(pointer)

    def write(self, path: str, value: str) -> None:
        """See `Store.write`."""
        data = value.encode()
        self._library.call("write", path, self._handle, 0, path.encode(), data, len(data))

    def remove(self, path: str) -> None:
        """See `Store.remove`."""
        if not self._library.function("rm")(self._handle, 0, path.encode()):
            errno = get_errno()
            if errno != ENOENT:
                raise self._library.error("rm", path, errno)

    def close(self) -> None:
        """See `Store.close`."""
        if self._handle:
            self._library.function("close")(self._handle)
            self._handle = None
