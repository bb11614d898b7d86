"""How a guest calls Xen: hypercall numbers, the operations a small guest uses, Xen's CPUID leaves.

Source: Xen's public/xen.h, sched.h, event_channel.h, version.h, memory.h and arch-x86/cpuid.h.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from construct import Int32ul, Struct

__all__ = [
    "HYPERCALL_STUB_SIZE",
    "SCHED_SHUTDOWN",
    "XEN_CPUID_FIRST",
    "XEN_SIGNATURE",
    "EventChannelOp",
    "Hypercall",
    "SchedOp",
    "XenVersionOp",
]

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
    SCHED_OP = 29
    EVENT_CHANNEL_OP = 32
    HVM_OP = 34


class SchedOp(IntEnum):
    """First argument of SCHED_OP."""

    YIELD = 0
    BLOCK = 1
    SHUTDOWN = 2
    POLL = 3


class EventChannelOp(IntEnum):
    """First argument of EVENT_CHANNEL_OP."""

    CLOSE = 3
    SEND = 4
    ALLOC_UNBOUND = 6


class XenVersionOp(IntEnum):
    """First argument of XEN_VERSION."""

    VERSION = 0
    EXTRAVERSION = 1


SCHED_SHUTDOWN: Final = "sched_shutdown" / Struct("reason" / Int32ul)
"""What SchedOp.SHUTDOWN points to; a ShutdownReason."""
