"""A memory file that holds a machine's flat buffer, so that a killed process has a successor.

The file has a header (magic, a checksum of the layout, guest time) and the buffer itself, mapped
shared: what a device stores is in the file at once. It is made under another name and renamed, so
a file that is being replaced keeps its bytes for who reads it, and an owner removes only its own.
"""

from __future__ import annotations

import mmap
import os
from struct import Struct
from time import monotonic_ns
from zlib import crc32

from dm.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .machine import Machine

__all__ = ["Survivor", "layout_checksum", "seal_over"]

HEADER = Struct("=8sIIQQ")
"""Magic, layout checksum, padding, guest time at the last start, host time then (0: stopped)."""
MAGIC = b"IOREQDM1"
CLOCK = Struct("=QQ")
CLOCK_OFFSET = 16
BUFFER_OFFSET = 64


class Survivor:
    """The memory file of one machine; ``path`` is where a successor looks for it."""

    def __init__(self, path: str, machine: Machine) -> None:
        self._path = path
        self._checksum = layout_checksum(machine)
        self._size = machine.state_size()
        self._identity: tuple[int, int] | None = None
        self._map: mmap.mmap | None = None

    def inherited(self) -> tuple[bytes, int] | None:
        """The buffer and the guest time that a predecessor left; None when nothing fits."""
        try:
            with open(self._path, "rb") as file:
                data = file.read(BUFFER_OFFSET + self._size + 1)
        except OSError:
            return None
        if len(data) != BUFFER_OFFSET + self._size:
            return None
        magic, checksum, _, elapsed, started = HEADER.unpack_from(data)
        if magic != MAGIC or checksum != self._checksum:
            return None
        return data[BUFFER_OFFSET:], elapsed if not started else _now_since(elapsed, started)

    def create(self) -> memoryview[int]:
        """Make a new file, in place of an old one; gives the zeroed buffer in it."""
        fresh = f"{self._path}.new"
        try:
            fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.ftruncate(fd, BUFFER_OFFSET + self._size)
                self._map = mmap.mmap(fd, BUFFER_OFFSET + self._size)
                status = os.fstat(fd)
            finally:
                os.close(fd)
            self._identity = (status.st_dev, status.st_ino)
            HEADER.pack_into(self._map, 0, MAGIC, self._checksum, 0, 0, 0)
            os.rename(fresh, self._path)
        except OSError as error:
            raise HostError(f"{self._path}: {error.strerror}", error.errno or 0) from None
        return memoryview(self._map)[BUFFER_OFFSET:]

    def clock_changed(self, elapsed: int, started: int) -> None:
        """Note the guest time at ``started`` of the host's monotonic clock (0: it stands still)."""
        if self._map is not None:
            CLOCK.pack_into(self._map, CLOCK_OFFSET, elapsed, started)

    def remove(self) -> None:
        """Remove the file, if the one at the path is still this one."""
        try:
            status = os.stat(self._path)
            if (status.st_dev, status.st_ino) == self._identity:
                os.unlink(self._path)
        except OSError:
            return


def seal_over(path: str | None, machine: Machine, *, inherit: bool) -> Survivor | None:
    """Seal ``machine`` over a memory file at ``path`` and connect it to its platform.

    ``inherit``: go on with what a predecessor left there, if its machine was the same. None as path
    makes a machine whose state ends with the process.
    """
    if path is None:
        machine.seal()
        machine.connect()
        return None
    survivor = Survivor(path, machine)
    inherited = survivor.inherited() if inherit else None
    machine.seal(survivor.create())
    machine.clock.changed = survivor.clock_changed
    if inherited is None:
        machine.connect()
    else:
        machine.inherit(*inherited)
    return survivor


def layout_checksum(machine: Machine) -> int:
    """A number that two machines share only if their buffers mean the same."""
    lines = [machine.kind]
    for device in machine.devices:
        kind = type(device)
        lines.append(f"{device.name} {kind.__module__}.{kind.__qualname__} {kind.version}")
        lines += [f"{c.name} {c.offset} {c.size}" for c in kind._layout.cells.values()]
    return crc32("\n".join(lines).encode())


def _now_since(elapsed: int, started: int) -> int:
    return elapsed + max(monotonic_ns() - started, 0)
