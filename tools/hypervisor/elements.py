"""How accesses of many bytes and of many elements are cut: address arithmetic, no state.

Facts: xen/arch/x86/hvm/emulate.c (hvmemul_phys_mmio_access, hvmemul_virtual_to_linear).
"""

from __future__ import annotations

from collections.abc import Iterator

from protocol import layouts

from .memory import PAGE_SIZE

__all__ = ["config_target", "crosses", "parts", "span", "to_border"]

WHOLE_SIZES = (1, 2, 4, 8)
DATA_PORT = layouts.PCI_CONFIG_DATA_PORT
CONFIG_ENABLE = layouts.PCI_CONFIG_ADDRESS_ENABLE_MASK
REGISTER_MASK = 0xFC


def crosses(address: int, size: int) -> bool:
    """Whether a memory access is made in `parts`: an odd size, or over the border of a page."""
    return (address & 0xFFF) + size > PAGE_SIZE or size not in WHOLE_SIZES


def config_target(latch: int, port: int) -> int | None:
    """Which configuration register an access at ``port`` means, ``SBDF << 32 | register``.

    ``latch``: what was written to 0xcf8. None: the port is not the data port, or the latch is off
    (arch/x86/hvm/ioreq.c: arch_ioreq_server_get_type_addr).
    """
    if port & ~3 != DATA_PORT or not latch & CONFIG_ENABLE:
        return None
    return (latch >> 8 & 0xFFFF) << 32 | latch & REGISTER_MASK | port & 3


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
