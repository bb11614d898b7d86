"""String instructions: recognising one in the guest's code, and the RAM that it moves.

Only those that move blocks: INS, OUTS, MOVS, STOS. Others are not looked for.
Facts: Intel SDM volume 2 (prefixes, REX, operand and address sizes).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from .paging import PAGE, FaultError, LinearMemory, UnreachableError
from .registers import CS, DS, ES, FS, GS, RCX, SS, Registers

__all__ = ["StringInstruction", "decode", "fetch", "room"]

SEGMENTS: Final = {0x26: ES, 0x2E: CS, 0x36: SS, 0x3E: DS, 0x64: FS, 0x65: GS}
OPERAND_SIZE, ADDRESS_SIZE, LOCK, REPNE, REP = 0x66, 0x67, 0xF0, 0xF2, 0xF3
INS, OUTS, MOVS, STOS = 0x6C, 0x6E, 0xA4, 0xAA
KINDS: Final = (INS, OUTS, MOVS, STOS)
LONGEST: Final = 15


class StringInstruction(NamedTuple):
    """A block instruction. ``kind``: its byte opcode; ``size``: bytes of an element; ``mask``: the
    address size's; ``segment``: of the source; ``flat``: 64-bit code; ``repeats``: with a prefix.
    """

    kind: int
    size: int
    mask: int
    segment: int
    flat: bool
    repeats: bool

    def count(self, registers: Registers) -> int:
        """How many elements are left."""
        return registers.general(RCX) & self.mask if self.repeats else 1

    def linear(self, registers: Registers, index: int) -> int:
        """The linear address in RSI or RDI (``index``) with its segment."""
        segment = self.segment if index != 7 else ES
        offset = registers.general(index) & self.mask
        if self.flat and segment not in (FS, GS):
            return offset
        return registers.segment(segment).base + offset

    def advance(self, registers: Registers, index: int, count: int) -> int:
        """The value of register ``index`` after ``count`` elements (RCX: that many fewer)."""
        step = -1 if index == RCX else -self.size if registers.down else self.size
        old = registers.general(index)
        new = old + step * count & self.mask
        return old & ~self.mask | new if self.mask == 0xFFFF else new


def decode(code: bytes, width: int) -> StringInstruction | None:
    """The block instruction that ``code`` begins with; None when it is something else.

    ``width``: the code segment's, 16, 32 or 64.
    """
    operand = address = repeats = False
    segment, rex = DS, 0
    for byte in code:
        if byte in SEGMENTS:
            segment = SEGMENTS[byte]
        elif byte == OPERAND_SIZE:
            operand = True
        elif byte == ADDRESS_SIZE:
            address = True
        elif byte in (REP, REPNE):
            repeats = True
        elif width == 64 and byte & 0xF0 == 0x40:
            rex = byte
            continue
        elif byte != LOCK:
            found = _instruction(byte, width, operand, address, segment, rex)
            return found._replace(repeats=repeats) if found is not None else None
        rex = 0
    return None


def _instruction(
    opcode: int, width: int, operand: bool, address: bool, segment: int, rex: int
) -> StringInstruction | None:
    kind = opcode & ~1
    if kind not in KINDS:
        return None
    size = 2 if (width == 16) != operand else 4
    if rex & 8 and kind in (MOVS, STOS):
        size = 8
    if width == 64:
        bits = 32 if address else 64
    else:
        bits = 16 if (width == 16) != address else 32
    return StringInstruction(
        kind, size if opcode & 1 else 1, (1 << bits) - 1, segment, width == 64, False
    )


def fetch(registers: Registers, memory: LinearMemory, offset: int = 0) -> bytes:
    """The code ``offset`` bytes from the instruction pointer, as far as its page goes."""
    base = 0 if registers.width == 64 else registers.segment(CS).base
    linear = base + registers.rip + offset
    try:
        return memory.read(linear, min(LONGEST, PAGE - (linear & (PAGE - 1))))
    except (FaultError, UnreachableError):
        return b""


def room(address: int, size: int, down: bool) -> int:
    """How many whole elements lie in the page of the first one, which is at ``address``."""
    offset = address & (PAGE - 1)
    if offset + size > PAGE:
        return 0
    return offset // size + 1 if down else (PAGE - offset) // size
