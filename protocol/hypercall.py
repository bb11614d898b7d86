"""How a guest calls Xen: hypercall numbers, the operations firmware and small guests use, the page
that Xen shares with them, and Xen's CPUID leaves.

Structures with addresses or longs in them have two shapes, by the width of the caller; COMPAT_ is
the 32-bit one. Source: Xen's public/xen.h, sched.h, event_channel.h, version.h, memory.h,
features.h and arch-x86/cpuid.h; for the 32-bit shapes, the i386 ABI's alignment.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final

from construct import Bytes, Default, Int8sl, Int8ul, Int16ul, Int32ul, Int64ul, Padding, Struct

__all__ = [
    "ADD_TO_PHYSMAP",
    "COMPAT_ADD_TO_PHYSMAP",
    "COMPAT_MEMORY_MAP",
    "COMPAT_MEMORY_RESERVATION",
    "COMPAT_SCHED_POLL",
    "COMPAT_SHARED_INFO",
    "DOMID_SELF",
    "EVTCHN_ALLOC_UNBOUND",
    "EVTCHN_BIND_IPI",
    "EVTCHN_BIND_VCPU",
    "EVTCHN_CLOSE",
    "EVTCHN_SEND",
    "EVTCHN_STATUS",
    "EVTCHN_UNMASK",
    "HYPERCALL_STUB_SIZE",
    "MEMORY_MAP",
    "MEMORY_RESERVATION",
    "REMOVE_FROM_PHYSMAP",
    "SCHED_POLL",
    "SCHED_SHUTDOWN",
    "SHARED_INFO",
    "VCPU_HVM_CONTEXT",
    "VCPU_INFO_SIZE",
    "VCPU_TIME_INFO",
    "XEN_CPUID_FIRST",
    "XEN_FEATURE_INFO",
    "XEN_SIGNATURE",
    "EventChannelOp",
    "EventChannelStatus",
    "HvmCpuid",
    "Hypercall",
    "MapSpace",
    "MemoryOp",
    "SchedOp",
    "VcpuOp",
    "XenVersionOp",
]

DOMID_SELF: Final = 0x7FF0
"""As a domid: the caller's own domain."""

HYPERCALL_STUB_SIZE: Final = 32
"""Bytes between the entries of the hypercall page; entry n calls hypercall n."""
XEN_CPUID_FIRST: Final = 0x40000000
"""The first of Xen's CPUID leaves; it gives the last one and the signature. Leaf + 1: the version,
leaf + 2: pages of the hypercall page and the MSR that asks for it."""
XEN_SIGNATURE: Final = b"XenVMMXenVMM"
"""What EBX, ECX and EDX of the first leaf spell."""


class Hypercall(IntEnum):
    """Numbers of hypercalls."""

    MEMORY_OP = 12
    XEN_VERSION = 17
    VCPU_OP = 24
    SCHED_OP = 29
    EVENT_CHANNEL_OP = 32
    HVM_OP = 34


class MemoryOp(IntEnum):
    """First argument of MEMORY_OP."""

    DECREASE_RESERVATION = 1
    POPULATE_PHYSMAP = 6
    ADD_TO_PHYSMAP = 7
    MEMORY_MAP = 9
    REMOVE_FROM_PHYSMAP = 15


class MapSpace(IntEnum):
    """What ADD_TO_PHYSMAP takes pages from."""

    SHARED_INFO = 0
    GRANT_TABLE = 1
    GMFN = 2
    GMFN_RANGE = 3


class SchedOp(IntEnum):
    """First argument of SCHED_OP."""

    YIELD = 0
    BLOCK = 1
    SHUTDOWN = 2
    POLL = 3


class VcpuOp(IntEnum):
    """First argument of VCPU_OP."""

    INITIALISE = 0
    UP = 1
    DOWN = 2
    IS_UP = 3


class EventChannelOp(IntEnum):
    """First argument of EVENT_CHANNEL_OP."""

    CLOSE = 3
    SEND = 4
    STATUS = 5
    ALLOC_UNBOUND = 6
    BIND_IPI = 7
    BIND_VCPU = 8
    UNMASK = 9


class EventChannelStatus(IntEnum):
    """What a port is, as EventChannelOp.STATUS says."""

    CLOSED = 0
    UNBOUND = 1
    INTERDOMAIN = 2
    IPI = 5


class XenVersionOp(IntEnum):
    """First argument of XEN_VERSION."""

    VERSION = 0
    EXTRAVERSION = 1
    CAPABILITIES = 3
    GET_FEATURES = 6
    PAGESIZE = 7
    GUEST_HANDLE = 8


class HvmCpuid(IntFlag):
    """EAX of the first leaf + 4: what EBX and ECX hold."""

    VCPU_ID_PRESENT = 1 << 3
    DOMID_PRESENT = 1 << 4


SCHED_SHUTDOWN: Final = "sched_shutdown" / Struct("reason" / Int32ul)
"""What SchedOp.SHUTDOWN points to; a ShutdownReason."""

SCHED_POLL: Final = "sched_poll" / Struct(
    "ports" / Int64ul, "nr_ports" / Int32ul, Padding(4), "timeout" / Int64ul
)
"""What SchedOp.POLL points to; ``timeout`` is a system time in nanoseconds, 0: none."""
COMPAT_SCHED_POLL: Final = Struct("ports" / Int32ul, "nr_ports" / Int32ul, "timeout" / Int64ul)

MEMORY_RESERVATION: Final = "xen_memory_reservation" / Struct(
    "extent_start" / Int64ul,
    "nr_extents" / Int64ul,
    "extent_order" / Int32ul,
    "mem_flags" / Int32ul,
    "domid" / Int16ul,
    Padding(6),
)
"""For DECREASE_RESERVATION and POPULATE_PHYSMAP; ``extent_start`` points to GFNs as longs."""
COMPAT_MEMORY_RESERVATION: Final = Struct(
    "extent_start" / Int32ul,
    "nr_extents" / Int32ul,
    "extent_order" / Int32ul,
    "mem_flags" / Int32ul,
    "domid" / Int16ul,
    Padding(2),
)

ADD_TO_PHYSMAP: Final = "xen_add_to_physmap" / Struct(
    "domid" / Int16ul, "size" / Int16ul, "space" / Int32ul, "idx" / Int64ul, "gpfn" / Int64ul
)
"""``size``: pages, for GMFN_RANGE only."""
COMPAT_ADD_TO_PHYSMAP: Final = Struct(
    "domid" / Int16ul, "size" / Int16ul, "space" / Int32ul, "idx" / Int32ul, "gpfn" / Int32ul
)

REMOVE_FROM_PHYSMAP: Final = "xen_remove_from_physmap" / Struct(
    "domid" / Int16ul, Padding(6), "gpfn" / Int64ul
)

MEMORY_MAP: Final = "xen_memory_map" / Struct(
    "nr_entries" / Int32ul, Padding(4), "buffer" / Int64ul
)
"""``nr_entries``: room of the buffer, then how many E820 entries it has."""
COMPAT_MEMORY_MAP: Final = Struct("nr_entries" / Int32ul, "buffer" / Int32ul)

EVTCHN_CLOSE: Final = "evtchn_close" / Struct("port" / Int32ul)
EVTCHN_SEND: Final = "evtchn_send" / Struct("port" / Int32ul)
EVTCHN_UNMASK: Final = "evtchn_unmask" / Struct("port" / Int32ul)
EVTCHN_ALLOC_UNBOUND: Final = "evtchn_alloc_unbound" / Struct(
    "dom" / Int16ul, "remote_dom" / Int16ul, "port" / Int32ul
)
EVTCHN_BIND_IPI: Final = "evtchn_bind_ipi" / Struct("vcpu" / Int32ul, "port" / Int32ul)
EVTCHN_BIND_VCPU: Final = "evtchn_bind_vcpu" / Struct("port" / Int32ul, "vcpu" / Int32ul)
EVTCHN_STATUS: Final = "evtchn_status" / Struct(
    "dom" / Int16ul,
    Padding(2),
    "port" / Int32ul,
    "status" / Int32ul,
    "vcpu" / Int32ul,
    "u" / Bytes(8),
)

XEN_FEATURE_INFO: Final = "xen_feature_info" / Struct("submap_idx" / Int32ul, "submap" / Int32ul)

VCPU_INFO_SIZE: Final = 64
"""Bytes of a vCPU's part of the shared page: upcall pending and mask (a byte each), selector words
at 8 (4 for 32 bits), VCPU_TIME_INFO at 32."""
VCPU_TIME_INFO: Final = "vcpu_time_info" / Struct(
    "version" / Int32ul,
    "pad0" / Default(Int32ul, 0),
    "tsc_timestamp" / Int64ul,
    "system_time" / Int64ul,
    "tsc_to_system_mul" / Int32ul,
    "tsc_shift" / Int8sl,
    "flags" / Default(Int8ul, 0),
    "pad1" / Default(Bytes(2), bytes(2)),
)
"""Nanoseconds: ((tsc - tsc_timestamp) << tsc_shift) * tsc_to_system_mul >> 32, + system_time."""

SHARED_INFO: Final = "shared_info" / Struct(
    "vcpu_info" / Bytes(32 * VCPU_INFO_SIZE),
    "evtchn_pending" / Bytes(512),
    "evtchn_mask" / Bytes(512),
    "wc_version" / Int32ul,
    "wc_sec" / Int32ul,
    "wc_nsec" / Int32ul,
    "wc_sec_hi" / Int32ul,
)
"""The page that Xen shares with a guest, as far as both widths have the same in it."""
COMPAT_SHARED_INFO: Final = Struct(
    "vcpu_info" / Bytes(32 * VCPU_INFO_SIZE),
    "evtchn_pending" / Bytes(128),
    "evtchn_mask" / Bytes(128),
    "wc_version" / Int32ul,
    "wc_sec" / Int32ul,
    "wc_nsec" / Int32ul,
)

VCPU_HVM_CONTEXT: Final = "vcpu_hvm_context" / Struct(
    "mode" / Int32ul, "pad" / Default(Int32ul, 0), "cpu_regs" / Bytes(120)
)
"""For VcpuOp.INITIALISE; ``mode`` 0: 32-bit registers follow: EAX, ECX, EDX, EBX, ESP, EBP, ESI,
EDI, EIP, EFLAGS, CR0, CR3, CR4, and then EFER and the segments."""
