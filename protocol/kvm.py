"""Linux's KVM interface on x86: requests of ioctl, their structures, and that of a vCPU's page.

ctypes rather than construct: these structures are handed to the kernel as they lie in memory, and
the run page is looked at in place. Source: linux/kvm.h, asm/kvm.h; Documentation/virt/kvm/api.rst.
"""

from __future__ import annotations

import ctypes as c
from enum import IntEnum, IntFlag, unique
from typing import Final

__all__ = [
    "KVM_API_VERSION",
    "KVM_CPUID_ENTRIES",
    "KVM_MEM_READONLY",
    "KVM_MSR_EXIT_REASONS",
    "KVM_PIT_SPEAKER_DUMMY",
    "KVM_RUN_DATA_OFFSET",
    "KvmCap",
    "KvmCpuid",
    "KvmCpuidEntry",
    "KvmDescriptorTable",
    "KvmEnableCap",
    "KvmExit",
    "KvmExitData",
    "KvmInternal",
    "KvmInternalError",
    "KvmIo",
    "KvmIrqLevel",
    "KvmIrqRouting",
    "KvmIrqRoutingEntry",
    "KvmMemoryRegion",
    "KvmMmio",
    "KvmMsi",
    "KvmMsr",
    "KvmPitConfig",
    "KvmRegs",
    "KvmRequest",
    "KvmRun",
    "KvmSegment",
    "KvmSignalMask",
    "KvmSregs",
    "KvmVcpuEvents",
    "KvmVcpuEventsFlag",
    "kvm_request",
]

KVM_API_VERSION: Final = 12
KVM_PIT_SPEAKER_DUMMY: Final = 1
"""Flag of KvmPitConfig: the PIT answers port 0x61, too."""
KVM_MEM_READONLY: Final = 1 << 1
KVM_MSR_EXIT_REASONS: Final = 3
"""Argument of KvmCap.X86_USER_SPACE_MSR: accesses to unknown and to refused MSRs come out."""
KVM_CPUID_ENTRIES: Final = 256
"""Room for leaves; the kernel's own limit (KVM_MAX_CPUID_ENTRIES)."""
KVM_RUN_DATA_OFFSET: Final = 32
"""Where in the run page the union is whose member the exit reason names."""


@unique
class KvmCap(IntEnum):
    """Capabilities (KVM_CAP_…), for CHECK_EXTENSION and ENABLE_CAP."""

    IRQCHIP = 0
    NR_VCPUS = 9
    IRQ_ROUTING = 25
    PIT2 = 33
    SIGNAL_MSI = 77
    IMMEDIATE_EXIT = 136
    X86_USER_SPACE_MSR = 188


@unique
class KvmExit(IntEnum):
    """Why a vCPU came back (KVM_EXIT_…)."""

    UNKNOWN = 0
    IO = 2
    HLT = 5
    MMIO = 6
    SHUTDOWN = 8
    FAIL_ENTRY = 9
    INTR = 10
    INTERNAL_ERROR = 17
    SYSTEM_EVENT = 24
    X86_RDMSR = 29
    X86_WRMSR = 30


@unique
class KvmInternalError(IntEnum):
    """What KvmExit.INTERNAL_ERROR says first (KVM_INTERNAL_ERROR_…)."""

    EMULATION = 1
    SIMUL_EX = 2
    DELIVERY_EV = 3
    UNEXPECTED_EXIT_REASON = 4


@unique
class KvmVcpuEventsFlag(IntFlag):
    """Which parts of KvmVcpuEvents count (KVM_VCPUEVENT_VALID_…)."""

    NMI_PENDING = 1
    SIPI_VECTOR = 2
    SHADOW = 4


class KvmMemoryRegion(c.Structure):
    """struct kvm_userspace_memory_region."""

    _fields_ = (
        ("slot", c.c_uint32),
        ("flags", c.c_uint32),
        ("guest_phys_addr", c.c_uint64),
        ("memory_size", c.c_uint64),
        ("userspace_addr", c.c_uint64),
    )


class KvmIrqLevel(c.Structure):
    """struct kvm_irq_level."""

    _fields_ = (("irq", c.c_uint32), ("level", c.c_uint32))


class KvmIrqRoutingEntry(c.Structure):
    """struct kvm_irq_routing_entry, for the type that names a pin of a chip (1)."""

    _fields_ = (
        ("gsi", c.c_uint32),
        ("type", c.c_uint32),
        ("flags", c.c_uint32),
        ("pad", c.c_uint32),
        ("irqchip", c.c_uint32),
        ("pin", c.c_uint32),
        ("rest", c.c_uint32 * 6),
    )


class KvmIrqRouting(c.Structure):
    """struct kvm_irq_routing with room for 64 entries."""

    _fields_ = (("nr", c.c_uint32), ("flags", c.c_uint32), ("entries", KvmIrqRoutingEntry * 64))


class KvmMsi(c.Structure):
    """struct kvm_msi."""

    _fields_ = (
        ("address_lo", c.c_uint32),
        ("address_hi", c.c_uint32),
        ("data", c.c_uint32),
        ("flags", c.c_uint32),
        ("devid", c.c_uint32),
        ("pad", c.c_uint8 * 12),
    )


class KvmPitConfig(c.Structure):
    """struct kvm_pit_config."""

    _fields_ = (("flags", c.c_uint32), ("pad", c.c_uint32 * 15))


class KvmEnableCap(c.Structure):
    """struct kvm_enable_cap."""

    _fields_ = (
        ("cap", c.c_uint32),
        ("flags", c.c_uint32),
        ("args", c.c_uint64 * 4),
        ("pad", c.c_uint8 * 64),
    )


class KvmSignalMask(c.Structure):
    """struct kvm_signal_mask with the kernel's signal set, whose ``len`` is 8: bit n - 1 for n."""

    _pack_ = 4
    _fields_ = (("len", c.c_uint32), ("sigset", c.c_uint64))


class KvmRegs(c.Structure):
    """struct kvm_regs."""

    _fields_ = tuple(
        (name, c.c_uint64)
        for name in (
            *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp"),
            *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip", "rflags"),
        )
    )


class KvmSegment(c.Structure):
    """struct kvm_segment."""

    _fields_ = (
        ("base", c.c_uint64),
        ("limit", c.c_uint32),
        ("selector", c.c_uint16),
        *(
            (name, c.c_uint8)
            for name in (
                "type",
                "present",
                "dpl",
                "db",
                "s",
                "l",
                "g",
                "avl",
                "unusable",
                "padding",
            )
        ),
    )


class KvmDescriptorTable(c.Structure):
    """struct kvm_dtable."""

    _fields_ = (("base", c.c_uint64), ("limit", c.c_uint16), ("padding", c.c_uint16 * 3))


class KvmSregs(c.Structure):
    """struct kvm_sregs."""

    _fields_ = (
        *((name, KvmSegment) for name in ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt")),
        ("gdt", KvmDescriptorTable),
        ("idt", KvmDescriptorTable),
        *((name, c.c_uint64) for name in ("cr0", "cr2", "cr3", "cr4", "cr8", "efer", "apic_base")),
        ("interrupt_bitmap", c.c_uint64 * 4),
    )


class KvmCpuidEntry(c.Structure):
    """struct kvm_cpuid_entry2."""

    _fields_ = (
        *((name, c.c_uint32) for name in ("function", "index", "flags")),
        *((name, c.c_uint32) for name in ("eax", "ebx", "ecx", "edx")),
        ("padding", c.c_uint32 * 3),
    )


class KvmCpuid(c.Structure):
    """struct kvm_cpuid2 with room for `KVM_CPUID_ENTRIES` entries."""

    _fields_ = (
        ("nent", c.c_uint32),
        ("padding", c.c_uint32),
        ("entries", KvmCpuidEntry * KVM_CPUID_ENTRIES),
    )


class KvmVcpuEvents(c.Structure):
    """struct kvm_vcpu_events."""

    _fields_ = (
        *((f"exception_{name}", c.c_uint8) for name in ("injected", "nr", "has_error_code")),
        ("exception_pending", c.c_uint8),
        ("exception_error_code", c.c_uint32),
        *((f"interrupt_{name}", c.c_uint8) for name in ("injected", "nr", "soft", "shadow")),
        *((f"nmi_{name}", c.c_uint8) for name in ("injected", "pending", "masked", "pad")),
        ("sipi_vector", c.c_uint32),
        ("flags", c.c_uint32),
        ("smi", c.c_uint8 * 4),
        ("triple_fault_pending", c.c_uint8),
        ("reserved", c.c_uint8 * 26),
        ("exception_has_payload", c.c_uint8),
        ("exception_payload", c.c_uint64),
    )


class KvmIo(c.Structure):
    """The union's member for KvmExit.IO. ``direction``: 1 is out; the data is in the same page."""

    _fields_ = (
        ("direction", c.c_uint8),
        ("size", c.c_uint8),
        ("port", c.c_uint16),
        ("count", c.c_uint32),
        ("data_offset", c.c_uint64),
    )


class KvmMmio(c.Structure):
    """The union's member for KvmExit.MMIO."""

    _fields_ = (
        ("phys_addr", c.c_uint64),
        ("data", c.c_uint8 * 8),
        ("len", c.c_uint32),
        ("is_write", c.c_uint8),
    )


class KvmMsr(c.Structure):
    """The union's member for KvmExit.X86_RDMSR and X86_WRMSR."""

    _fields_ = (
        ("error", c.c_uint8),
        ("pad", c.c_uint8 * 7),
        ("reason", c.c_uint32),
        ("index", c.c_uint32),
        ("data", c.c_uint64),
    )


class KvmInternal(c.Structure):
    """The union's member for KvmExit.INTERNAL_ERROR."""

    _fields_ = (("suberror", c.c_uint32), ("ndata", c.c_uint32), ("data", c.c_uint64 * 16))


class KvmExitData(c.Union):
    """What an exit says; ``words`` for the reasons that have no structure here."""

    _fields_ = (
        ("io", KvmIo),
        ("mmio", KvmMmio),
        ("msr", KvmMsr),
        ("internal", KvmInternal),
        ("words", c.c_uint64 * 32),
    )


class KvmRun(c.Structure):
    """struct kvm_run, the page that a vCPU shares with its user."""

    _fields_ = (
        ("request_interrupt_window", c.c_uint8),
        ("immediate_exit", c.c_uint8),
        ("padding1", c.c_uint8 * 6),
        ("exit_reason", c.c_uint32),
        ("ready_for_interrupt_injection", c.c_uint8),
        ("if_flag", c.c_uint8),
        ("flags", c.c_uint16),
        ("cr8", c.c_uint64),
        ("apic_base", c.c_uint64),
        ("exit", KvmExitData),
    )


_KVMIO = 0xAE
_WRITE, _READ = 1, 2


def kvm_request(number: int, direction: int = 0, size: int = 0) -> int:
    """The number of an ioctl request (asm-generic/ioctl.h: _IO, _IOW, _IOR, _IOWR)."""
    return direction << 30 | size << 16 | _KVMIO << 8 | number


@unique
class KvmRequest(IntEnum):
    """Requests, by the names of linux/kvm.h."""

    GET_API_VERSION = kvm_request(0x00)
    CREATE_VM = kvm_request(0x01)
    CHECK_EXTENSION = kvm_request(0x03)
    GET_VCPU_MMAP_SIZE = kvm_request(0x04)
    # struct kvm_cpuid2 ends with an array of no size, so its size in the number is that of 8 bytes.
    GET_SUPPORTED_CPUID = kvm_request(0x05, _READ | _WRITE, 8)
    CREATE_VCPU = kvm_request(0x41)
    SET_USER_MEMORY_REGION = kvm_request(0x46, _WRITE, c.sizeof(KvmMemoryRegion))
    SET_TSS_ADDR = kvm_request(0x47)
    SET_IDENTITY_MAP_ADDR = kvm_request(0x48, _WRITE, 8)
    CREATE_IRQCHIP = kvm_request(0x60)
    IRQ_LINE = kvm_request(0x61, _WRITE, c.sizeof(KvmIrqLevel))
    # As with the leaves of CPUID: 8 bytes and an array of no size.
    SET_GSI_ROUTING = kvm_request(0x6A, _WRITE, 8)
    CREATE_PIT2 = kvm_request(0x77, _WRITE, c.sizeof(KvmPitConfig))
    RUN = kvm_request(0x80)
    GET_REGS = kvm_request(0x81, _READ, c.sizeof(KvmRegs))
    SET_REGS = kvm_request(0x82, _WRITE, c.sizeof(KvmRegs))
    GET_SREGS = kvm_request(0x83, _READ, c.sizeof(KvmSregs))
    SET_SREGS = kvm_request(0x84, _WRITE, c.sizeof(KvmSregs))
    # The signal set counts no more than those arrays.
    SET_SIGNAL_MASK = kvm_request(0x8B, _WRITE, 4)
    SET_CPUID2 = kvm_request(0x90, _WRITE, 8)
    NMI = kvm_request(0x9A)
    GET_VCPU_EVENTS = kvm_request(0x9F, _READ, c.sizeof(KvmVcpuEvents))
    SET_VCPU_EVENTS = kvm_request(0xA0, _WRITE, c.sizeof(KvmVcpuEvents))
    GET_TSC_KHZ = kvm_request(0xA3)
    ENABLE_CAP = kvm_request(0xA3, _WRITE, c.sizeof(KvmEnableCap))
    SIGNAL_MSI = kvm_request(0xA5, _WRITE, c.sizeof(KvmMsi))
