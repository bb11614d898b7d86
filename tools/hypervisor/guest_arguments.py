"""The structures that a hypercall's arguments point to, in guest memory.

Addresses are guest-physical: guests call with paging off, or with memory mapped to itself.
"""

from __future__ import annotations

from errno import EFAULT
from struct import Struct
from typing import TYPE_CHECKING, Any

from .errors import HypercallError

if TYPE_CHECKING:
    from .memory import GuestMemory

__all__ = ["GuestArguments"]


class GuestArguments:
    """Reads and writes for one caller. ``wide``: it runs 64-bit code.

    HypercallError, EFAULT: the address is not RAM.
    """

    def __init__(self, memory: GuestMemory, *, wide: bool) -> None:
        self._memory = memory
        self.wide = wide

    def read(self, structure: Struct, at: int) -> tuple[Any, ...]:
        """The fields of the structure at ``at``."""
        return structure.unpack(self.read_bytes(at, structure.size))

    def write(self, structure: Struct, at: int, *values: Any) -> None:
        """Store the fields of the structure at ``at``."""
        self.write_bytes(at, structure.pack(*values))

    def read_bytes(self, at: int, length: int) -> bytes:
        """``length`` bytes at ``at``, which may lie on both sides of a border of regions."""
        data = b""
        while len(data) < length:
            part = self._part(at + len(data), length - len(data))
            data += self._memory.read(at + len(data), part)
        return data

    def write_bytes(self, at: int, data: bytes) -> None:
        """Store ``data`` at ``at``."""
        done = 0
        while done < len(data):
            part = self._part(at + done, len(data) - done)
            self._memory.write(at + done, data[done : done + part])
            done += part

    def _part(self, at: int, length: int) -> int:
        region = self._memory.find(at)
        if region is None:
            raise HypercallError(EFAULT, f"there is no RAM at {at:#x}")
        return min(length, region.gpa + region.size - at)
