"""Linear addresses: how a processor's page tables lead to guest-physical memory.

For what the engine itself does in the guest's name: reading descriptors, pushing frames, finding
the buffers of string instructions. The library walks the tables for everything else.

Facts: Intel SDM volume 3, chapter 4. Not checked: reserved bits, protection keys, SMAP and SMEP.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ...errors import NotRamError
from ...memory import GuestMemory
from .registers import Registers

__all__ = ["FaultError", "LinearMemory", "UnreachableError"]

PAGE: Final = 0x1000
PRESENT, WRITABLE, ACCESSED, DIRTY, LARGE = 1, 2, 1 << 5, 1 << 6, 1 << 7
FRAME: Final = 0x000FFFFFFFFFF000
WRITE_PROTECT: Final = 1 << 16
PSE, PAE = 1 << 4, 1 << 5
PAGE_FAULT: Final = 14
WRITE_ERROR: Final = 2


class FaultError(Exception):
    """An exception that the processor raises: vector, error code (None: it has none), and CR2."""

    def __init__(self, vector: int, error_code: int | None = None, cr2: int | None = None) -> None:
        super().__init__(f"exception {vector}")
        self.vector = vector
        self.error_code = error_code
        self.cr2 = cr2


class UnreachableError(Exception):
    """The guest's tables or stacks are where no RAM is; what a processor does then is undefined."""


class Level(NamedTuple):
    """One level of tables: the lowest address bit of its index, the index's bits, large pages."""

    shift: int
    bits: int
    large: bool


class Scheme(NamedTuple):
    """A paging mode: bytes of an entry, the bits of CR3 that are the root's address, its levels."""

    entry: int
    root: int
    levels: tuple[Level, ...]


LEGACY: Final = Scheme(4, 0xFFFFF000, (Level(22, 10, True), Level(12, 10, False)))
LEGACY_SMALL: Final = Scheme(4, 0xFFFFF000, (Level(22, 10, False), Level(12, 10, False)))
WITH_PAE: Final = Scheme(
    8, 0xFFFFFFE0, (Level(30, 2, False), Level(21, 9, True), Level(12, 9, False))
)
LONG: Final = Scheme(
    8, FRAME, (Level(39, 9, False), Level(30, 9, True), Level(21, 9, True), Level(12, 9, False))
)


class LinearMemory:
    """Guest memory by linear address, as supervisor code reaches it."""

    def __init__(self, registers: Registers, memory: GuestMemory) -> None:
        self._registers = registers
        self._memory = memory

    def translate(self, linear: int, *, write: bool = False) -> int:
        """The GPA of a linear address. FaultError: a page fault. UnreachableError: no RAM there."""
        registers = self._registers
        if not registers.long:
            linear &= 0xFFFFFFFF
        if not registers.paging:
            return linear
        scheme = self._scheme()
        table = registers.cr(3) & scheme.root
        writable = True
        for level in scheme.levels:
            index = linear >> level.shift & (1 << level.bits) - 1
            at = table + index * scheme.entry
            entry = self._entry(at, scheme.entry)
            if not entry & PRESENT:
                raise FaultError(PAGE_FAULT, WRITE_ERROR if write else 0, linear)
            # The entries of the four-entry table of PAE have no such bits.
            is_pointer = scheme is WITH_PAE and level.shift == 30
            writable = writable and (is_pointer or bool(entry & WRITABLE))
            last = level.shift == 12 or (level.large and bool(entry & LARGE))
            if last and write and not writable and registers.cr(0) & WRITE_PROTECT:
                raise FaultError(PAGE_FAULT, WRITE_ERROR | PRESENT, linear)
            marks = 0 if is_pointer else ACCESSED | (DIRTY if last and write else 0)
            if entry & marks != marks:
                self._memory.write(at, (entry | marks).to_bytes(scheme.entry, "little"))
            if last:
                offset = (1 << level.shift) - 1
                return _base(entry, scheme, level) & ~offset | linear & offset
            table = entry & (FRAME if scheme.entry == 8 else 0xFFFFF000)
        raise AssertionError("the last level has pages of 4 KiB")

    def read(self, linear: int, length: int) -> bytes:
        """Bytes at a linear address. FaultError, UnreachableError."""
        out = b""
        for at, part in _pages(linear, length):
            try:
                out += self._memory.read(self.translate(at), part)
            except NotRamError as error:
                raise UnreachableError(str(error)) from None
        return out

    def write(self, linear: int, data: bytes) -> None:
        """Store at a linear address; nothing is stored if any part faults. Raises as `read`."""
        targets = [(self.translate(at, write=True), part) for at, part in _pages(linear, len(data))]
        done = 0
        for gpa, part in targets:
            try:
                self._memory.write(gpa, data[done : done + part])
            except NotRamError as error:
                raise UnreachableError(str(error)) from None
            done += part

    def _scheme(self) -> Scheme:
        if self._registers.long:
            return LONG
        cr4 = self._registers.cr(4)
        return WITH_PAE if cr4 & PAE else LEGACY if cr4 & PSE else LEGACY_SMALL

    def _entry(self, at: int, size: int) -> int:
        try:
            return int.from_bytes(self._memory.read(at, size), "little")
        except NotRamError:
            raise UnreachableError(f"a page table at {at:#x}, where no RAM is") from None


def _base(entry: int, scheme: Scheme, level: Level) -> int:
    """The address in a leaf; a 4 MiB page has its bits 32 to 39 in the entry's bits 13 to 20."""
    if scheme.entry == 8:
        return entry & FRAME
    if level.shift == 22:
        return entry & 0xFFC00000 | (entry & 0x1FE000) << 19
    return entry & 0xFFFFF000


def _pages(linear: int, length: int) -> list[tuple[int, int]]:
    """Cut a range of linear addresses at the borders of pages."""
    out = []
    while length:
        part = min(length, PAGE - (linear & (PAGE - 1)))
        out.append((linear, part))
        linear += part
        length -= part
    return out
