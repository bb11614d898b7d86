"""A memory file that holds a machine's flat buffer, so that a killed process has a successor.

One instant is not covered: while a live reload exchanges a device's state (dm/machine/reload.py),
the buffer means neither what it did nor what it will, and a successor begins with the reset values.

The file has a header (magic, a checksum of the layout, guest time), the journal, the buffer itself
and the journal's copies, mapped shared: what a device stores is in the file at once. It is made
under another name and gets its own when all that it inherits is in it, so that at every instant one
complete file is there; an owner removes only its own.
"""

from __future__ import annotations

import mmap
import os
from struct import Struct
from time import monotonic_ns
from zlib import crc32

from dm.errors import HostError

from .journal import JOURNAL_SIZE, roll_back

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .machine import Machine

    Inheritance = tuple[bytes, int]

__all__ = ["Survivor", "layout_checksum", "seal_over"]

HEADER = Struct("=8sIIQQ")
"""Magic, layout checksum, padding, guest time at the last start, host time then (or STOPPED)."""
STOPPED = (1 << 64) - 1
MAGIC = b"IOREQDM2"
CLOCK = Struct("=QQ")
CLOCK_OFFSET = 16
CHECKSUM = Struct("=I")
CHECKSUM_OFFSET = 8
NO_LAYOUT = 0
"""As checksum: what the buffer holds is of no use to a successor."""
JOURNAL_OFFSET = 64
BUFFER_OFFSET = JOURNAL_OFFSET + JOURNAL_SIZE


class Survivor:
    """The memory file of one machine; ``path`` is where a successor looks for it.

    ``now`` gives the time of the machine's host clock in nanoseconds, which goes on between a
    process and its successor.
    """

    def __init__(self, path: str, machine: Machine, now: Callable[[], int] = monotonic_ns) -> None:
        self._path = path
        self._now = now
        self._machine = machine
        self._checksum = layout_checksum(machine)
        self._size = machine.state_size()
        self._fresh = f"{path}.new"
        self._journal: tuple[bytes, frozenset[int]] | None = None
        self._identity: tuple[int, int] | None = None
        self._map: mmap.mmap | None = None

    def inherited(self, under_way: Iterable[int] = ()) -> Inheritance | None:
        """The buffer and the guest time that a predecessor left; None when nothing fits.

        ``under_way``: the vCPUs whose requests it had begun. They are undone.
        """
        begun = frozenset(under_way)
        whole = BUFFER_OFFSET + 2 * self._size
        try:
            with open(self._path, "rb") as file:
                data = file.read(whole + 1)
        except OSError:
            return None
        if len(data) != whole:
            return None
        magic, checksum, _, elapsed, started = HEADER.unpack_from(data)
        if magic != MAGIC or checksum != self._checksum or checksum == NO_LAYOUT:
            return None
        if started != STOPPED:
            elapsed += max(self._now() - started, 0)
        journal = data[JOURNAL_OFFSET:BUFFER_OFFSET]
        state = bytearray(data[BUFFER_OFFSET : BUFFER_OFFSET + self._size])
        kept = memoryview(data)[BUFFER_OFFSET + self._size :]
        roll_back(journal, kept, state, begun)
        self._journal = journal, begun
        return bytes(state), elapsed

    def create(self) -> memoryview[int]:
        """Make a new file, which nobody finds yet; gives the zeroed buffer in it."""
        whole = BUFFER_OFFSET + 2 * self._size
        try:
            fd = os.open(self._fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.ftruncate(fd, whole)
                self._map = mmap.mmap(fd, whole)
                status = os.fstat(fd)
            finally:
                os.close(fd)
            self._identity = (status.st_dev, status.st_ino)
            HEADER.pack_into(self._map, 0, MAGIC, self._checksum, 0, 0, STOPPED)
        except OSError as error:
            raise HostError(f"{self._path}: {error.strerror}", error.errno or 0) from None
        view = memoryview(self._map)
        kept = view[BUFFER_OFFSET + self._size :]
        self._machine.journal.use(view[JOURNAL_OFFSET:BUFFER_OFFSET], kept)
        return view[BUFFER_OFFSET : BUFFER_OFFSET + self._size]

    def publish(self) -> None:
        """Put the new file in the place of an old one: it holds all that was inherited."""
        if self._journal is not None:
            self._machine.journal.go_on(*self._journal)
        try:
            os.rename(self._fresh, self._path)
        except OSError as error:
            raise HostError(f"{self._path}: {error.strerror}", error.errno or 0) from None

    def layout_changes(self, done: bool) -> None:
        """Note that the buffer's bytes mean something else now, or (not ``done``) are about to."""
        self._checksum = layout_checksum(self._machine) if done else NO_LAYOUT
        if self._map is not None:
            CHECKSUM.pack_into(self._map, CHECKSUM_OFFSET, self._checksum)

    def clock_changed(self, elapsed: int, started: int) -> None:
        """Note the guest time at ``started`` of the host clock, or where it stands still."""
        if self._map is not None:
            at = started if self._machine.clock.running else STOPPED
            CLOCK.pack_into(self._map, CLOCK_OFFSET, elapsed, at)

    def remove(self) -> None:
        """Remove the file, if the one at the path is still this one."""
        try:
            status = os.stat(self._path)
            if (status.st_dev, status.st_ino) == self._identity:
                os.unlink(self._path)
        except OSError:
            return


def seal_over(
    path: str | None,
    machine: Machine,
    *,
    inherit: bool,
    now: Callable[[], int] = monotonic_ns,
    under_way: Iterable[int] = (),
) -> Survivor | None:
    """Seal ``machine`` over a memory file at ``path`` and connect it to its platform.

    ``inherit``: go on with what a predecessor left there, if its machine was the same. None as path
    makes a machine whose state ends with the process. ``now``: the machine's host clock.
    ``under_way``: the vCPUs whose requests the predecessor had begun and not answered.
    """
    if path is None:
        machine.seal()
        machine.connect()
        return None
    survivor = Survivor(path, machine, now)
    inherited = survivor.inherited(under_way) if inherit else None
    machine.seal(survivor.create())
    machine.clock.changed = survivor.clock_changed
    machine.layout_changes = survivor.layout_changes
    if inherited is None:
        machine.connect()
    else:
        machine.inherit(*inherited)
    survivor.publish()
    return survivor


def layout_checksum(machine: Machine) -> int:
    """A number that two machines share only if their buffers mean the same."""
    lines = [machine.kind if not machine.slack else f"{machine.kind} {machine.slack}"]
    for device in machine.devices:
        kind = type(device)
        lines.append(f"{device.name} {kind.__module__}.{kind.__qualname__} {kind.version}")
        lines += [f"{c.name} {c.offset} {c.size}" for c in kind._layout.cells.values()]
    return crc32("\n".join(lines).encode())
