"""A guest that changes its own memory, on the unicorn engine: what was a hole is RAM, and back."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocol import layouts
from tools.hypervisor.hypercalls import Hypercalls

from .machine import DATA, TABLES, Guest, guest

FINISH = "mov $0xf5, %dx; out %eax, %dx; 1: jmp 1b"
PAGE = 0x40000
CALL = PAGE + layouts.HYPERCALL_STUB_SIZE * layouts.HYPERCALL_MEMORY_OP
POPULATE, DECREASE = layouts.MEMORY_OP_POPULATE_PHYSMAP, layouts.MEMORY_OP_DECREASE_RESERVATION
HOLE = 0xFC001000
SETUP = f"mov ${Hypercalls.msr}, %ecx; mov ${PAGE}, %eax; xor %edx, %edx; wrmsr"
RESERVATION_32 = f"""
    movl ${DATA + 0x40}, {DATA}; movl $1, {DATA + 4}; movl $0, {DATA + 8}; movl $0, {DATA + 12}
    movl ${layouts.DOMID_SELF}, {DATA + 16}
"""
RESERVATION_64 = f"""
    movq ${DATA + 0x40}, {DATA}; movq $1, {DATA + 8}; movq $0, {DATA + 16}
    movl ${layouts.DOMID_SELF}, {DATA + 24}
"""


def do_32(operation: int, gpa: int) -> str:
    return f"""movl ${gpa >> 12}, {DATA + 0x40}
    mov ${operation}, %ebx; mov ${DATA}, %ecx; mov ${CALL}, %eax; call *%eax"""


def do_64(operation: int, gpa: int) -> str:
    return f"""movq ${gpa >> 12}, {DATA + 0x40}
    mov ${operation}, %edi; mov ${DATA}, %esi; mov ${CALL}, %eax; call *%rax"""


def run(made: Guest) -> list[tuple[object, ...]]:
    """The accesses that left the guest."""
    made.domain.hypercalls = Hypercalls(made.domain)
    made.run()
    return made.log


def test_a_populated_page_is_ram_and_what_is_beside_it_still_a_hole(tmp_path: Path) -> None:
    source = f"""{SETUP} {RESERVATION_32} {do_32(POPULATE, HOLE)}
    movl $0x1234, {HOLE}; movl $7, {HOLE + 0xFFC}; mov {HOLE}, %esi
    movl $5, {HOLE + 0x1000}; movl $6, {HOLE - 4}
    mov %esi, %eax; {FINISH}"""
    with guest(tmp_path, source) as made:
        log = run(made)
        assert made.domain.memory.read(HOLE, 4) == b"\x34\x12\0\0"
        assert made.last == 0x1234
    assert [entry[1:] for entry in log] == [(HOLE + 0x1000, 4, 5), (HOLE - 4, 4, 6)]


@pytest.mark.parametrize("gpa", [0x300000, HOLE])
def test_a_page_that_was_given_back_is_a_hole(tmp_path: Path, gpa: int) -> None:
    populate = do_32(POPULATE, gpa) if gpa == HOLE else ""
    source = f"""{SETUP} {RESERVATION_32} {populate}
    movl $1, {gpa} {"; " + do_32(DECREASE, gpa)}
    movl $2, {gpa}; movl $3, {gpa + 8}
    {do_32(POPULATE, gpa)}
    mov {gpa}, %esi; mov $0, %eax; mov %esi, %eax; {FINISH}"""
    with guest(tmp_path, source) as made:
        log = run(made)
        assert made.last == 0, "the page comes back zeroed"
    assert [entry[1:] for entry in log] == [(gpa, 4, 2), (gpa + 8, 4, 3)]


def test_many_pages_one_by_one(tmp_path: Path) -> None:
    source = f"""{SETUP} {RESERVATION_32} mov ${HOLE >> 12}, %edi
    again: mov %edi, {DATA + 0x40}
    mov ${POPULATE}, %ebx; mov ${DATA}, %ecx; mov ${CALL}, %eax; call *%eax
    mov %edi, %eax; shl $12, %eax; mov %edi, (%eax); mov (%eax), %edx
    inc %edi; cmp ${(HOLE >> 12) + 64}, %edi; jb again
    mov %edx, %eax; {FINISH}"""
    with guest(tmp_path, source) as made:
        assert run(made) == []
        assert made.last == (HOLE >> 12) + 63


def test_with_paging_on_a_change_leaves_no_trace_of_a_page_fault(tmp_path: Path) -> None:
    """The library looks a hole's address up as a linear one when it unmaps it."""
    window = 0x80000000
    source = f"""{SETUP} {RESERVATION_64} {do_64(POPULATE, HOLE)}
    mov ${window + HOLE % 0x200000}, %eax; movl $0x4321, (%rax); mov (%rax), %esi
    mov ${window + 0x5000}, %eax; movl $9, (%rax)
    mov %cr2, %rax; add %esi, %eax; {FINISH}"""
    with guest(tmp_path, source, "long") as made:
        leaves = TABLES + 0x2000
        made.domain.memory.write(leaves + 8 * (HOLE >> 21), bytes(8))
        entry = HOLE & ~0x1FFFFF | 0x83
        made.domain.memory.write(leaves + 8 * (window >> 21), entry.to_bytes(8, "little"))
        log = run(made)
        assert made.domain.memory.read(HOLE, 4) == b"\x21\x43\0\0"
        assert made.last == 0x4321
    assert [entry[1:] for entry in log] == [(0xFC005000, 4, 9)]
