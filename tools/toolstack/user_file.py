"""How a file that a user wrote by hand is read: whole, or refused in one line."""

from __future__ import annotations

from pathlib import Path

from .errors import ToolstackError

__all__ = ["read_user_file"]

LARGEST = 256 << 10


def read_user_file(path: Path) -> bytes:
    """The bytes of ``path``. ToolstackError: it cannot be read, or has more than 256 KiB."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise ToolstackError(f"{path}: {error.strerror}") from None
    if len(data) > LARGEST:
        raise ToolstackError(f"{path}: more than {LARGEST >> 10} KiB")
    return data
