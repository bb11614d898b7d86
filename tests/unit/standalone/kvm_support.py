"""A guest on KVM with nobody but the test around: its domain's own handlers note what it accesses.

Where KVM does not run a mode, tests of it are skipped with the probe's reason.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest

from tools.hypervisor.clock import RealClock
from tools.hypervisor.domain import Domain
from tools.hypervisor.engines.kvm.engine import KvmEngine
from tools.hypervisor.engines.kvm.probe import unusable
from tools.hypervisor.hypercalls import Hypercalls
from tools.hypervisor.images import CpuStart

from .core_emulator import until
from .machine import CODE, DATA, RAM, TABLES, assemble, write_tables

__all__ = [
    "CODE",
    "DATA",
    "FINISH",
    "HYPERCALL_PAGE",
    "LONG",
    "MMIO",
    "PAGE",
    "PORTS",
    "SHUTDOWN",
    "KvmGuest",
    "Log",
    "kvm_guest",
    "needs",
    "until",
]

Mode = Literal["real", "protected", "long"]
STACK = 0x7000
LIMIT = 15.0
"""Seconds after which a domain is crashed, so that a guest which hangs fails its test."""
END = 0xF5
PORTS = range(0x1000, 0x1800)
MMIO = 0xD0000000
MMIO_SIZE = 0x4000
FINISH = "mov %ebx, %eax; mov $0xf5, %dx; out %eax, %dx; 1: jmp 1b"
"""Ends a guest, which says EBX last."""
IDT = 0x30000

LONG = f"""
.macro gate number, handler
    mov $\\handler, %eax; mov %ax, {IDT} + 16 * \\number; movw $8, {IDT} + 16 * \\number + 2
    movw $0x8e00, {IDT} + 16 * \\number + 4; shr $16, %eax; mov %ax, {IDT} + 16 * \\number + 6
    movq $0, {IDT} + 16 * \\number + 8
.endm
.macro pics first, master_mask, slave_mask
    mov $0x11, %al; out %al, $0x20; out %al, $0xa0
    mov $\\first, %al; out %al, $0x21; mov $(\\first + 8), %al; out %al, $0xa1
    mov $4, %al; out %al, $0x21; mov $2, %al; out %al, $0xa1
    mov $1, %al; out %al, $0x21; out %al, $0xa1
    mov $\\master_mask, %al; out %al, $0x21; mov $\\slave_mask, %al; out %al, $0xa1
.endm
.macro end_of_interrupt
    mov $0x20, %al; out %al, $0xa0; out %al, $0x20
.endm
jmp setup
.balign 8
gdt: .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
gdt_end:
gdt_table: .word gdt_end - gdt - 1
    .quad gdt
idt_table: .word 0xfff
    .quad {IDT}
no_idt: .word 0
    .quad 0
finish: mov %ebx, %eax; mov $0xf5, %dx; out %eax, %dx; 1: jmp 1b
setup:
    lgdt gdt_table; lidt idt_table; pushq $8; pushq $1f; lretq
1:  mov $0x10, %ax; mov %ax, %ds; mov %ax, %es; mov %ax, %ss
    xor %ebx, %ebx
"""
"""What a long-mode guest with interrupts begins with; ``finish`` ends it, saying EBX."""

PAGE = 0x40000
"""Where a guest has its page of hypercalls."""
HYPERCALL_PAGE = f"""
mov $0x40000002, %eax; cpuid; mov %ebx, %ecx; mov ${PAGE}, %eax; xor %edx, %edx; wrmsr
xor %ebx, %ebx
"""
SHUTDOWN = f"mov $2, %edi; mov ${DATA}, %esi; mov ${PAGE + 29 * 32}, %eax; call *%rax"
"""SCHEDOP_shutdown with the reason that is at DATA, from long mode."""


def needs(*modes: Mode) -> None:
    """Skip the test where KVM does not run one of ``modes``."""
    for mode in modes:
        reason = unusable(mode)
        if reason is not None:
            pytest.skip(reason)


class Log:
    """Takes every access to its ports and addresses; ``answers``: the bytes that reads give."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, int, int, int]] = []
        self.answers: dict[int, int] = {}
        self.error: Exception | None = None

    def read(self, address: int, size: int) -> int | None:
        value = sum(self.answers.get(address + n, 0xFF) << 8 * n for n in range(size))
        self.entries.append(("r", address, size, value))
        return value

    def write(self, address: int, size: int, value: int) -> bool:
        self.entries.append(("w", address, size, value))
        if self.error is not None:
            raise self.error
        return True


class _End:
    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self.value: int | None = None

    def read(self, address: int, size: int) -> int | None:
        return None

    def write(self, address: int, size: int, value: int) -> bool:
        self.value = value
        self._domain.shutdown(0)
        return True


class KvmGuest:
    """A domain with RAM from 0 and the engine that runs it. ``log`` has what it accessed."""

    def __init__(self, start: CpuStart, code: bytes, *, vcpus: int, hypercalls: bool) -> None:
        clock = RealClock()
        self.domain = domain = Domain(1, vcpus=vcpus, ram=[(0, RAM)], clock=clock)
        clock.start(domain.run_due)
        self._clock = clock
        domain.memory.write(CODE, code)
        if start.mode == "long":
            write_tables(domain)
        if hypercalls:
            domain.hypercalls = Hypercalls(domain)
        self.log = Log()
        domain.intercepts.add_ports(PORTS.start, PORTS.stop - 1, self.log)
        domain.intercepts.add_memory(MMIO, MMIO + MMIO_SIZE - 1, self.log)
        self._end = _End(domain)
        domain.intercepts.add_ports(END, END + 3, self._end)
        self.engine = KvmEngine(domain, start)
        self._limit = threading.Timer(LIMIT, domain.crash, (f"longer than {LIMIT} s",))
        self._limit.daemon = True
        self._limit.start()

    @property
    def last(self) -> int | None:
        """What the guest said when it ended."""
        return self._end.value

    @property
    def writes(self) -> list[tuple[int, int, int]]:
        """Address, size and value of what was written."""
        return [entry[1:] for entry in self.log.entries if entry[0] == "w"]

    def word(self, gpa: int = DATA) -> int:
        """Four bytes of its memory."""
        return int.from_bytes(self.domain.memory.read(gpa, 4), "little")

    def run(self) -> KvmGuest:
        """Run it to its end, which must be the one that it wants."""
        self.engine.start()
        assert self.engine.join(2 * LIMIT)
        assert self.engine.error is None, repr(self.engine.error)
        assert self.domain.crash_message is None, self.domain.crash_message
        return self

    def close(self) -> None:
        self._limit.cancel()
        self.engine.stop()
        self._clock.stop()
        self._limit.join()


@contextmanager
def kvm_guest(
    tmp_path: Path, source: str, mode: Mode = "long", *, vcpus: int = 1, hypercalls: bool = False
) -> Iterator[KvmGuest]:
    """A guest of an assembler ``source``, not started."""
    needs(mode)
    code = assemble(tmp_path, source, {"real": 16, "protected": 32, "long": 64}[mode])
    start = CpuStart(mode, ip=CODE, sp=STACK, page_table=TABLES if mode == "long" else 0)
    made = KvmGuest(start, code, vcpus=vcpus, hypercalls=hypercalls)
    try:
        yield made
    finally:
        made.close()
