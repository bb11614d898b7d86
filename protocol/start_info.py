"""The start-of-day structure that a PVH kernel, and hvmloader, find through EBX.

Source: Xen's public/arch-x86/hvm/start_info.h.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from construct import Const, Default, Int32ul, Int64ul, Struct

__all__ = [
    "HVM_MEMMAP_ENTRY",
    "HVM_MODLIST_ENTRY",
    "HVM_START_INFO",
    "HVM_START_MAGIC",
    "HVM_START_VERSION",
    "MemmapType",
]

HVM_START_MAGIC: Final = 0x336EC578
"""First word: the text xEn3 with bit 7 of the E set."""

HVM_START_VERSION: Final = 1
"""Version that added the memory map."""


class MemmapType(IntEnum):
    """Kinds of memory in the memory map: ACPI 6.2, section 15."""

    RAM = 1
    RESERVED = 2
    ACPI = 3
    NVS = 4
    UNUSABLE = 5
    DISABLED = 6
    PMEM = 7


HVM_START_INFO: Final = "hvm_start_info" / Struct(
    "magic" / Const(HVM_START_MAGIC, Int32ul),
    "version" / Default(Int32ul, HVM_START_VERSION),
    "flags" / Default(Int32ul, 0),
    "nr_modules" / Int32ul,
    "modlist_paddr" / Int64ul,
    "cmdline_paddr" / Int64ul,
    "rsdp_paddr" / Int64ul,
    "memmap_paddr" / Int64ul,
    "memmap_entries" / Int32ul,
    "reserved" / Default(Int32ul, 0),
)
"""The structure; an address of 0 means that there is no such thing."""

HVM_MODLIST_ENTRY: Final = "hvm_modlist_entry" / Struct(
    "paddr" / Int64ul,
    "size" / Int64ul,
    "cmdline_paddr" / Int64ul,
    "reserved" / Default(Int64ul, 0),
)
"""One module: address and size in bytes, and its command line."""

HVM_MEMMAP_ENTRY: Final = "hvm_memmap_table_entry" / Struct(
    "addr" / Int64ul,
    "size" / Int64ul,
    "type" / Int32ul,
    "reserved" / Default(Int32ul, 0),
)
"""One range of the memory map."""
