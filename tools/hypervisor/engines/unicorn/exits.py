"""What leaves the guest without being an access: HLT, RDMSR, WRMSR and hypercalls.

The library cannot hook these, but its processor has AMD's virtualisation: what runs as an SVM guest
leaves it by an exit code where the control block says so, and the library reports that as an
interrupt of number 0x100 + code. No VMRUN is involved; the engine sets the state itself.

Facts: AMD APM volume 2, appendix B (control block) and C (exit codes), 15.11 (MSR map); Intel SDM
volume 4 (MSRs); xen/arch/x86/hvm/hypercall.c (argument registers).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from ...errors import NotRamError
from .paging import FaultError
from .registers import RAX, RBX, RCX, RDI, RDX, RSI, Registers

if TYPE_CHECKING:
    from ...hypercalls import Hypercalls

__all__ = [
    "CONTROL_SIZE",
    "EXITS",
    "EXIT_BASE",
    "HALT",
    "HYPERCALL_LENGTH",
    "MSR",
    "control_pages",
    "hypercall",
    "is_hypercall",
    "read_msr",
    "write_msr",
]

EXIT_BASE: Final = 0x100
INTERCEPTS: Final = 0x60
HALT: Final = 0x78
MSR: Final = 0x7C
EXITS: Final = 1 << HALT - INTERCEPTS | 1 << MSR - INTERCEPTS

PAGE: Final = 0x1000
CONTROL_SIZE: Final = 3 * PAGE
"""A control block, and the two pages of the MSR map."""
MSR_MAP_FIELD: Final = 0x48
APIC_BASE: Final = 0x1B
TSC: Final = 0x10
LEAVING: Final = (TSC, APIC_BASE)
"""MSRs of the map's first range that leave the guest; those outside of all ranges always do."""
LAPIC_ON: Final = 0xFEE00000 | 1 << 11
BOOTSTRAP: Final = 1 << 8
PROTECTION: Final = 13
UNDEFINED: Final = 6

VMCALL: Final = (b"\x0f\x01\xc1", b"\x0f\x01\xd9")
"""Intel's and AMD's hypercall instruction; neither exists in the library's processor."""
HYPERCALL_LENGTH: Final = 3
MASK_32: Final = 0xFFFFFFFF
R8, R10 = 8, 10


def control_pages(gpa: int) -> bytes:
    """The control block and its MSR map for the pages at ``gpa``."""
    pages = bytearray(CONTROL_SIZE)
    struct.pack_into("<Q", pages, MSR_MAP_FIELD, gpa + PAGE)
    for msr in LEAVING:
        pages[PAGE + msr // 4] |= 3 << msr % 4 * 2
    return bytes(pages)


def read_msr(registers: Registers, vcpu: int, tsc: int) -> None:
    """RDMSR of an MSR that leaves the guest. FaultError: there is none of that number."""
    number = registers.general(RCX) & MASK_32
    if number == APIC_BASE:
        value = LAPIC_ON | (BOOTSTRAP if vcpu == 0 else 0)
    elif number == TSC:
        value = tsc
    else:
        raise FaultError(PROTECTION, 0)
    registers.set_general(RAX, value & MASK_32)
    registers.set_general(RDX, value >> 32 & MASK_32)


def write_msr(registers: Registers, hypercalls: Hypercalls | None) -> None:
    """WRMSR of an MSR that leaves the guest. FaultError: there is none of that number.

    The local APIC stays on and where it is, and the time-stamp counter cannot be set: such writes
    do nothing.
    """
    number = registers.general(RCX) & MASK_32
    if hypercalls is not None and number == hypercalls.msr:
        value = (registers.general(RDX) & MASK_32) << 32 | registers.general(RAX) & MASK_32
        try:
            hypercalls.fill_page(value, wide=registers.width == 64)
        except NotRamError:
            raise FaultError(PROTECTION, 0) from None
    elif number not in LEAVING:
        raise FaultError(PROTECTION, 0)


def is_hypercall(code: bytes) -> bool:
    """Whether code begins with a hypercall instruction."""
    return code[:HYPERCALL_LENGTH] in VMCALL


def hypercall(registers: Registers, vcpu: int, hypercalls: Hypercalls) -> None:
    """Perform the hypercall in the registers. FaultError: not from user mode."""
    if registers.cpl:
        raise FaultError(UNDEFINED)
    wide = registers.width == 64
    places = (RDI, RSI, RDX, R10, R8) if wide else (RBX, RCX, RDX, RSI, RDI)
    mask = (1 << 64) - 1 if wide else MASK_32
    arguments = [registers.general(place) & mask for place in places]
    number = registers.general(RAX) & MASK_32
    registers.set_general(RAX, hypercalls.call(vcpu, number, arguments, wide))
