"""What CPUID says: the library's processor, without what it does not do, with what is around it.

Facts: Intel SDM volume 2 (CPUID); Xen's leaves come from the domain's hypercall interface; a vCPU's
initial APIC id is twice its number (xen/arch/x86/hvm/vlapic.c).
"""

from __future__ import annotations

import ctypes
import mmap
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from .library import Emulator

if TYPE_CHECKING:
    from ...hypercalls import Hypercalls

__all__ = ["Leaf", "cpuid"]

Leaf = tuple[int, int, int, int]
"""EAX, EBX, ECX, EDX."""

EXTENDED: Final = 0x80000000
XEN: Final = 0x40000000
XEN_END: Final = 0x40010000
REG_EAX, REG_EBX, REG_ECX, REG_EDX = 19, 21, 22, 24
CPUID: Final = b"\x0f\xa2"
CODE: Final = 0x1000
MONITOR, X2APIC, TSC_DEADLINE, HYPERVISOR = 1 << 3, 1 << 21, 1 << 24, 1 << 31
"""ECX of leaf 1. The MSRs of an x2APIC and the deadline timer are not modelled, nor is MONITOR."""
VMX, SVM_LEAF = 1 << 5, 0x80000001
SVM: Final = 1 << 2
RDTSCP: Final = 1 << 27
"""EDX of leaf 0x80000001: the library's own reads the host's counter."""
APIC: Final = 1 << 9


def cpuid(leaf: int, subleaf: int, vcpu: int, hypercalls: Hypercalls | None) -> Leaf:
    """The answer that ``vcpu`` gets."""
    if XEN <= leaf < XEN_END:
        own = hypercalls.cpuid(leaf, vcpu) if hypercalls is not None else None
        return own or (0, 0, 0, 0)
    a, b, c, d = _native(leaf, subleaf)
    if leaf == 1:
        b = b & 0x00FFFFFF | vcpu * 2 << 24
        c &= ~(MONITOR | VMX | X2APIC | TSC_DEADLINE | HYPERVISOR)
        c |= HYPERVISOR if hypercalls is not None else 0
        d |= APIC
    elif leaf == 0xB:
        d = vcpu * 2
    elif leaf == SVM_LEAF:
        c &= ~SVM
        d = d & ~RDTSCP | APIC
    return a, b, c, d


@lru_cache(maxsize=256)
def _native(leaf: int, subleaf: int) -> Leaf:
    """What the library's processor says, asked of one that runs nothing else."""
    emulator = Emulator()
    page = mmap.mmap(-1, CODE)
    page[: len(CPUID)] = CPUID
    buffer = (ctypes.c_ubyte * CODE).from_buffer(page)
    emulator.map_ram(CODE, CODE, ctypes.addressof(buffer))
    free = emulator.library.free
    for register, value in ((REG_EAX, leaf), (REG_ECX, subleaf)):
        free.uc_reg_write(emulator.handle, register, value.to_bytes(4, "little"))
    emulator.run(CODE, 1)
    out = []
    slot = ctypes.c_uint64()
    for register in (REG_EAX, REG_EBX, REG_ECX, REG_EDX):
        slot.value = 0
        emulator.library.read_register(emulator.handle, ctypes.c_int(register), ctypes.byref(slot))
        out.append(slot.value & 0xFFFFFFFF)
    emulator.close()
    return out[0], out[1], out[2], out[3]
