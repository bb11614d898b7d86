"""The device-model hypercall: its sub-operations, their arguments and the constants in them.

Source: Xen's public/hvm/dm_op.h, public/hvm/hvm_op.h (buffered modes, memory types) and
public/sched.h (shutdown reasons). The limits are from xen/common/ioreq.c, in no public header.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Any, Final

from construct import (
    Array,
    Bytes,
    Default,
    FixedSized,
    Int8ul,
    Int16ul,
    Int32ul,
    Int64ul,
    Struct,
    Switch,
    this,
)

from protocol.bitfields import bitfields

__all__ = [
    "DM_OP",
    "DM_OP_ARGUMENTS",
    "DM_OP_BUF",
    "DM_OP_CREATE_IOREQ_SERVER",
    "DM_OP_DESTROY_IOREQ_SERVER",
    "DM_OP_GET_IOREQ_SERVER_INFO",
    "DM_OP_INJECT_EVENT",
    "DM_OP_INJECT_MSI",
    "DM_OP_IOREQ_SERVER_RANGE",
    "DM_OP_MAP_MEM_TYPE_TO_IOREQ_SERVER",
    "DM_OP_MODIFIED_MEMORY",
    "DM_OP_MODIFIED_MEMORY_EXTENT",
    "DM_OP_NR_VCPUS",
    "DM_OP_PIN_MEMORY_CACHEATTR",
    "DM_OP_RELOCATE_MEMORY",
    "DM_OP_REMOTE_SHUTDOWN",
    "DM_OP_SET_IOREQ_SERVER_STATE",
    "DM_OP_SET_IRQ_LEVEL",
    "DM_OP_SET_ISA_IRQ_LEVEL",
    "DM_OP_SET_MEM_TYPE",
    "DM_OP_SET_PCI_INTX_LEVEL",
    "DM_OP_SET_PCI_LINK_ROUTE",
    "DM_OP_TRACK_DIRTY_VRAM",
    "IOREQ_SERVER_MAX",
    "IO_RANGE_MAX",
    "PCI_SBDF",
    "BufioreqMode",
    "DmOp",
    "EventType",
    "InfoFlag",
    "IoRangeType",
    "IoreqMemAccess",
    "MemCacheattr",
    "MemType",
    "ShutdownReason",
]

IOREQ_SERVER_MAX: Final = 8
"""Ioreq servers that one domain can have (MAX_NR_IOREQ_SERVERS); ids are below this."""

IO_RANGE_MAX: Final = 256
"""Disjoint ranges that one server can have of each type (MAX_NR_IO_RANGES)."""


class DmOp(IntEnum):
    """Sub-operations. SET_IRQ_LEVEL is Arm's. NR_VCPUS is new in Xen 4.15."""

    CREATE_IOREQ_SERVER = 1
    GET_IOREQ_SERVER_INFO = 2
    MAP_IO_RANGE_TO_IOREQ_SERVER = 3
    UNMAP_IO_RANGE_FROM_IOREQ_SERVER = 4
    SET_IOREQ_SERVER_STATE = 5
    DESTROY_IOREQ_SERVER = 6
    TRACK_DIRTY_VRAM = 7
    SET_PCI_INTX_LEVEL = 8
    SET_ISA_IRQ_LEVEL = 9
    SET_PCI_LINK_ROUTE = 10
    MODIFIED_MEMORY = 11
    SET_MEM_TYPE = 12
    INJECT_EVENT = 13
    INJECT_MSI = 14
    MAP_MEM_TYPE_TO_IOREQ_SERVER = 15
    REMOTE_SHUTDOWN = 16
    RELOCATE_MEMORY = 17
    PIN_MEMORY_CACHEATTR = 18
    SET_IRQ_LEVEL = 19
    NR_VCPUS = 20


class BufioreqMode(IntEnum):
    """Whether a server has a buffered ring, and whether Xen may lower both of its pointers."""

    OFF = 0
    LEGACY = 1
    ATOMIC = 2


class InfoFlag(IntFlag):
    """Flags of GET_IOREQ_SERVER_INFO."""

    NO_GFNS = 1


class IoRangeType(IntEnum):
    """What the bounds of a range count: ports, guest-physical bytes or SBDFs."""

    PORT = 0
    MEMORY = 1
    PCI = 2


class MemType(IntEnum):
    """Kinds of guest memory (hvmmem_type_t)."""

    RAM_RW = 0
    RAM_RO = 1
    MMIO_DM = 2
    UNUSED = 3
    IOREQ_SERVER = 4


class EventType(IntEnum):
    """What INJECT_EVENT injects."""

    EXT_INT = 0
    NMI = 2
    HW_EXC = 3
    SW_INT = 4
    PRI_SW_EXC = 5
    SW_EXC = 6


class IoreqMemAccess(IntFlag):
    """Accesses that MAP_MEM_TYPE_TO_IOREQ_SERVER forwards; Xen accepts WRITE only."""

    READ = 1
    WRITE = 2


class MemCacheattr(IntEnum):
    """Caching types of PIN_MEMORY_CACHEATTR; DELETE removes a pinned range."""

    UC = 0
    WC = 1
    WT = 4
    WP = 5
    WB = 6
    UCM = 7
    DELETE = 0xFFFFFFFF


class ShutdownReason(IntEnum):
    """Why a domain stops (SHUTDOWN_*)."""

    POWEROFF = 0
    REBOOT = 1
    SUSPEND = 2
    CRASH = 3
    WATCHDOG = 4
    SOFT_RESET = 5


_PAD8: Final = Default(Int8ul, 0)
_PAD16: Final = Default(Int16ul, 0)
_PAD32: Final = Default(Int32ul, 0)


def _argument(name: str, *fields: Any) -> Any:
    """Declare one sub-operation's argument under its C tag."""
    return f"xen_dm_op_{name}" / Struct(*fields)


DM_OP_CREATE_IOREQ_SERVER: Final = _argument(
    "create_ioreq_server",
    "handle_bufioreq" / Int8ul,
    "pad" / Default(Array(3, Int8ul), [0, 0, 0]),
    "id" / Default(Int16ul, 0),
)
DM_OP_GET_IOREQ_SERVER_INFO: Final = _argument(
    "get_ioreq_server_info",
    "id" / Int16ul,
    "flags" / Default(Int16ul, 0),
    "bufioreq_port" / Default(Int32ul, 0),
    "ioreq_gfn" / Default(Int64ul, 0),
    "bufioreq_gfn" / Default(Int64ul, 0),
)
DM_OP_IOREQ_SERVER_RANGE: Final = _argument(
    "ioreq_server_range",
    "id" / Int16ul,
    "pad" / _PAD16,
    "type" / Int32ul,
    "start" / Int64ul,
    "end" / Int64ul,
)
DM_OP_SET_IOREQ_SERVER_STATE: Final = _argument(
    "set_ioreq_server_state", "id" / Int16ul, "enabled" / Int8ul, "pad" / _PAD8
)
DM_OP_DESTROY_IOREQ_SERVER: Final = _argument(
    "destroy_ioreq_server", "id" / Int16ul, "pad" / _PAD16
)
DM_OP_TRACK_DIRTY_VRAM: Final = _argument(
    "track_dirty_vram", "nr" / Int32ul, "pad" / _PAD32, "first_pfn" / Int64ul
)
DM_OP_SET_PCI_INTX_LEVEL: Final = _argument(
    "set_pci_intx_level",
    "domain" / Int16ul,
    "bus" / Int8ul,
    "device" / Int8ul,
    "intx" / Int8ul,
    "level" / Int8ul,
)
DM_OP_SET_ISA_IRQ_LEVEL: Final = _argument(
    "set_isa_irq_level", "isa_irq" / Int8ul, "level" / Int8ul
)
DM_OP_SET_PCI_LINK_ROUTE: Final = _argument(
    "set_pci_link_route", "link" / Int8ul, "isa_irq" / Int8ul
)
DM_OP_MODIFIED_MEMORY: Final = _argument(
    "modified_memory", "nr_extents" / Int32ul, "opaque" / Default(Int32ul, 0)
)
DM_OP_MODIFIED_MEMORY_EXTENT: Final = _argument(
    "modified_memory_extent", "nr" / Int32ul, "pad" / _PAD32, "first_pfn" / Int64ul
)
"""One element of buffer 1 of MODIFIED_MEMORY."""
DM_OP_SET_MEM_TYPE: Final = _argument(
    "set_mem_type",
    "nr" / Int32ul,
    "mem_type" / Int16ul,
    "pad" / _PAD16,
    "first_pfn" / Int64ul,
)
DM_OP_INJECT_EVENT: Final = _argument(
    "inject_event",
    "vcpuid" / Int32ul,
    "vector" / Int8ul,
    "type" / Int8ul,
    "insn_len" / Int8ul,
    "pad0" / _PAD8,
    "error_code" / Int32ul,
    "pad1" / _PAD32,
    "cr2" / Int64ul,
)
DM_OP_INJECT_MSI: Final = _argument(
    "inject_msi", "data" / Int32ul, "pad" / _PAD32, "addr" / Int64ul
)
DM_OP_MAP_MEM_TYPE_TO_IOREQ_SERVER: Final = _argument(
    "map_mem_type_to_ioreq_server",
    "id" / Int16ul,
    "type" / Int16ul,
    "flags" / Int32ul,
    "opaque" / Default(Int64ul, 0),
)
DM_OP_REMOTE_SHUTDOWN: Final = _argument("remote_shutdown", "reason" / Int32ul)
DM_OP_RELOCATE_MEMORY: Final = _argument(
    "relocate_memory",
    "size" / Int32ul,
    "pad" / _PAD32,
    "src_gfn" / Int64ul,
    "dst_gfn" / Int64ul,
)
DM_OP_PIN_MEMORY_CACHEATTR: Final = _argument(
    "pin_memory_cacheattr",
    "start" / Int64ul,
    "end" / Int64ul,
    "type" / Int32ul,
    "pad" / _PAD32,
)
DM_OP_SET_IRQ_LEVEL: Final = _argument(
    "set_irq_level",
    "irq" / Int32ul,
    "level" / Int8ul,
    "pad" / Default(Array(3, Int8ul), [0, 0, 0]),
)
DM_OP_NR_VCPUS: Final = _argument("nr_vcpus", "vcpus" / Default(Int32ul, 0))

DM_OP_ARGUMENTS: Final = {
    DmOp.CREATE_IOREQ_SERVER: DM_OP_CREATE_IOREQ_SERVER,
    DmOp.GET_IOREQ_SERVER_INFO: DM_OP_GET_IOREQ_SERVER_INFO,
    DmOp.MAP_IO_RANGE_TO_IOREQ_SERVER: DM_OP_IOREQ_SERVER_RANGE,
    DmOp.UNMAP_IO_RANGE_FROM_IOREQ_SERVER: DM_OP_IOREQ_SERVER_RANGE,
    DmOp.SET_IOREQ_SERVER_STATE: DM_OP_SET_IOREQ_SERVER_STATE,
    DmOp.DESTROY_IOREQ_SERVER: DM_OP_DESTROY_IOREQ_SERVER,
    DmOp.TRACK_DIRTY_VRAM: DM_OP_TRACK_DIRTY_VRAM,
    DmOp.SET_PCI_INTX_LEVEL: DM_OP_SET_PCI_INTX_LEVEL,
    DmOp.SET_ISA_IRQ_LEVEL: DM_OP_SET_ISA_IRQ_LEVEL,
    DmOp.SET_PCI_LINK_ROUTE: DM_OP_SET_PCI_LINK_ROUTE,
    DmOp.MODIFIED_MEMORY: DM_OP_MODIFIED_MEMORY,
    DmOp.SET_MEM_TYPE: DM_OP_SET_MEM_TYPE,
    DmOp.INJECT_EVENT: DM_OP_INJECT_EVENT,
    DmOp.INJECT_MSI: DM_OP_INJECT_MSI,
    DmOp.MAP_MEM_TYPE_TO_IOREQ_SERVER: DM_OP_MAP_MEM_TYPE_TO_IOREQ_SERVER,
    DmOp.REMOTE_SHUTDOWN: DM_OP_REMOTE_SHUTDOWN,
    DmOp.RELOCATE_MEMORY: DM_OP_RELOCATE_MEMORY,
    DmOp.PIN_MEMORY_CACHEATTR: DM_OP_PIN_MEMORY_CACHEATTR,
    DmOp.SET_IRQ_LEVEL: DM_OP_SET_IRQ_LEVEL,
    DmOp.NR_VCPUS: DM_OP_NR_VCPUS,
}
"""Which argument each sub-operation takes."""

_ARGUMENT_SIZE: Final = max(argument.sizeof() for argument in DM_OP_ARGUMENTS.values())

DM_OP: Final = "xen_dm_op" / Struct(
    "op" / Int32ul,
    "pad" / _PAD32,
    "u"
    / FixedSized(
        _ARGUMENT_SIZE,
        Switch(this.op, DM_OP_ARGUMENTS, default=Bytes(_ARGUMENT_SIZE)),
    ),
)
"""Buffer 0 of the hypercall; `u` is the argument that `op` selects, or bytes if it selects none."""

DM_OP_BUF: Final = "xen_dm_op_buf" / Struct("h" / Int64ul, "size" / Int64ul)
"""One buffer of the hypercall: guest handle and size in bytes, as a 64-bit caller passes them."""

PCI_SBDF: Final = bitfields(function=3, device=5, bus=8, segment=16)
"""How XEN_DMOP_PCI_SBDF packs a PCI function's address, the unit of IoRangeType.PCI."""
