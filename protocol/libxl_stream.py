"""What an `xl save` file is made of: xl's own header, the libxl stream, the libxc stream inside it.

A reader walks xl's header and optional data, the libxl header, then libxl records. The record
LIBXC_CONTEXT has an empty body; the libxc stream (image header, domain header, records up to its
END) follows it in line, and libxl records go on after that.

Source: Xen's tools/xl/xl.h, docs/specs/libxl-migration-stream, docs/specs/libxc-migration-stream.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final

from construct import (
    Bytes,
    Default,
    Int16ub,
    Int16ul,
    Int32ub,
    Int32ul,
    Int64ub,
    Padding,
    Rebuild,
    Struct,
    len_,
    this,
)

__all__ = [
    "LIBXC_DOMAIN_HEADER",
    "LIBXC_IMAGE_HEADER",
    "LIBXC_IMAGE_ID",
    "LIBXC_IMAGE_MARKER",
    "LIBXC_IMAGE_VERSION",
    "LIBXC_OPTIONAL_RECORD",
    "LIBXC_RECORD",
    "LIBXC_RECORD_LENGTH_MAX",
    "LIBXL_EMULATOR_HEADER",
    "LIBXL_HEADER",
    "LIBXL_IDENT",
    "LIBXL_RECORD",
    "LIBXL_VERSION",
    "STREAM_ALIGNMENT",
    "XL_SAVE_BYTEORDER",
    "XL_SAVE_HEADER",
    "XL_SAVE_MAGIC",
    "LibxcDomainType",
    "LibxcImageOption",
    "LibxcRecordType",
    "LibxlEmulatorId",
    "LibxlOption",
    "LibxlRecordType",
    "XlSaveFlag",
]

STREAM_ALIGNMENT: Final = 8
"""Bodies of libxl and of libxc records are padded with zeros to a multiple of this."""

XL_SAVE_MAGIC: Final = b"Xen saved domain, xl format\n \0 \r"
"""First 32 bytes of an `xl save` file."""

XL_SAVE_BYTEORDER: Final = 0x01020304
"""What `byteorder` holds in the saving host's order."""

LIBXL_IDENT: Final = 0x4C6962786C466D74
"""`ident` of the libxl header, the text LibxlFmt."""

LIBXL_VERSION: Final = 2
"""The only version of the libxl stream that Xen 4.17 to 4.20 write."""

LIBXC_IMAGE_MARKER: Final = 0xFFFFFFFFFFFFFFFF
"""`marker` of the libxc image header."""

LIBXC_IMAGE_ID: Final = 0x58454E46
"""`id` of the libxc image header, the text XENF."""

LIBXC_IMAGE_VERSION: Final = 3
"""Version of the libxc stream since Xen 4.14; version 2 differs only in records it lacks."""

LIBXC_RECORD_LENGTH_MAX: Final = 128 << 20
"""Longest body, in bytes, that Xen's own reader accepts."""

LIBXC_OPTIONAL_RECORD: Final = 0x80000000
"""Bit in a libxc record's type: a reader that does not know it may skip it."""


class XlSaveFlag(IntFlag):
    """Mandatory flags of xl's header."""

    JSON = 1
    STREAM_V2 = 2


class LibxlOption(IntFlag):
    """Options of the libxl header: byte order of the records, and whether a legacy stream."""

    BIG_ENDIAN = 1
    LEGACY = 2


class LibxlRecordType(IntEnum):
    """Records of the libxl stream."""

    END = 0
    LIBXC_CONTEXT = 1
    EMULATOR_XENSTORE_DATA = 2
    EMULATOR_CONTEXT = 3
    CHECKPOINT_END = 4
    CHECKPOINT_STATE = 5


class LibxlEmulatorId(IntEnum):
    """Which device model wrote an emulator record; libxl's reader does not check it."""

    UNKNOWN = 0
    QEMU_TRADITIONAL = 1
    QEMU_UPSTREAM = 2


class LibxcImageOption(IntFlag):
    """Options of the libxc image header."""

    BIG_ENDIAN = 1


class LibxcDomainType(IntEnum):
    """Kind of domain in the libxc stream."""

    X86_PV = 1
    X86_HVM = 2


class LibxcRecordType(IntEnum):
    """Records of the libxc stream; STATIC_DATA_END and what follows it came with version 3."""

    END = 0x00
    PAGE_DATA = 0x01
    X86_PV_INFO = 0x02
    X86_PV_P2M_FRAMES = 0x03
    X86_PV_VCPU_BASIC = 0x04
    X86_PV_VCPU_EXTENDED = 0x05
    X86_PV_VCPU_XSAVE = 0x06
    SHARED_INFO = 0x07
    X86_TSC_INFO = 0x08
    HVM_CONTEXT = 0x09
    HVM_PARAMS = 0x0A
    TOOLSTACK = 0x0B
    X86_PV_VCPU_MSRS = 0x0C
    VERIFY = 0x0D
    CHECKPOINT = 0x0E
    CHECKPOINT_DIRTY_PFN_LIST = 0x0F
    STATIC_DATA_END = 0x10
    X86_CPUID_POLICY = 0x11
    X86_MSR_POLICY = 0x12


XL_SAVE_HEADER: Final = "save_file_header" / Struct(
    "magic" / Bytes(len(XL_SAVE_MAGIC)),
    "byteorder" / Int32ul,
    "mandatory_flags" / Int32ul,
    "optional_flags" / Int32ul,
    "optional_data_len" / Int32ul,
)
"""xl's header; `optional_data_len` bytes follow: u32 length of the configuration, then its text."""

LIBXL_HEADER: Final = "libxl__sr_hdr" / Struct(
    "ident" / Int64ub,
    "version" / Int32ub,
    "options" / Int32ub,
)
"""Start of the libxl stream, big endian."""

LIBXL_RECORD: Final = "libxl__sr_rec_hdr" / Struct(
    "type" / Int32ul,
    "length" / Rebuild(Int32ul, len_(this.body)),
    "body" / Bytes(this.length),
    Padding(lambda context: -context.length % STREAM_ALIGNMENT),
)
"""One libxl record; `length` counts the body without its padding."""

LIBXL_EMULATOR_HEADER: Final = "libxl__sr_emulator_hdr" / Struct("id" / Int32ul, "index" / Int32ul)
"""What the body of an emulator record begins with; the device model's own bytes follow."""

LIBXC_IMAGE_HEADER: Final = "xc_sr_ihdr" / Struct(
    "marker" / Int64ub,
    "id" / Int32ub,
    "version" / Int32ub,
    "options" / Int16ub,
    "_res1" / Default(Int16ub, 0),
    "_res2" / Default(Int32ub, 0),
)
"""Start of the libxc stream, big endian."""

LIBXC_DOMAIN_HEADER: Final = "xc_sr_dhdr" / Struct(
    "type" / Int32ul,
    "page_shift" / Int16ul,
    "_res1" / Default(Int16ul, 0),
    "xen_major" / Int32ul,
    "xen_minor" / Int32ul,
)
"""Second header of the libxc stream."""

LIBXC_RECORD: Final = "xc_sr_rhdr" / Struct(
    "type" / Int32ul,
    "length" / Rebuild(Int32ul, len_(this.body)),
    "body" / Bytes(this.length),
    Padding(lambda context: -context.length % STREAM_ALIGNMENT),
)
"""One libxc record; the layout is libxl's."""
