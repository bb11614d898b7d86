"""The engine's own walk of page tables leads where the processor's does.

Each guest reads a linear address, whose physical one the processor finds; the engine is asked for
the same address while the guest waits.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.hypervisor.clock import VirtualClock
from tools.hypervisor.engines.unicorn.paging import FaultError, LinearMemory
from tools.hypervisor.engines.unicorn.registers import Registers

from .machine import DATA, Guest, guest

FINISH = "mov $0xf5, %dx; out %eax, %dx; 1: jmp 1b"
TABLES = 0x200000
LEGACY = f"""
    movl $0x83, {TABLES}; movl ${TABLES + 0x1007}, {TABLES + 4 * 0x240}
    movl ${DATA + 7}, {TABLES + 0x1000 + 4 * 5}
    movl ${DATA + 0x1005}, {TABLES + 0x1000 + 4 * 6}
    mov $0x10, %eax; mov %eax, %cr4
    mov ${TABLES}, %eax; mov %eax, %cr3; mov %cr0, %eax; or $0x80010000, %eax; mov %eax, %cr0
"""
PAE = f"""
    movl ${TABLES + 0x1001}, {TABLES}; movl ${TABLES + 0x2001}, {TABLES + 16}
    movl $0x83, {TABLES + 0x1000}; movl $0x200083, {TABLES + 0x1008}
    movl ${TABLES + 0x3007}, {TABLES + 0x2000 + 8 * 0x80}
    movl ${DATA + 7}, {TABLES + 0x3000 + 8 * 5}; movl ${DATA + 0x1005}, {TABLES + 0x3000 + 8 * 6}
    mov $0x20, %eax; mov %eax, %cr4
    mov ${TABLES}, %eax; mov %eax, %cr3; mov %cr0, %eax; or $0x80010000, %eax; mov %eax, %cr0
"""
LONG = f"""
    movq ${TABLES + 0x2003}, 0x101000 + 8 * 2; movq ${TABLES + 0x3003}, {TABLES + 0x2000 + 8 * 0x80}
    movq ${DATA + 3}, {TABLES + 0x3000 + 8 * 5}; movq ${DATA + 0x1001}, {TABLES + 0x3000 + 8 * 6}
    mov %cr0, %rax; or $0x10000, %rax; mov %rax, %cr0
    mov %cr3, %rax; mov %rax, %cr3
"""
WINDOW = 0x90005000
"""Linear: a writable page at DATA, then a read-only one, then nothing."""


@pytest.mark.parametrize(
    ("mode", "tables"), [("protected", LEGACY), ("protected", PAE), ("long", LONG)]
)
def test_the_walk_finds_what_the_processor_finds(tmp_path: Path, mode: str, tables: str) -> None:
    source = f"""{tables}
    mov ${WINDOW + 0x123}, %esi; mov (%rsi), %ebx; mov ${WINDOW + 0x1FFC}, %esi; add (%rsi), %ebx
    out %al, $0x80; mov %ebx, %eax; {FINISH}"""
    if mode == "protected":
        source = source.replace("%rsi", "%esi")
    with guest(tmp_path, source, mode, clock=VirtualClock()) as made:  # type: ignore[arg-type]
        made.domain.memory.write(DATA + 0x123, (40).to_bytes(4, "little"))
        made.domain.memory.write(DATA + 0x1FFC, (2).to_bytes(4, "little"))
        errors: list[str] = []
        made.recorders[0].on_write = lambda *_: errors.extend(walk(made))
        made.run()
    assert made.last == 42
    assert errors == []


def walk(made: Guest) -> list[str]:
    """What the engine's walk gets wrong about the window."""
    processor = made.engine._loops[0]._processor
    registers: Registers = processor.registers
    registers.load()
    memory: LinearMemory = processor.memory
    wrong = []
    for offset, write, expected in (
        (0x123, True, DATA + 0x123),
        (0x1FFC, False, DATA + 0x1FFC),
        (0x1FFC, True, 3),
        (0x2000, False, 0),
        (0x2000, True, 2),
    ):
        try:
            found = memory.translate(WINDOW + offset, write=write)
        except FaultError as fault:
            right = (fault.vector, fault.cr2) == (14, WINDOW + offset)
            found = fault.error_code or 0 if right else -1
        if found != expected:
            wrong.append(f"{offset:#x} {write}: {found:#x}, not {expected:#x}")
    return wrong
