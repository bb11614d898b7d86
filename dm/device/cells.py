"""Where state lives: every register and declared field of a device has a cell in one flat region.

The layout follows from the declarations alone, so that the same class gives the same layout in
every process; the region itself is a slice of the machine's buffer, which may lie in a file.
"""

from __future__ import annotations

from .register import DeclarationError

__all__ = ["BULK", "Cell", "DeviceCells", "Layout"]

BULK = 256
"""Bytes; larger memory is too dear to be copied for each request."""

_FORMATS = {1: "B", 2: "H", 4: "I", 8: "Q"}


class Cell:
    """One named piece of state: an unsigned integer, or ``length`` bytes of memory.

    ``offset``: bytes into the device's region. ``size``: bytes. ``mask``: the bits that the value
    may have. ``reset``: the value after reset. ``bulk``: it is memory.
    """

    __slots__ = ("bulk", "mask", "name", "offset", "reset", "size")

    def __init__(
        self, name: str, offset: int, size: int, mask: int, reset: int, *, bulk: bool
    ) -> None:
        self.name = name
        self.offset = offset
        self.size = size
        self.mask = mask
        self.reset = reset
        self.bulk = bulk


class Layout:
    """The cells of a device class, placed in the order of being added, naturally aligned."""

    def __init__(self) -> None:
        self.cells: dict[str, Cell] = {}
        self.size = 0
        self._bulk_from: int | None = None

    def word(self, name: str, bits: int, reset: int = 0) -> None:
        """Add an unsigned integer of ``bits`` bits."""
        size = 1
        while size * 8 < bits:
            size *= 2
        if not 1 <= bits <= 64 or reset >> bits:
            raise DeclarationError(f"{name}: {reset:#x} does not fit into {bits} bits")
        self._add(name, size, (1 << bits) - 1, reset, bulk=False)

    def memory(self, name: str, length: int) -> None:
        """Add ``length`` bytes of memory, zero after reset."""
        if length < 1:
            raise DeclarationError(f"{name}: memory of {length} bytes")
        self._add(name, length, 0, 0, bulk=True)

    def _add(self, name: str, size: int, mask: int, reset: int, *, bulk: bool) -> None:
        if name in self.cells:
            raise DeclarationError(f"{name} is declared twice")
        alignment = 8 if bulk else size
        offset = -(-self.size // alignment) * alignment
        if size > BULK and self._bulk_from is None:
            self._bulk_from = offset
        self.cells[name] = Cell(name, offset, size, mask, reset, bulk=bulk)
        self.size = -(-(offset + size) // 8) * 8 if bulk else offset + size

    @property
    def small(self) -> int:
        """Bytes of the region before the first memory of more than BULK bytes."""
        return self.size if self._bulk_from is None else self._bulk_from

    @property
    def region_size(self) -> int:
        """Bytes of the whole region, a multiple of 8."""
        return -(-self.size // 8) * 8


class DeviceCells:
    """A layout over a region of the machine's buffer: typed views and bulk access."""

    def __init__(self, layout: Layout, region: memoryview[int]) -> None:
        self.layout = layout
        self.region = region
        self._views = {size: region.cast(code) for size, code in _FORMATS.items()}  # type: ignore[call-overload]

    def typed(self, name: str) -> tuple[memoryview[int], int]:
        """The view and the index in it at which the integer cell ``name`` stands."""
        cell = self.layout.cells[name]
        return self._views[cell.size], cell.offset // cell.size

    def memory(self, name: str) -> memoryview[int]:
        """A writable view of the memory cell ``name``."""
        cell = self.layout.cells[name]
        return self.region[cell.offset : cell.offset + cell.size]

    def reset(self) -> None:
        """Give every cell its reset value."""
        for cell in self.layout.cells.values():
            value = bytes(cell.size) if cell.bulk else cell.reset.to_bytes(cell.size, "little")
            self.region[cell.offset : cell.offset + cell.size] = value
