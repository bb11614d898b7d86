"""Files of `xl save` made from the declarations."""

from __future__ import annotations

from protocol.libxl_stream import (
    LIBXC_DOMAIN_HEADER,
    LIBXC_IMAGE_HEADER,
    LIBXC_IMAGE_ID,
    LIBXC_IMAGE_MARKER,
    LIBXC_IMAGE_VERSION,
    LIBXC_RECORD,
    LIBXL_EMULATOR_HEADER,
    LIBXL_HEADER,
    LIBXL_IDENT,
    LIBXL_RECORD,
    LIBXL_VERSION,
    XL_SAVE_BYTEORDER,
    XL_SAVE_HEADER,
    XL_SAVE_MAGIC,
    LibxcDomainType,
    LibxcRecordType,
    LibxlEmulatorId,
    LibxlRecordType,
    XlSaveFlag,
)

__all__ = ["emulator", "libxc", "libxl", "save_file", "start"]

CONFIG = b"\x05\0\0\0{}\n\0\0"
"""Optional data of xl's header, of a length that leaves the streams unaligned."""


def libxl(kind: int, body: bytes = b"") -> bytes:
    """A libxl record."""
    made: bytes = LIBXL_RECORD.build({"type": kind, "length": len(body), "body": body})
    return made


def emulator(data: bytes) -> bytes:
    """An EMULATOR_CONTEXT record over what a device model wrote."""
    head = LIBXL_EMULATOR_HEADER.build({"id": LibxlEmulatorId.QEMU_UPSTREAM, "index": 0})
    return libxl(LibxlRecordType.EMULATOR_CONTEXT, head + data)


def libxc(*bodies: bytes, **image: int) -> bytes:
    """A libxc stream with a page data record of each of ``bodies``."""
    made: bytes = LIBXC_IMAGE_HEADER.build(
        {"marker": LIBXC_IMAGE_MARKER, "id": LIBXC_IMAGE_ID, "version": LIBXC_IMAGE_VERSION}
        | {"options": 0}
        | image
    )
    made += LIBXC_DOMAIN_HEADER.build(
        {"type": LibxcDomainType.X86_HVM, "page_shift": 12, "xen_major": 4, "xen_minor": 17}
    )
    kinds = [LibxcRecordType.PAGE_DATA] * len(bodies) + [LibxcRecordType.END]
    for kind, body in zip(kinds, [*bodies, b""], strict=True):
        made += LIBXC_RECORD.build({"type": kind, "length": len(body), "body": body})
    return made


def start(stream: dict[str, int] | None = None, **header: int) -> bytes:
    """xl's header, its optional data, and the libxl header."""
    fields = {
        "magic": XL_SAVE_MAGIC,
        "byteorder": XL_SAVE_BYTEORDER,
        "mandatory_flags": XlSaveFlag.JSON | XlSaveFlag.STREAM_V2,
        "optional_flags": 0,
        "optional_data_len": len(CONFIG),
    } | header
    libxl_header = {"ident": LIBXL_IDENT, "version": LIBXL_VERSION, "options": 0} | (stream or {})
    made: bytes = XL_SAVE_HEADER.build(fields) + CONFIG + LIBXL_HEADER.build(libxl_header)
    return made


def save_file(*blobs: bytes) -> bytes:
    """A whole file, in which every device model saved one of ``blobs``."""
    parts = [start(), libxl(LibxlRecordType.LIBXC_CONTEXT), libxc(b"page" * 5, b"")]
    parts.append(libxl(LibxlRecordType.EMULATOR_XENSTORE_DATA, bytes(8) + b"physmap\0"))
    parts += [emulator(blob) for blob in blobs]
    parts.append(libxl(LibxlRecordType.END))
    return b"".join(parts)
