"""A processor's state as Unicorn keeps it: where each field lies in a saved context.

The library's own register interface cannot load a segment in 64-bit mode, does not show segment
bases, error codes or the interrupt shadow, and never forgets an exception that was delivered, so
that the second page fault of a guest would become a double fault. A saved context is the
processor's whole state in one block; its layout is checked, with values written through the
official interface, each time a processor is made.

Facts: struct CPUX86State and SegmentCache of Unicorn 2.1 (qemu/target/i386/cpu.h); the rules for
the flags that code is translated under are those of cpu_x86_load_seg_cache there.
"""

from __future__ import annotations

import ctypes
import struct
import weakref
from typing import Final, NamedTuple

from ...errors import EngineUnavailable
from .library import Emulator

__all__ = [
    "CS",
    "CS64",
    "DS",
    "ES",
    "FS",
    "GS",
    "IF",
    "INHIBIT",
    "NT",
    "RF",
    "SS",
    "TF",
    "VM",
    "Registers",
    "Segment",
]

ES, CS, SS, DS, FS, GS, LDT, TR, GDT, IDT = range(10)
"""Segment registers in the order of the context."""
RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI = range(8)

TF, IF, NT, RF, VM = 1 << 8, 1 << 9, 1 << 14, 1 << 16, 1 << 17
"""Flags."""
PE, PG = 1 << 0, 1 << 31
"""Bits of CR0."""
OSFXSR_CR4, SMEP = 1 << 9, 1 << 20
"""Bits of CR4."""
NXE: Final = 1 << 11
"""A bit of EFER."""

CPL_MASK: Final = 3
INHIBIT: Final = 1 << 3
CS32, SS32, ADDSEG, PROTECTED = 1 << 4, 1 << 5, 1 << 6, 1 << 7
LMA, CS64, GUEST, OSFXSR = 1 << 14, 1 << 15, 1 << 21, 1 << 22
"""What code is translated under, and the interrupt shadow after STI and MOV SS."""

DESC_B, DESC_L = 1 << 22, 1 << 21
"""Bits of a descriptor's second word."""

DATA: Final = 40
"""Where the state begins in the library's context structure."""
SIZE: Final = 5568
REGS, RIP, EFLAGS, DF, HFLAGS = 0, 128, 136, 172, 176
SEGMENTS, CONTROL, EFER = 184, 424, 592
ERROR_CODE, IS_INT, DR, OLD_EXCEPTION = 5384, 5388, 5400, 5496
VMCB, INTERCEPT = 5504, 5520
XMM, XMM_STRIDE = 824, 64
SEGMENT: Final = struct.Struct("<I4xQII")
"""Selector, base, limit, and the second word of the descriptor."""

REG_RAX, REG_TR, REG_DR0, REG_RIP, REG_RFLAGS = 35, 245, 66, 41, 253
REG_FPCW, REG_FPTAG, REG_MXCSR = 246, 247, 249
REG_FPSW, REG_FP0 = 31, 82
MSRS: Final = {
    0x174: 4800,
    0x175: 4808,
    0x176: 4816,
    0x1A0: 4920,
    0x277: 5280,
    0xC0000081: 4824,
    0xC0000082: 4840,
    0xC0000083: 4848,
    0xC0000084: 4856,
    0xC0000102: 4864,
    0xC0000103: 4896,
}
"""Model-specific registers that the library keeps, but for EFER and those of FS and GS."""
MMR: Final = struct.Struct("<H6xQII")
_MARK: Final = 0x1122334455667788


class Segment(NamedTuple):
    """A segment register with its hidden part. ``flags``: the descriptor's second word."""

    selector: int
    base: int
    limit: int
    flags: int


class Registers:
    """The state of one processor: `load` takes it from the library, `store` puts it back.

    Between the two the fields are plain numbers in one block; ``q`` and ``d`` are that block in
    units of 64 and 32 bits.
    """

    def __init__(self, emulator: Emulator) -> None:
        library = emulator.library
        context = ctypes.c_void_p()
        if library.free.uc_context_alloc(emulator.handle, ctypes.addressof(context)):
            raise MemoryError("no room for a processor's state")
        assert context.value is not None
        self._library, self._handle, self._context = library, emulator.handle, context
        self._free = weakref.finalize(self, library.free.uc_context_free, context)
        if ctypes.c_size_t.from_address(context.value).value != SIZE:
            raise EngineUnavailable(_FOREIGN)
        block = (ctypes.c_ubyte * SIZE).from_address(context.value + DATA)
        self._bytes = memoryview(block).cast("B")
        self.q = self._bytes.cast("Q")
        self.d = self._bytes.cast("I")
        self._check_layout()

    def close(self) -> None:
        """Free the block. The processor is not used any more."""
        self._free()

    def load(self) -> None:
        """Take the state over from the library."""
        self._library.save(self._handle, self._context)

    def store(self) -> None:
        """Give the state to the library. Not in a hook."""
        self._library.restore(self._handle, self._context)

    def _check_layout(self) -> None:
        """Write through the library's interface; the values must show up where they are due."""
        write = self._library.free.uc_context_reg_write
        self.load()
        before = bytes(self._bytes)
        for register, value in (
            (REG_RAX, struct.pack("<Q", _MARK)),
            (REG_RIP, struct.pack("<Q", _MARK + 1)),
            (REG_DR0, struct.pack("<Q", _MARK + 2)),
            (REG_TR, MMR.pack(0x7A5A, _MARK + 3, 0xDEADBE0F, 0x5A5AA5A5)),
        ):
            write(self._context, register, value)
        right = (
            self.q[REGS // 8] == _MARK
            and self.q[RIP // 8] == _MARK + 1
            and self.q[DR // 8] == _MARK + 2
            and self.segment(TR) == (0x7A5A, _MARK + 3, 0xDEADBE0F, 0x5A5AA5A5)
            and before[EFER : EFER + 8] == struct.pack("<Q", 0x500)
            and self.d[HFLAGS // 4] & (LMA | CS64) == LMA | CS64
        )
        if not right:
            raise EngineUnavailable(_FOREIGN)
        self._bytes[:] = before

    def general(self, number: int) -> int:
        """General register ``number``, 0 (RAX) to 15."""
        return self.q[number]

    def set_general(self, number: int, value: int) -> None:
        """Set all 64 bits of a general register."""
        self.q[number] = value

    @property
    def rip(self) -> int:
        """The instruction pointer, without the segment's base."""
        return self.q[RIP // 8]

    @rip.setter
    def rip(self, value: int) -> None:
        self.q[RIP // 8] = value

    @property
    def rsp(self) -> int:
        """The stack pointer, without the segment's base."""
        return self.q[RSP]

    @rsp.setter
    def rsp(self, value: int) -> None:
        self.q[RSP] = value

    @property
    def flags(self) -> int:
        """RFLAGS; the library keeps the arithmetic ones elsewhere."""
        value = ctypes.c_uint64()
        address = ctypes.addressof(value)
        self._library.free.uc_context_reg_read(self._context, REG_RFLAGS, address)
        return value.value

    @flags.setter
    def flags(self, value: int) -> None:
        self._write(REG_RFLAGS, struct.pack("<Q", value | 2))

    @property
    def down(self) -> bool:
        """The direction flag: string instructions go towards lower addresses."""
        return bool(self.d[DF // 4] >> 31)

    @property
    def shadowed(self) -> bool:
        """Whether the next instruction runs before any interrupt: the last was STI or MOV SS."""
        return bool(self.d[HFLAGS // 4] & INHIBIT)

    @property
    def interruptible(self) -> bool:
        """Whether an external interrupt may be delivered now."""
        return self.interrupts_on and not self.shadowed

    @property
    def executes_all(self) -> bool:
        """Whether code may be executed wherever data may be read."""
        return not self.q[EFER // 8] & NXE and not self.cr(4) & SMEP

    @property
    def interrupts_on(self) -> bool:
        """The interrupt flag."""
        return bool(self.q[EFLAGS // 8] & IF)

    @property
    def efer(self) -> int:
        """The extended feature register."""
        return self.q[EFER // 8]

    @property
    def cpl(self) -> int:
        """The privilege level."""
        return self.d[HFLAGS // 4] & CPL_MASK

    @property
    def protected(self) -> bool:
        """Whether protection is on (CR0.PE)."""
        return bool(self.cr(0) & PE)

    @property
    def paging(self) -> bool:
        """Whether paging is on (CR0.PG)."""
        return bool(self.cr(0) & PG)

    @property
    def long(self) -> bool:
        """Whether IA-32e mode is active, be it in a 32-bit code segment."""
        return bool(self.d[HFLAGS // 4] & LMA)

    @property
    def width(self) -> int:
        """The default width of code: 16, 32 or 64."""
        flags = self.d[HFLAGS // 4]
        return 64 if flags & CS64 else 32 if flags & CS32 else 16

    def cr(self, number: int) -> int:
        """A control register."""
        return self.q[CONTROL // 8 + number]

    def set_cr2(self, value: int) -> None:
        """Note the address of a page fault."""
        self.q[CONTROL // 8 + 2] = value

    def segment(self, number: int) -> Segment:
        """A segment register, or LDT, TR, GDT, IDT."""
        return Segment(*SEGMENT.unpack_from(self._bytes, SEGMENTS + SEGMENT.size * number))

    def set_segment(self, number: int, segment: Segment) -> None:
        """Set a segment register with its hidden part; `refresh` must follow."""
        SEGMENT.pack_into(self._bytes, SEGMENTS + SEGMENT.size * number, *segment)

    @property
    def error_code(self) -> int:
        """What the last exception that has an error code brought with it."""
        return self.d[ERROR_CODE // 4]

    @property
    def software(self) -> bool:
        """Whether what was last raised is an INT, INT3 or INTO instruction."""
        return bool(self.d[IS_INT // 4])

    def settle(self) -> None:
        """An event was delivered, or an exit was handled: the library must forget it."""
        self.d[IS_INT // 4] = 0
        self.d[OLD_EXCEPTION // 4] = 0xFFFFFFFF
        self.d[HFLAGS // 4] &= ~INHIBIT

    def refresh(self, cpl: int) -> None:
        """Derive what code is translated under from the segments and the privilege level."""
        flags = self.d[HFLAGS // 4] & ~(CPL_MASK | CS32 | SS32 | ADDSEG | CS64)
        code, stack = self.segment(CS).flags, self.segment(SS).flags
        if flags & LMA and code & DESC_L:
            flags |= CS32 | SS32 | CS64
        else:
            flags |= (CS32 if code & DESC_B else 0) | (SS32 if stack & DESC_B else 0)
            based = any(self.segment(number).base for number in (DS, ES, SS))
            legacy = not self.protected or self.q[EFLAGS // 8] & VM or not code & DESC_B
            flags |= ADDSEG if legacy or based else 0
        self.d[HFLAGS // 4] = flags | cpl

    def reset(self, *, cr0: int, cr3: int, cr4: int, efer: int) -> None:
        """Begin anew: general registers 0, flags 2, the FPU as after FINIT, controls as given."""
        for number in range(16):
            self.q[number] = 0
        self.flags = 2
        self._write(REG_FPCW, struct.pack("<H", 0x37F))
        self._write(REG_FPTAG, struct.pack("<H", 0xFFFF))
        self._write(REG_MXCSR, struct.pack("<I", 0x1F80))
        for number, value in ((0, cr0), (2, 0), (3, cr3), (4, cr4)):
            self.q[CONTROL // 8 + number] = value
        self.q[EFER // 8] = efer
        # TS, EM and MP of CR0 are three neighbouring bits in both places.
        flags = GUEST | (cr0 >> 1 & 7) << 9
        flags |= PROTECTED if cr0 & PE else 0
        flags |= LMA if efer & 1 << 10 else 0
        flags |= OSFXSR if cr4 & OSFXSR_CR4 else 0
        self.d[HFLAGS // 4] = flags
        self.settle()

    def intercept(self, vmcb: int, exits: int) -> None:
        """Have instructions leave the guest: bit n is SVM's exit code 0x60 + n.

        ``vmcb``: GPA of a control block, of which the library reads the MSR map's address.
        """
        self.q[VMCB // 8] = vmcb
        self.q[INTERCEPT // 8] = exits

    def debug(self, number: int) -> int:
        """A debug register."""
        return self.q[DR // 8 + number]

    def set_debug(self, number: int, value: int) -> None:
        """Set a debug register; the library watches nothing by them."""
        self.q[DR // 8 + number] = value

    def msr(self, number: int) -> int:
        """One of `MSRS`."""
        return self.q[MSRS[number] // 8]

    def set_msr(self, number: int, value: int) -> None:
        """Set one of `MSRS`."""
        self.q[MSRS[number] // 8] = value

    def xmm(self, number: int) -> int:
        """An SSE register."""
        at = XMM + XMM_STRIDE * number
        return int.from_bytes(self._bytes[at : at + 16], "little")

    def set_xmm(self, number: int, value: int) -> None:
        """Set an SSE register."""
        at = XMM + XMM_STRIDE * number
        self._bytes[at : at + 16] = value.to_bytes(16, "little")

    def read(self, register: int, length: int) -> int:
        """A register by the library's number, ``length`` bytes of it."""
        value = (ctypes.c_ubyte * 16)()
        address = ctypes.addressof(value)
        self._library.free.uc_context_reg_read(self._context, register, address)
        return int.from_bytes(bytes(value[:length]), "little")

    def write(self, register: int, length: int, value: int) -> None:
        """Set a register by the library's number, of ``length`` bytes."""
        self._write(register, value.to_bytes(length, "little"))

    def shadow(self) -> None:
        """No interrupt before the next instruction has run."""
        self.d[HFLAGS // 4] |= INHIBIT

    def _write(self, register: int, value: bytes) -> None:
        self._library.free.uc_context_reg_write(self._context, register, value)


_FOREIGN: Final = "this build of the unicorn library keeps its registers in another way than 2.1.4"
