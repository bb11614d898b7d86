"""How accesses of many bytes and of many elements are cut: address arithmetic, no state.

Facts: xen/arch/x86/hvm/emulate.c (hvmemul_phys_mmio_access, hvmemul_virtual_to_linear).
"""

from __future__ import annotations

from collections.abc import Iterator

from .memory import PAGE_SIZE

__all__ = ["parts", "span", "to_border"]


def parts(address: int, size: int) -> Iterator[tuple[int, int]]:
    """Split a memory access: powers of two up to 8, the greatest first, none over a page's end."""
    while size:
        room = min(size, PAGE_SIZE - (address & 0xFFF))
        length = min(8, 1 << room.bit_length() - 1)
        yield address, length
        address += length
        size -= length


def to_border(address: int, size: int, *, down: bool) -> int:
    """How many elements from ``address`` on lie in its page; 0 when the first one does not."""
    offset = address & 0xFFF
    if offset + size > PAGE_SIZE:
        return 0
    return offset // size + 1 if down else (PAGE_SIZE - offset) // size


def span(address: int, size: int, count: int, *, down: bool) -> tuple[int, int]:
    """The first and last byte of ``count`` elements, of which the first is at ``address``."""
    if down:
        return address - size * (count - 1), address + size - 1
    return address, address + size * count - 1
