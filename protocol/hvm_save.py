"""The HVM context: what Xen itself saves of an HVM domain, as a list of typed entries.

Source: Xen's public/hvm/save.h and public/arch-x86/hvm/save.h. The first entry is HEADER, the
last is END with length 0.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from construct import Bytes, Const, Int16ul, Int32ul, Int64ul, Rebuild, Struct, len_, this

__all__ = [
    "HVM_SAVE_DESCRIPTOR",
    "HVM_SAVE_HEADER",
    "HVM_SAVE_MAGIC",
    "HVM_SAVE_VERSION",
    "HvmSaveCode",
]

HVM_SAVE_MAGIC: Final = 0x54381286
"""HVM_FILE_MAGIC."""

HVM_SAVE_VERSION: Final = 1
"""HVM_FILE_VERSION."""


class HvmSaveCode(IntEnum):
    """Kinds of entries."""

    END = 0
    HEADER = 1
    CPU = 2
    PIC = 3
    IOAPIC = 4
    LAPIC = 5
    LAPIC_REGS = 6
    PCI_IRQ = 7
    ISA_IRQ = 8
    PCI_LINK = 9
    PIT = 10
    RTC = 11
    HPET = 12
    PMTIMER = 13
    MTRR = 14
    VIRIDIAN_DOMAIN = 15
    CPU_XSAVE = 16
    VIRIDIAN_VCPU = 17
    VMCE_VCPU = 18
    TSC_ADJUST = 19
    CPU_MSR = 20


HVM_SAVE_DESCRIPTOR: Final = "hvm_save_descriptor" / Struct(
    "typecode" / Int16ul,
    "instance" / Int16ul,
    "length" / Rebuild(Int32ul, len_(this.body)),
    "body" / Bytes(this.length),
)
"""One entry. `instance` is a vCPU id or a chip's number; the body follows without padding."""

HVM_SAVE_HEADER: Final = "hvm_save_header" / Struct(
    "magic" / Const(HVM_SAVE_MAGIC, Int32ul),
    "version" / Int32ul,
    "changeset" / Int64ul,
    "cpuid" / Int32ul,
    "gtsc_khz" / Int32ul,
)
"""Body of HEADER."""
