"""Which string instruction the guest's bytes are: the assembler says, the decoder must agree."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.hypervisor.engines.unicorn.registers import CS, DS, ES, FS, GS, SS
from tools.hypervisor.engines.unicorn.strings import INS, MOVS, OUTS, STOS, decode, room

from .machine import assemble

BITS = {16: 0xFFFF, 32: 0xFFFFFFFF, 64: (1 << 64) - 1}

CASES = [
    ("rep insb", 32, INS, 1, 32, DS),
    ("rep insw", 16, INS, 2, 16, DS),
    ("rep insl", 16, INS, 4, 16, DS),
    ("rep insl", 64, INS, 4, 64, DS),
    ("rep outsw %es:(%esi), (%dx)", 32, OUTS, 2, 32, ES),
    ("rep outsb %cs:(%si), (%dx)", 16, OUTS, 1, 16, CS),
    ("repne outsl (%esi), (%dx)", 64, OUTS, 4, 32, DS),
    ("rep movsb", 16, MOVS, 1, 16, DS),
    ("rep movsl %fs:(%esi), (%edi)", 16, MOVS, 4, 32, FS),
    ("rep movsw %gs:(%si), (%di)", 32, MOVS, 2, 16, GS),
    ("rep movsq", 64, MOVS, 8, 64, DS),
    ("rep movsl %ss:(%esi), (%edi)", 64, MOVS, 4, 32, SS),
    ("rep stosw", 64, STOS, 2, 64, DS),
    ("rep stosq", 64, STOS, 8, 64, DS),
    ("rep stosl", 32, STOS, 4, 32, DS),
]


@pytest.mark.parametrize(("text", "width", "kind", "size", "bits", "segment"), CASES)
def test_what_the_assembler_makes_is_recognised(
    tmp_path: Path, text: str, width: int, kind: int, size: int, bits: int, segment: int
) -> None:
    found = decode(assemble(tmp_path, text, width), width)
    assert found is not None
    assert (found.kind, found.size, found.mask) == (kind, size, BITS[bits])
    assert found.segment == segment
    assert found.repeats


@pytest.mark.parametrize(
    "text",
    ["in (%dx), %al", "mov (%ecx), %eax", "rep lodsb", "repe cmpsb", "nop", "lock incl (%ecx)"],
)
def test_other_instructions_are_not(tmp_path: Path, text: str) -> None:
    assert decode(assemble(tmp_path, text, 32), 32) is None


def test_without_a_prefix_it_does_not_repeat(tmp_path: Path) -> None:
    found = decode(assemble(tmp_path, "insb", 32), 32)
    assert found is not None
    assert not found.repeats


def test_a_rex_prefix_counts_only_right_before_the_opcode() -> None:
    late = decode(bytes.fromhex("48f3a5"), 64)
    assert late is not None
    assert late.size == 4
    assert decode(bytes.fromhex("f348a5"), 64) == late._replace(size=8)


def test_prefixes_without_an_end_are_no_instruction() -> None:
    assert decode(b"\xf3" * 15, 32) is None
    assert decode(b"", 32) is None


@pytest.mark.parametrize(
    ("address", "size", "down", "count"),
    [
        (0x1000, 4, False, 1024),
        (0x1FFC, 4, False, 1),
        (0x1FFD, 4, False, 0),
        (0x1FFD, 4, True, 0),
        (0x1004, 4, True, 2),
        (0x1003, 4, True, 1),
        (0x1FFF, 1, True, 4096),
    ],
)
def test_how_many_elements_a_page_has(address: int, size: int, down: bool, count: int) -> None:
    assert room(address, size, down) == count
