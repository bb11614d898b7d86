"""C types and calls: as much of ctypes as this package needs, at a quarter of its start.

ctypes makes some sixty types while it is imported, which costs a starting process more than all
devices together. Its C half, `_ctypes`, does the work; what is used of it here is what ctypes has
used since Python 3.3. Objects of both mix freely.
"""

from __future__ import annotations

from _ctypes import (
    FUNCFLAG_CDECL,
    FUNCFLAG_USE_ERRNO,
    CFuncPtr,
    _SimpleCData,
    byref,
    dlopen,
    get_errno,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    class Integer(_SimpleCData[int]):
        """Takes and gives an int."""

    class Boolean(_SimpleCData[bool]):
        """Takes and gives a bool."""

    class String(_SimpleCData[bytes]):
        """Takes and gives bytes."""
else:
    Integer = Boolean = String = _SimpleCData

__all__ = [
    "BOOL",
    "INT",
    "POINTER",
    "STRING",
    "U8",
    "U16",
    "U32",
    "U64",
    "UINT",
    "ULONG",
    "SharedObject",
    "byref",
    "get_errno",
]


class INT(Integer):
    """int."""

    _type_ = "i"


class U8(Integer):
    """uint8_t."""

    _type_ = "B"


class U16(Integer):
    """uint16_t."""

    _type_ = "H"


class U32(Integer):
    """uint32_t, unsigned int."""

    _type_ = "I"


class U64(Integer):
    """uint64_t, unsigned long, size_t: Xen's x86 hosts are all 64-bit."""

    _type_ = "L"


class BOOL(Boolean):
    """bool."""

    _type_ = "?"


class STRING(String):
    """const char *, from bytes."""

    _type_ = "z"


class POINTER(Integer):
    """Any pointer; takes ``byref`` of an object, an array, bytes, an address or None."""

    _type_ = "P"


UINT, ULONG = U32, U64


class _Function(CFuncPtr):
    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
    _restype_ = INT


class SharedObject:
    """A shared object, loaded as dlopen does with ``name`` (None: this process).

    OSError when it cannot be loaded.
    """

    def __init__(self, name: str | None) -> None:
        self._handle = dlopen(name, 0)  # type: ignore[arg-type]
        self._name = name

    def function(self, name: str, result: Any, arguments: tuple[Any, ...]) -> Any:
        """The function ``name`` with its prototype; AttributeError when there is none."""
        function = _Function((name, self))  # type: ignore[arg-type]
        function.restype = result
        function.argtypes = arguments
        return function
