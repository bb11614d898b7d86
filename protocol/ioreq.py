"""The pages that Xen and an ioreq server share: synchronous slots and the buffered ring.

Source: Xen's public/hvm/ioreq.h and, for the resource frames, public/memory.h.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from construct import Array, Default, Int8ul, Int16ul, Int32ul, Int64ul, Struct

from protocol.bitfields import bitfields

__all__ = [
    "BUFFERED_PAGE",
    "BUFIOREQ_SLOT_COUNT",
    "BUF_IOREQ",
    "IOREQ",
    "IOREQ_PAGE_SIZE",
    "IOREQ_PCI_ADDRESS",
    "IOREQ_SLOT_COUNT",
    "SHARED_PAGE",
    "IoreqDir",
    "IoreqServerFrame",
    "IoreqState",
    "IoreqType",
    "XenmemResource",
]

IOREQ_PAGE_SIZE: Final = 4096
"""Bytes in each of the two pages."""

IOREQ_SLOT_COUNT: Final = 128
"""Slots in the synchronous page, one per vCPU: HVM_MAX_VCPUS, which also fills the page."""

BUFIOREQ_SLOT_COUNT: Final = 511
"""Entries in the buffered ring (IOREQ_BUFFER_SLOT_NUM); a pointer modulo this is a slot."""


class IoreqDir(IntEnum):
    """Direction of a request, seen from the guest: READ brings data to it."""

    WRITE = 0
    READ = 1


class IoreqState(IntEnum):
    """Who owns a slot: Xen while NONE or RESPONSE_READY, the emulator while READY or INPROCESS."""

    NONE = 0
    READY = 1
    INPROCESS = 2
    RESPONSE_READY = 3


class IoreqType(IntEnum):
    """What a request asks for; values that are missing here were other things in Xen's past."""

    PIO = 0
    COPY = 1
    PCI_CONFIG = 2
    TIMEOFFSET = 7
    INVALIDATE = 8


class XenmemResource(IntEnum):
    """Resource types of XENMEM_acquire_resource that an emulator may map."""

    IOREQ_SERVER = 0


class IoreqServerFrame(IntEnum):
    """Frames of the ioreq-server resource: the ring, then the first synchronous page."""

    BUFIOREQ = 0
    IOREQ = 1


IOREQ: Final = "ioreq" / Struct(
    "addr" / Int64ul,
    "data" / Int64ul,
    "count" / Int32ul,
    "size" / Int32ul,
    "vp_eport" / Int32ul,
    "_pad0" / Default(Int16ul, 0),
    "flags" / bitfields(state=4, data_is_ptr=1, dir=1, df=1, _pad1=1),
    "type" / Int8ul,
)
"""One synchronous slot. `flags` is the byte that C spells as five bit-fields."""

SHARED_PAGE: Final = "shared_iopage" / Struct("vcpu_ioreq" / Array(IOREQ_SLOT_COUNT, IOREQ))
"""The synchronous page, indexed by vCPU id. C declares one element and lets callers run past it."""

BUF_IOREQ: Final = "buf_ioreq" / Struct(
    "header" / bitfields(type=8, pad=1, dir=1, size=2, addr=20),
    "data" / Int32ul,
)
"""One ring entry. `size` is log2 of the bytes; 3 takes a second entry, which has data[63:32]."""

BUFFERED_PAGE: Final = "buffered_iopage" / Struct(
    "read_pointer" / Int32ul,
    "write_pointer" / Int32ul,
    "buf_ioreq" / Array(BUFIOREQ_SLOT_COUNT, BUF_IOREQ),
)
"""The ring: free-running pointers, then the entries."""

IOREQ_PCI_ADDRESS: Final = bitfields(register=32, function=3, device=5, bus=8, segment=16)
"""How `addr` of a PCI_CONFIG request is divided. Source: the comment at struct ioreq."""
