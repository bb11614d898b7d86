"""Accesses of any length anywhere in guest-physical memory: RAM directly, the rest by a vCPU."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from protocol import layouts

if TYPE_CHECKING:
    from ...memory import MemoryRegion
    from ...vcpu import Vcpu

__all__ = ["GuestAccess"]

MEMORY = layouts.IO_RANGE_TYPE_MEMORY
WIDEST = 8
"""Bytes of the widest access of a processor."""


class GuestAccess:
    """What one vCPU's loads and stores reach. All of them raise DomainEnded when it has ended.

    A block that is not RAM is moved in naturally aligned accesses, as wide as fits.
    """

    def __init__(self, vcpu: Vcpu) -> None:
        self._vcpu = vcpu
        self._memory = vcpu.domain.memory

    def load(self, gpa: int, size: int) -> int:
        """A load of 1, 2, 4 or 8 bytes."""
        region = self._memory.find(gpa)
        if region is None and self._hole(gpa) >= size:
            return self._vcpu.read(MEMORY, gpa, size)
        return int.from_bytes(self.read(gpa, size), "little")

    def store(self, gpa: int, size: int, value: int) -> None:
        """A store of the low 1, 2, 4 or 8 bytes of ``value``."""
        region = self._memory.find(gpa)
        if region is None and self._hole(gpa) >= size:
            self._vcpu.write(MEMORY, gpa, size, value)
        else:
            self.write(gpa, (value & (1 << 8 * size) - 1).to_bytes(size, "little"))

    def read(self, gpa: int, length: int) -> bytes:
        """``length`` bytes."""
        pieces = []
        while length:
            part, region = self._part(gpa, length)
            if region is not None:
                pieces.append(self._memory.read(gpa, part))
            else:
                part = _aligned(gpa, part)
                pieces.append(self._vcpu.read(MEMORY, gpa, part).to_bytes(part, "little"))
            gpa += part
            length -= part
        return b"".join(pieces)

    def write(self, gpa: int, data: bytes) -> None:
        """Store ``data``."""
        position, length = 0, len(data)
        while position < length:
            at = gpa + position
            part, region = self._part(at, length - position)
            if region is not None:
                self._memory.write(at, data[position : position + part])
            else:
                part = _aligned(at, part)
                value = int.from_bytes(data[position : position + part], "little")
                self._vcpu.write(MEMORY, at, part, value)
            position += part

    def _part(self, gpa: int, length: int) -> tuple[int, MemoryRegion | None]:
        """How many of ``length`` bytes are in one region, or in one hole."""
        region = self._memory.find(gpa)
        if region is None:
            return min(length, self._hole(gpa)), None
        return min(length, region.gpa + region.size - gpa), region

    def _hole(self, gpa: int) -> int:
        """Bytes from ``gpa``, which is not RAM, to the next RAM or the end."""
        regions = self._memory.regions
        index = bisect_right(regions, gpa, key=lambda region: region.gpa)
        end = regions[index].gpa if index < len(regions) else 1 << 64
        return end - gpa


def _aligned(gpa: int, length: int) -> int:
    """Bytes of the widest naturally aligned access at ``gpa`` that is not longer."""
    size = WIDEST
    while size > length or gpa & size - 1:
        size >>= 1
    return size
