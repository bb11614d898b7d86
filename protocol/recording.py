"""ioreqd's recording of what devices did: what `-observe record=` writes and `ioreqd replay` reads.

A header, a RECORDING_DEVICE for each device, then RECORDING_RECORDs until the file ends; a process
that was killed leaves its last record incomplete. Little endian throughout. The format is this
project's; nobody else reads it.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final

from construct import (
    Array,
    Bytes,
    Computed,
    Const,
    Default,
    GreedyRange,
    Int16ul,
    Int32ul,
    Int64ul,
    Rebuild,
    Struct,
    len_,
    this,
)

__all__ = [
    "RECORDING",
    "RECORDING_DEVICE",
    "RECORDING_HEADER",
    "RECORDING_MAGIC",
    "RECORDING_NONE",
    "RECORDING_OPTION",
    "RECORDING_RECORD",
    "RECORDING_VERSION",
    "RecordingFlag",
    "RecordingForm",
    "RecordingKind",
]

RECORDING_MAGIC: Final = b"IOREQREC"
"""First eight bytes of a recording."""

RECORDING_VERSION: Final = 1

RECORDING_NONE: Final = 0xFFFF
"""As the number of a device: none; as devfn: no PCI function."""


class RecordingKind(IntEnum):
    """What happened, with the meaning of the record's numbers, name and data."""

    ACCESS = 1
    """space, `RecordingForm`, 1 for a read, bytes an element, elements, 1 when descending, address,
    serial number; data: what was written, or the answer."""
    ANSWER = 2
    """The answer of an access that was deferred: its serial number, the value."""
    TIMER = 3
    """A timer fired: name."""
    INPUT = 4
    """Bytes came from the host: name of the plug; data."""
    RESET = 5
    """All devices were reset."""
    STATE = 6
    """All devices were given a state; data: the state container."""
    LINES = 7
    """All lines and ranges were told to the platform again."""
    RELOAD = 8
    """The device's class was loaded again; name: the class."""
    NOW = 16
    """The device asked for the time, which is the record's."""
    DMA_READ = 17
    """address, bytes; data, unless it failed."""
    DMA_WRITE = 18
    """address, bytes; data."""
    ISA = 19
    """irq, level."""
    INTX = 20
    """slot, pin, level."""
    LINK = 21
    """link, irq."""
    MSI = 22
    """address, data of the message."""
    OUTPUT = 23
    """How many bytes the host took; name of the plug; data."""
    MEMORY_TYPE = 24
    """first GFN, pages, 1 for writable."""
    SHUTDOWN = 25
    """name: the reason."""
    SUSPEND = 26


class RecordingForm(IntEnum):
    """How the elements of an access lie: one; many at one place; many one behind the other."""

    ELEMENT = 0
    STRING = 1
    BLOCK = 2


class RecordingFlag(IntFlag):
    """INNER: during the record before it that has no such flag. FAILED: it raised an error.
    DEFERRED: an ANSWER follows. SHARED: more than one device, or none, has the bytes.
    """

    INNER = 1
    FAILED = 2
    DEFERRED = 4
    SHARED = 8


RECORDING_HEADER: Final = "recording_header" / Struct(
    "magic" / Const(RECORDING_MAGIC),
    "version" / Default(Int32ul, RECORDING_VERSION),
    "device_count" / Int16ul,
    "kind_len" / Rebuild(Int16ul, len_(this.kind)),
    "kind" / Bytes(this.kind_len),
)
"""`kind`: the machine type in UTF-8."""

RECORDING_OPTION: Final = "recording_option" / Struct(
    "key_len" / Rebuild(Int16ul, len_(this.key)),
    "value_len" / Rebuild(Int16ul, len_(this.value)),
    "key" / Bytes(this.key_len),
    "value" / Bytes(this.value_len),
)

RECORDING_DEVICE: Final = "recording_device" / Struct(
    "version" / Int16ul,
    "devfn" / Int16ul,
    "option_count" / Rebuild(Int16ul, len_(this.options)),
    "name_len" / Rebuild(Int16ul, len_(this.name)),
    "class_len" / Rebuild(Int16ul, len_(this.class_name)),
    "source_len" / Rebuild(Int16ul, len_(this.source)),
    "name" / Bytes(this.name_len),
    "class_name" / Bytes(this.class_len),
    "source" / Bytes(this.source_len),
    "options" / Array(this.option_count, RECORDING_OPTION),
)
"""`class_name`: ``module:class``; `source`: what ``-device`` named, or empty."""

RECORDING_RECORD: Final = "recording_record" / Struct(
    "length" / Int32ul,
    "kind" / Int16ul,
    "flags" / Int16ul,
    "device" / Int16ul,
    "number_count" / Rebuild(Int16ul, len_(this.numbers)),
    "name_len" / Rebuild(Int16ul, len_(this.name)),
    "_pad0" / Default(Int16ul, 0),
    "time" / Int64ul,
    "numbers" / Array(this.number_count, Int64ul),
    "name" / Bytes(this.name_len),
    "data_len" / Computed(this.length - 24 - 8 * this.number_count - this.name_len),
    "data" / Bytes(this.data_len),
)
"""`length`: bytes of the whole record; `device`: index in the header; `time`: guest time, ns."""

RECORDING: Final = "recording" / Struct(
    "header" / RECORDING_HEADER,
    "devices" / Array(this.header.device_count, RECORDING_DEVICE),
    "records" / GreedyRange(RECORDING_RECORD),
)
"""The whole file, to the last whole record."""
