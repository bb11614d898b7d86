"""What the loader adds to an ELF image: the start-info structure and identity page tables.

Facts: public/arch-x86/hvm/start_info.h by protocol/start_info.py; Intel SDM volume 3, chapter 4
for the tables.
"""

from __future__ import annotations

import struct
from typing import Final

from ..errors import ImageError
from .flat import RamRegions, place

__all__ = ["build_page_tables", "build_start_info", "find_room"]

PAGE: Final = 0x1000
LOWEST: Final = 0x1000
"""The first page is the real-mode interrupt table."""
LEGACY: Final = (0xA0000, 0x100000)
"""A PC's video memory and firmware: not for structures, RAM or not."""
FOUR_GIB: Final = 1 << 32
LONGEST_COMMAND_LINE: Final = 0x10000
PRESENT_WRITABLE: Final = 3
LARGE: Final = 0x80
DIRECTORIES: Final = 4
"""Page directories: 4 GiB in pages of 2 MiB."""

Span = tuple[int, int]


def find_room(memory: RamRegions, length: int, occupied: list[Span]) -> int:
    """The lowest page-aligned GPA below 4 GiB where ``length`` bytes of RAM are free."""
    taken = sorted([*occupied, LEGACY, (0, LOWEST)])
    for base, size, _ in sorted(memory.regions):
        at, end = -(-base // PAGE) * PAGE, min(base + size, FOUR_GIB)
        for first, last in taken:
            if at + length <= first:
                break
            if last > at:
                at = -(-last // PAGE) * PAGE
        if at + length <= end:
            return at
    raise ImageError(f"the guest's RAM has no room for {length:#x} bytes beside the image")


def build_start_info(memory: RamRegions, cmdline: str, occupied: list[Span]) -> tuple[int, Span]:
    """Write hvm_start_info, the memory map and the command line; gives its GPA and what it uses."""
    # Imported here: construct takes as long as a small guest, which may need no such structure.
    from protocol.start_info import (
        HVM_MEMMAP_ENTRY,
        HVM_START_INFO,
        HVM_START_MAGIC,
        MemmapType,
    )

    text = cmdline.encode() + b"\0"
    if len(text) > LONGEST_COMMAND_LINE:
        raise ImageError(f"a command line of {len(text) - 1} bytes is too long")
    ram = sorted((gpa, size) for gpa, size, _ in memory.regions)
    entries = [{"addr": gpa, "size": size, "type": MemmapType.RAM} for gpa, size in ram]
    memmap = b"".join(HVM_MEMMAP_ENTRY.build(entry) for entry in entries)
    head = HVM_START_INFO.sizeof()
    memmap_offset = head + 7 & ~7
    text_offset = memmap_offset + len(memmap)
    length = text_offset + len(text)
    at = find_room(memory, length, occupied)
    info = HVM_START_INFO.build(
        {
            "magic": HVM_START_MAGIC,
            "nr_modules": 0,
            "modlist_paddr": 0,
            "cmdline_paddr": at + text_offset,
            "rsdp_paddr": 0,
            "memmap_paddr": at + memmap_offset,
            "memmap_entries": len(entries),
        }
    )
    place(memory, at, info.ljust(memmap_offset, b"\0") + memmap + text, "start info")
    return at, (at, at + length)


def build_page_tables(memory: RamRegions, occupied: list[Span]) -> int:
    """Write four-level tables that map the first 4 GiB to themselves; gives CR3."""
    at = find_room(memory, (2 + DIRECTORIES) * PAGE, occupied)
    pointers, first = at + PAGE, at + 2 * PAGE
    pages = struct.pack("<Q", pointers | PRESENT_WRITABLE).ljust(PAGE, b"\0")
    directories = [first + n * PAGE | PRESENT_WRITABLE for n in range(DIRECTORIES)]
    pages += struct.pack(f"<{DIRECTORIES}Q", *directories).ljust(PAGE, b"\0")
    leaves = [n << 21 | PRESENT_WRITABLE | LARGE for n in range(512 * DIRECTORIES)]
    place(memory, at, pages + struct.pack(f"<{len(leaves)}Q", *leaves), "page tables")
    return at
