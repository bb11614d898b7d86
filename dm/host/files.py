"""Back ends that only take output: a file, and a ring in memory."""

from __future__ import annotations

import os

from dm.errors import ConfigError
from dm.host.chardev import KEPT_BYTES, Chardev

__all__ = ["FileChardev", "RingChardev"]

_RING_LIMIT = 16 << 20


class FileChardev(Chardev):
    """Output into a file, which is emptied first unless ``append``; a full disk loses bytes.

    Raises OSError when the file cannot be opened. A named pipe without a reader cannot.
    """

    kind = "file"

    def __init__(self, label: str, path: str, *, append: bool = False) -> None:
        super().__init__(label)
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        self._fd = os.open(path, flags | (os.O_APPEND if append else os.O_TRUNC), 0o666)

    def write(self, data: bytes) -> int:
        """Takes everything; what the file does not take is counted in ``dropped``."""
        if self._fd < 0:
            return 0
        try:
            written = os.write(self._fd, data)
        except OSError:
            written = 0
        self.dropped += len(data) - written
        return len(data)

    def close(self) -> None:
        """Closes the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class RingChardev(Chardev):
    """The newest output, kept in memory.

    :param size: bytes to keep, a power of two of at most 16 MiB; 64 KiB when empty.
    """

    kind = "ringbuf"

    def __init__(self, label: str, size: str = "", origin: str = "") -> None:
        super().__init__(label)
        self._size = _ring_size(size, origin)
        self._data = bytearray()

    def write(self, data: bytes) -> int:
        """Takes everything; the oldest bytes go."""
        self._data += data
        excess = len(self._data) - self._size
        if excess > 0:
            del self._data[:excess]
            self.dropped += excess
        return len(data)

    def read(self) -> bytes:
        """Takes out what is kept, oldest first."""
        data = bytes(self._data)
        self._data.clear()
        return data


def _ring_size(text: str, origin: str) -> int:
    if not text:
        return KEPT_BYTES
    size = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0
    if size <= 0 or size & (size - 1) or size > _RING_LIMIT:
        raise ConfigError(f"{origin}: the size must be a power of two up to {_RING_LIMIT}")
    return size
