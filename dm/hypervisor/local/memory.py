"""The guest's RAM as one mapped memory file, with its regions; and the dirty log.

Which guest-physical addresses are RAM, and where in the file they are, is the hypervisor's to say;
it is asked again after the guest gave pages back (IOREQ_TYPE_INVALIDATE), and when something is not
where RAM was, as a mapping on demand on Xen would find what has come since.
"""

from __future__ import annotations

from bisect import bisect_right
from mmap import mmap
from struct import Struct

from dm.device.platform import GuestMemory
from dm.errors import GuestError, HostError
from protocol import layouts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LocalMemory"]

PAGE_SHIFT = 12
LONGEST_ACCESS = 16 << 20
"""Bytes of one access, as on Xen: a device that is limited here is limited there."""
REGION = Struct(layouts.LOCAL_REGION_FORMAT)


class LocalMemory(GuestMemory):
    """RAM in the file ``descriptor``, which stays the caller's.

    ``ask`` gives the LOCAL_REGIONs, packed one after the other. ``modified`` is told (first GFN,
    count) of what was written while ``dirty_log`` is on.
    """

    def __init__(
        self, descriptor: int, ask: Callable[[], bytes], modified: Callable[[int, int], None]
    ) -> None:
        self._descriptor = descriptor
        self._ask = ask
        self._modified = modified
        self._map: mmap | None = None
        self._regions: list[tuple[int, int, int]] = []
        self._starts: list[int] = []
        self.dirty_log = False

    def take(self, packed: bytes) -> None:
        """Use these LOCAL_REGIONs from now on; HostError when they are not in the file."""
        regions = [
            (gpa, gpa + length, offset) for gpa, length, offset in REGION.iter_unpack(packed)
        ]
        size = max((end - gpa + offset for gpa, end, offset in regions), default=0)
        if size and (self._map is None or len(self._map) < size):
            try:
                self._map = mmap(self._descriptor, size)
            except (OSError, ValueError) as error:
                raise HostError(f"mmap of {size} bytes of guest memory: {error}") from None
        self._regions = sorted(regions)
        self._starts = [first for first, _, _ in self._regions]

    def read(self, gpa: int, length: int) -> bytes:
        """See `GuestMemory.read`."""
        pieces = self._pieces(gpa, length)
        memory = self._map
        if memory is None or not pieces:
            return b""
        if len(pieces) == 1:
            at, end = pieces[0]
            return memory[at:end]
        return b"".join([memory[at:end] for at, end in pieces])

    def write(self, gpa: int, data: bytes | bytearray | memoryview[int]) -> None:
        """See `GuestMemory.write`."""
        pieces = self._pieces(gpa, len(data))
        memory = self._map
        position = 0
        for at, end in pieces:
            if memory is not None:
                memory[at:end] = data[position : position + end - at]
            position += end - at
        if self.dirty_log and data:
            first = gpa >> PAGE_SHIFT
            self._modified(first, (gpa + len(data) - 1 >> PAGE_SHIFT) - first + 1)

    def _pieces(self, gpa: int, length: int) -> list[tuple[int, int]]:
        """Where in the file ``length`` bytes at ``gpa`` are: runs of (first, end) offsets."""
        if length < 0 or length > LONGEST_ACCESS:
            raise GuestError(f"an access of {length} bytes is too long")
        pieces, missing = self._find(gpa, length)
        if missing is None:
            return pieces
        if self._map is not None:
            # The guest may have got RAM there meanwhile, of which nobody tells emulators.
            self.take(self._ask())
            pieces, missing = self._find(gpa, length)
        if missing is not None:
            raise GuestError(f"GFN {missing >> PAGE_SHIFT:#x} is not RAM")
        return pieces

    def _find(self, gpa: int, length: int) -> tuple[list[tuple[int, int]], int | None]:
        """The runs of `_pieces`, and the first address that is in none of them."""
        pieces = []
        index = max(bisect_right(self._starts, gpa) - 1, 0)
        while length and index < len(self._regions):
            first, end, offset = self._regions[index]
            if not first <= gpa < end:
                break
            taken = min(length, end - gpa)
            pieces.append((offset + gpa - first, offset + gpa - first + taken))
            gpa += taken
            length -= taken
            index += 1
        return pieces, gpa if length else None

    def invalidate(self) -> None:
        """See `GuestMemory.invalidate`."""
        self.take(self._ask())

    def close(self) -> None:
        """Give the mapping up."""
        self._regions, self._starts = [], []
        self._map = None
