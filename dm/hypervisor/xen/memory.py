"""The guest's RAM through libxenforeignmemory: a bounded cache of mappings, and the dirty log.

GFNs are mapped in aligned buckets. A page that is a hole at the time of mapping is noted and never
touched (touching it would be SIGBUS); an access to it maps the bucket again once, since the guest
may have populated it meanwhile. A mapping keeps showing the old page after the guest gave the page
back, so IOREQ_TYPE_INVALIDATE drops everything.
"""

from __future__ import annotations

from mmap import PROT_READ, PROT_WRITE

from dm.device.platform import GuestMemory
from dm.errors import GuestError

from .ffi import INT, POINTER, U8, U64, byref
from .library import FOREIGNMEMORY, Library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

__all__ = ["ForeignMemory", "MapCache"]

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT
BUCKET_PAGES = 64
BUCKET_SHIFT = PAGE_SHIFT + 6
BUCKET_LIMIT = 256
"""At most 64 MiB of the guest are mapped at a time."""
LAST_ADDRESS = (1 << 52) - 1
LONGEST_ACCESS = 16 << 20
"""Bytes of one access: far fewer than what may be mapped, so that no piece of it is evicted."""


class ForeignMemory:
    """A handle of libxenforeignmemory for one domain."""

    def __init__(self, domid: int) -> None:
        self.domid = domid
        self.library = Library(*FOREIGNMEMORY)
        self.handle = self.library.open(None, 0)

    def map_pages(self, first_gfn: int, count: int) -> tuple[int, bytes]:
        """Map ``count`` GFNs; gives the address and, for each page, 1 if it is there, else 0."""
        gfns = (U64 * count)(*range(first_gfn, first_gfn + count))
        errors = (INT * count)()
        address = self.library.call(
            "map",
            f"domain {self.domid}",
            self.handle,
            self.domid,
            PROT_READ | PROT_WRITE,
            count,
            gfns,
            errors,
        )
        return address, bytes(0 if error else 1 for error in errors)

    def unmap_pages(self, address: int, count: int) -> None:
        """Undo `map_pages`."""
        self.library.call("unmap", f"domain {self.domid}", self.handle, address, count)

    def map_resource(self, kind: int, resource: int, frame: int, count: int) -> tuple[int, Any]:
        """Map frames of a resource (XENMEM_acquire_resource); gives the address and a handle."""
        address = POINTER()
        mapped = self.library.call(
            "map_resource",
            f"domain {self.domid}",
            self.handle,
            self.domid,
            kind,
            resource,
            frame,
            count,
            byref(address),
            PROT_READ | PROT_WRITE,
            0,
        )
        return address.value or 0, mapped

    def unmap_resource(self, mapped: Any) -> None:
        """Undo `map_resource`."""
        self.library.call("unmap_resource", f"domain {self.domid}", self.handle, mapped)

    def close(self) -> None:
        """Close the handle."""
        if self.handle:
            self.library.call("close", "", self.handle)
            self.handle = None


class _Bucket:
    __slots__ = ("address", "present", "view")

    def __init__(self, address: int, present: bytes) -> None:
        self.address = address
        self.present = present
        size = len(present) << PAGE_SHIFT
        self.view = memoryview((U8 * size).from_address(address)).cast("B")


class MapCache(GuestMemory):
    """Guest memory over anything that maps pages as `ForeignMemory` does.

    ``modified`` is told (first GFN, count) of what was written while the dirty log is on.
    """

    def __init__(
        self,
        map_pages: Callable[[int, int], tuple[int, bytes]],
        unmap_pages: Callable[[int, int], None],
        modified: Callable[[int, int], None],
    ) -> None:
        self._map = map_pages
        self._unmap = unmap_pages
        self._modified = modified
        self._buckets: dict[int, _Bucket] = {}
        self.dirty_log = False

    def read(self, gpa: int, length: int) -> bytes:
        """See `GuestMemory.read`."""
        return b"".join([bytes(piece) for piece in self._pieces(gpa, length)])

    def write(self, gpa: int, data: bytes | bytearray | memoryview[int]) -> None:
        """See `GuestMemory.write`."""
        pieces = list(self._pieces(gpa, len(data)))
        position = 0
        for piece in pieces:
            piece[:] = data[position : position + len(piece)]
            position += len(piece)
        if self.dirty_log and data:
            first = gpa >> PAGE_SHIFT
            self._modified(first, (gpa + len(data) - 1 >> PAGE_SHIFT) - first + 1)

    def _pieces(self, gpa: int, length: int) -> Iterator[memoryview[int]]:
        if length < 0 or gpa < 0 or gpa + length - 1 > LAST_ADDRESS:
            raise GuestError(f"{length} bytes at {gpa:#x} lie outside the address space")
        if length > LONGEST_ACCESS:
            raise GuestError(f"an access of {length} bytes is too long")
        while length > 0:
            bucket = self._bucket(gpa)
            offset = gpa & (1 << BUCKET_SHIFT) - 1
            take = min(length, (1 << BUCKET_SHIFT) - offset)
            pages = bucket.present[offset >> PAGE_SHIFT : (offset + take - 1 >> PAGE_SHIFT) + 1]
            if 0 in pages:
                bucket = self._again(gpa, offset, take)
            yield bucket.view[offset : offset + take]
            gpa += take
            length -= take

    def _bucket(self, gpa: int) -> _Bucket:
        number = gpa >> BUCKET_SHIFT
        bucket = self._buckets.pop(number, None)
        if bucket is None:
            while len(self._buckets) >= BUCKET_LIMIT:
                self._drop(next(iter(self._buckets)))
            bucket = _Bucket(*self._map(number << BUCKET_SHIFT - PAGE_SHIFT, BUCKET_PAGES))
        self._buckets[number] = bucket
        return bucket

    def _again(self, gpa: int, offset: int, length: int) -> _Bucket:
        """Map the bucket anew: a page that was a hole may have been populated since."""
        self._drop(gpa >> BUCKET_SHIFT)
        bucket = self._bucket(gpa)
        first = offset >> PAGE_SHIFT
        pages = bucket.present[first : (offset + length - 1 >> PAGE_SHIFT) + 1]
        hole = pages.find(0)
        if hole >= 0:
            gfn = (gpa - offset >> PAGE_SHIFT) + first + hole
            raise GuestError(f"GFN {gfn:#x} is not RAM")
        return bucket

    def _drop(self, number: int) -> None:
        bucket = self._buckets.pop(number)
        bucket.view.release()
        self._unmap(bucket.address, len(bucket.present))

    def invalidate(self) -> None:
        """See `GuestMemory.invalidate`."""
        for number in list(self._buckets):
            self._drop(number)

    @property
    def mapped_pages(self) -> int:
        """How many GFNs are mapped now."""
        return sum(len(bucket.present) for bucket in self._buckets.values())
