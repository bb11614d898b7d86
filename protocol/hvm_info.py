"""The HVM info table and the e820 map that the domain builder and hvmloader leave in low memory.

Source: Xen's public/hvm/hvm_info_table.h and public/hvm/e820.h; the e820 entry and its types are
from xenctrl.h, and are those of ACPI 6.2, section 15.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from construct import (
    Array,
    Bytes,
    Const,
    Default,
    ExprValidator,
    Int8ul,
    Int32ul,
    Int64ul,
    Padding,
    Struct,
    obj_,
    this,
)

__all__ = [
    "E820_ENTRY",
    "E820_ENTRY_MAX",
    "HVM_BELOW_4G_MMIO_LENGTH",
    "HVM_BELOW_4G_MMIO_START",
    "HVM_BELOW_4G_RAM_END",
    "HVM_E820_NR_OFFSET",
    "HVM_E820_OFFSET",
    "HVM_E820_PAGE",
    "HVM_E820_TABLE",
    "HVM_INFO_OFFSET",
    "HVM_INFO_PADDR",
    "HVM_INFO_PFN",
    "HVM_INFO_SIGNATURE",
    "HVM_INFO_TABLE",
    "HVM_MAX_VCPUS",
    "E820Type",
    "hvm_info_checksum",
]

HVM_MAX_VCPUS: Final = 128
"""vCPUs that an HVM guest can have."""

HVM_INFO_PFN: Final = 0x9F
"""Page frame that holds the HVM info table."""

HVM_INFO_OFFSET: Final = 0x800
"""Byte offset of the table in its page."""

HVM_INFO_PADDR: Final = (HVM_INFO_PFN << 12) + HVM_INFO_OFFSET
"""Guest-physical address of the table."""

HVM_INFO_SIGNATURE: Final = b"HVM INFO"
"""First eight bytes of the table."""

HVM_E820_PAGE: Final = 0x90000
"""Guest-physical address of the page that holds the e820 map."""

HVM_E820_NR_OFFSET: Final = 0x1E8
"""Byte offset in that page of the number of entries."""

HVM_E820_OFFSET: Final = 0x2D0
"""Byte offset in that page of the entries."""

E820_ENTRY_MAX: Final = 128
"""Entries that a map can have (E820MAX)."""

HVM_BELOW_4G_RAM_END: Final = 0xF0000000
"""Default end of low RAM, in bytes."""

HVM_BELOW_4G_MMIO_START: Final = HVM_BELOW_4G_RAM_END
"""Default start of the MMIO hole."""

HVM_BELOW_4G_MMIO_LENGTH: Final = (1 << 32) - HVM_BELOW_4G_MMIO_START
"""Default length of the MMIO hole."""


class E820Type(IntEnum):
    """Kinds of memory in an e820 map."""

    RAM = 1
    RESERVED = 2
    ACPI = 3
    NVS = 4
    UNUSABLE = 5


HVM_INFO_TABLE: Final = "hvm_info_table" / Struct(
    "signature" / Const(HVM_INFO_SIGNATURE),
    "length" / Int32ul,
    "checksum" / Default(Int8ul, 0),
    "apic_mode" / Int8ul,
    Padding(2),
    "nr_vcpus" / Int32ul,
    "low_mem_pgend" / Int32ul,
    "reserved_mem_pgstart" / Int32ul,
    "high_mem_pgend" / Int32ul,
    "vcpu_online" / Bytes(HVM_MAX_VCPUS // 8),
)
"""The table. `length` is its size; the page frame numbers are 0 where a range does not exist."""

E820_ENTRY: Final = "e820entry" / Struct("addr" / Int64ul, "size" / Int64ul, "type" / Int32ul)
"""One range, packed: entries follow each other every 20 bytes."""

HVM_E820_TABLE: Final = "hvm_e820_table" / Struct(
    Padding(HVM_E820_NR_OFFSET),
    "nr" / ExprValidator(Int32ul, obj_ <= E820_ENTRY_MAX),
    Padding(HVM_E820_OFFSET - HVM_E820_NR_OFFSET - 4),
    "entries" / Array(this.nr, E820_ENTRY),
)
"""The page at HVM_E820_PAGE, from its first byte."""


def hvm_info_checksum(table: bytes) -> int:
    """Return the checksum byte that makes all bytes of a built HVM_INFO_TABLE add up to 0 mod 256.

    Args:
        table: the `length` bytes of the table; what it has in `checksum` does not count.
    """
    offset = len(HVM_INFO_SIGNATURE) + 4
    return -(sum(table) - table[offset]) & 0xFF
