"""ioreqd's own state container: what `save` writes and `load` reads. Little endian throughout.

A header, then records, each padded with zeros to 8 bytes, the last an END record. The format is
this project's; nobody else reads it.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from construct import (
    Array,
    Bytes,
    Const,
    Default,
    Int8ul,
    Int16ul,
    Int32ul,
    Int64ul,
    Padding,
    Rebuild,
    Struct,
    len_,
    this,
)

__all__ = [
    "STATE_ALIGNMENT",
    "STATE_CONTAINER",
    "STATE_DEVICE",
    "STATE_END",
    "STATE_FIELD",
    "STATE_HEADER",
    "STATE_MACHINE",
    "STATE_MAGIC",
    "STATE_MEMORY",
    "STATE_RECORD",
    "STATE_VERSION",
    "StateFieldKind",
    "StateRecordType",
]

STATE_MAGIC: Final = b"IOREQDST"
"""First eight bytes of a container."""

STATE_VERSION: Final = 1
"""Version of the container's format; a device's own version is in its record."""

STATE_ALIGNMENT: Final = 8
"""Records begin at multiples of this many bytes; the gap is zeros."""


class StateRecordType(IntEnum):
    """What a record holds."""

    END = 0
    MACHINE = 1
    DEVICE = 2
    MEMORY = 3


class StateFieldKind(IntEnum):
    """How a field's value is read: an unsigned little-endian integer, or bytes."""

    UNSIGNED = 1
    BYTES = 2


STATE_HEADER: Final = "state_header" / Struct(
    "magic" / Const(STATE_MAGIC),
    "version" / Default(Int32ul, STATE_VERSION),
    "flags" / Default(Int32ul, 0),
    "record_count" / Int32ul,
    "reserved" / Default(Int32ul, 0),
    "payload_length" / Int64ul,
)
"""`record_count` and `payload_length` (bytes after this header) include the END record."""

STATE_RECORD: Final = "state_record" / Struct(
    "type" / Int32ul,
    "length" / Rebuild(Int32ul, len_(this.body)),
    "crc32" / Int32ul,
    "reserved" / Default(Int32ul, 0),
    "body" / Bytes(this.length),
    Padding(lambda context: -context.length % STATE_ALIGNMENT),
)
"""`length` counts the body without its padding; `crc32` is zlib.crc32 of the body."""

STATE_END: Final = "state_end" / Struct("crc32" / Int32ul)
"""Body of END: zlib.crc32 of every byte from the header to just before this record."""

STATE_MACHINE: Final = "state_machine" / Struct(
    "guest_time_ns" / Int64ul,
    "name_len" / Rebuild(Int16ul, len_(this.name)),
    "name" / Bytes(this.name_len),
)
"""Body of MACHINE: the guest's time in nanoseconds and the machine type's name in UTF-8."""

STATE_FIELD: Final = "state_field" / Struct(
    "kind" / Int8ul,
    "name_len" / Rebuild(Int8ul, len_(this.name)),
    "value_len" / Rebuild(Int32ul, len_(this.value)),
    "name" / Bytes(this.name_len),
    "value" / Bytes(this.value_len),
)
"""One field of a device. `name` is a dotted path in UTF-8, such as `config.command`."""

STATE_DEVICE: Final = "state_device" / Struct(
    "version" / Int16ul,
    "field_count" / Rebuild(Int16ul, len_(this.fields)),
    "name_len" / Rebuild(Int8ul, len_(this.name)),
    "class_len" / Rebuild(Int8ul, len_(this.class_name)),
    "name" / Bytes(this.name_len),
    "class_name" / Bytes(this.class_len),
    "fields" / Array(this.field_count, STATE_FIELD),
)
"""Body of DEVICE: the version of the device's state, its name and class in UTF-8, its fields."""

STATE_MEMORY: Final = "state_memory" / Struct(
    "name_len" / Rebuild(Int16ul, len_(this.name)),
    "reserved" / Default(Int16ul, 0),
    "data_len" / Rebuild(Int32ul, len_(this.data)),
    "name" / Bytes(this.name_len),
    "data" / Bytes(this.data_len),
)
"""Body of MEMORY: bulk memory under its UTF-8 name."""

STATE_CONTAINER: Final = "state_container" / Struct(
    "header" / STATE_HEADER,
    "records" / Array(this.header.record_count, STATE_RECORD),
)
"""The whole container; the checks of checksums and counts are its reader's."""
