"""HVM parameters: what the toolstack, hvmloader and the guest tell Xen about one domain.

Source: Xen's public/hvm/params.h, public/hvm/hvm_op.h and, for the ACPI ports, public/hvm/ioreq.h.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final

from construct import Default, Int16ul, Int32ul, Int64ul, Struct

__all__ = [
    "CALLBACK_IRQ_TYPE_MASK",
    "HVM_PARAM",
    "HVM_PARAM_COUNT",
    "AcpiV0",
    "AcpiV1",
    "Altp2mMode",
    "CallbackIrqType",
    "HvmOp",
    "HvmParam",
    "McaCapability",
    "TimerMode",
    "ViridianFeature",
]

HVM_PARAM_COUNT: Final = 39
"""HVM_NR_PARAMS: indices are below this."""

CALLBACK_IRQ_TYPE_MASK: Final = 0xFF00000000000000
"""Bits of HvmParam.CALLBACK_IRQ that hold a CallbackIrqType."""


class HvmOp(IntEnum):
    """The HVM operations that take HVM_PARAM."""

    SET_PARAM = 0
    GET_PARAM = 1


class HvmParam(IntEnum):
    """Indices. Xen refuses PAE_ENABLED, DM_DOMAIN, MEMORY_EVENT_*, NESTEDHVM, BUFIOREQ_EVTCHN."""

    CALLBACK_IRQ = 0
    STORE_PFN = 1
    STORE_EVTCHN = 2
    PAE_ENABLED = 4
    IOREQ_PFN = 5
    BUFIOREQ_PFN = 6
    VIRIDIAN = 9
    TIMER_MODE = 10
    HPET_ENABLED = 11
    IDENT_PT = 12
    DM_DOMAIN = 13
    ACPI_S_STATE = 14
    VM86_TSS = 15
    VPT_ALIGN = 16
    CONSOLE_PFN = 17
    CONSOLE_EVTCHN = 18
    ACPI_IOPORTS_LOCATION = 19
    MEMORY_EVENT_CR0 = 20
    MEMORY_EVENT_CR3 = 21
    MEMORY_EVENT_CR4 = 22
    MEMORY_EVENT_INT3 = 23
    NESTEDHVM = 24
    MEMORY_EVENT_SINGLE_STEP = 25
    BUFIOREQ_EVTCHN = 26
    PAGING_RING_PFN = 27
    MONITOR_RING_PFN = 28
    SHARING_RING_PFN = 29
    MEMORY_EVENT_MSR = 30
    TRIPLE_FAULT_REASON = 31
    IOREQ_SERVER_PFN = 32
    NR_IOREQ_SERVER_PAGES = 33
    VM_GENERATION_ID_ADDR = 34
    ALTP2M = 35
    X87_FIP_WIDTH = 36
    VM86_TSS_SIZED = 37
    MCA_CAP = 38


class CallbackIrqType(IntEnum):
    """How event-channel notifications reach vCPU 0 (bits 63:56 of CALLBACK_IRQ, x86)."""

    GSI = 0
    PCI_INTX = 1
    VECTOR = 2


class TimerMode(IntEnum):
    """Values of TIMER_MODE."""

    DELAY_FOR_MISSED_TICKS = 0
    NO_DELAY_FOR_MISSED_TICKS = 1
    NO_MISSED_TICKS_PENDING = 2
    ONE_MISSED_TICK_PENDING = 3


class Altp2mMode(IntEnum):
    """Values of ALTP2M."""

    DISABLED = 0
    MIXED = 1
    EXTERNAL = 2
    LIMITED = 3


class McaCapability(IntFlag):
    """Bits of MCA_CAP."""

    LMCE = 1


class ViridianFeature(IntFlag):
    """Bits of VIRIDIAN."""

    BASE_FREQ = 1 << 0
    NO_FREQ = 1 << 1
    TIME_REF_COUNT = 1 << 2
    REFERENCE_TSC = 1 << 3
    HCALL_REMOTE_TLB_FLUSH = 1 << 4
    APIC_ASSIST = 1 << 5
    CRASH_CTL = 1 << 6
    SYNIC = 1 << 7
    STIMER = 1 << 8
    HCALL_IPI = 1 << 9
    EX_PROCESSOR_MASKS = 1 << 10
    NO_VP_LIMIT = 1 << 11
    CPU_HOTPLUG = 1 << 12


class AcpiV0(IntEnum):
    """Ports of the ACPI blocks while ACPI_IOPORTS_LOCATION is 0, and bytes in the GPE0 block."""

    PM1A_EVT_BLK_ADDRESS = 0x1F40
    PM1A_CNT_BLK_ADDRESS = 0x1F44
    PM_TMR_BLK_ADDRESS = 0x1F48
    GPE0_BLK_ADDRESS = 0x1F68
    GPE0_BLK_LEN = 8


class AcpiV1(IntEnum):
    """Ports of the ACPI blocks once ACPI_IOPORTS_LOCATION is 1, and bytes in the GPE0 block."""

    PM1A_EVT_BLK_ADDRESS = 0xB000
    PM1A_CNT_BLK_ADDRESS = 0xB004
    PM_TMR_BLK_ADDRESS = 0xB008
    GPE0_BLK_ADDRESS = 0xAFE0
    GPE0_BLK_LEN = 4


HVM_PARAM: Final = "xen_hvm_param" / Struct(
    "domid" / Int16ul,
    "pad" / Default(Int16ul, 0),
    "index" / Int32ul,
    "value" / Default(Int64ul, 0),
)
"""Argument of both operations."""
