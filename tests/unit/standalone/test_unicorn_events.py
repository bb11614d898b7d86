"""How a processor takes interrupts and exceptions: the frames are what the Intel SDM says.

The library delivers nothing itself; see engines.md.
"""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from protocol import layouts
from tools.hypervisor.hypercalls import Hypercalls

from .machine import CODE, DATA, TABLES, Guest, guest

IDT = 0x30000
TSS = 0x31000
INNER_STACK = 0x32000
IST_STACK = 0x33008
FINISH = "mov $0xf5, %dx; out %eax, %dx; 1: jmp 1b"

REAL = f"""
.macro vector number, handler
    movw $\\handler, \\number * 4
    movw $0, \\number * 4 + 2
.endm
jmp begin
finish: mov $0xf5, %dx; out %eax, %dx; 1: jmp 1b
keep: mov %sp, %si; mov ${DATA >> 4}, %ax; mov %ax, %es; xor %di, %di; mov $8, %cx; cld
    rep movsw %ss:(%si), %es:(%di); jmp finish
begin:
"""
"""Keeps what is on the stack at DATA, and ends, from ``keep``."""

PROTECTED = f"""
.macro gate number, handler, kind=0x8e00, selector=8
    mov $\\handler, %eax; mov %eax, %edx; and $0xffff, %eax; or $(\\selector << 16), %eax
    and $0xffff0000, %edx; or $\\kind, %edx
    mov %eax, {IDT} + 8 * \\number; mov %edx, {IDT} + 8 * \\number + 4
.endm
jmp setup
.balign 8
gdt: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00cffb000000ffff, 0x00cff3000000ffff
    .quad 0x0000890310000067
gdt_end:
gdt_table: .word gdt_end - gdt - 1
    .long gdt
idt_table: .word 0x7ff
    .long {IDT}
finish: mov $0xf5, %dx; out %eax, %dx; 1: jmp 1b
keep: mov %esp, %esi; mov ${DATA}, %edi; mov $8, %ecx; cld; rep movsl %ss:(%esi), %es:(%edi)
    jmp finish
user: mov $0x23, %ax; mov %ax, %ds; mov %ax, %es; pop %edx
    push $0x23; push $0x6000; pushf; push $0x1b; push %edx; iret
setup:
    lgdt gdt_table; lidt idt_table; ljmp $8, $1f
1:  mov $0x10, %ax; mov %ax, %ds; mov %ax, %es; mov %ax, %ss
    movl ${INNER_STACK}, {TSS} + 4; movl $0x10, {TSS} + 8
    mov $0x28, %ax; ltr %ax
"""
"""A GDT with kernel and user segments and a TSS, an empty IDT; ``call user`` returns in ring 3."""

LONG = f"""
.macro gate number, handler, kind=0x8e00, ist=0
    mov $\\handler, %eax; mov %eax, %edx; and $0xffff, %eax; or $(8 << 16), %eax
    and $0xffff0000, %edx; or $(\\kind + \\ist), %edx
    mov %eax, {IDT} + 16 * \\number; mov %edx, {IDT} + 16 * \\number + 4
    movq $0, {IDT} + 16 * \\number + 8
.endm
jmp setup
.balign 8
gdt: .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00affb000000ffff, 0x00cff3000000ffff
    .quad 0x0000890310000067, 0
gdt_end:
gdt_table: .word gdt_end - gdt - 1
    .quad gdt
idt_table: .word 0xfff
    .quad {IDT}
finish: mov $0xf5, %dx; out %eax, %dx; 1: jmp 1b
keep: mov %rsp, %rsi; mov ${DATA}, %edi; mov $8, %ecx; cld; rep movsq; mov %rsp, (%rdi); jmp finish
user: pop %rdx; push $0x23; push $0x6000; pushf; push $0x1b; push %rdx; iretq
setup:
    lgdt gdt_table; lidt idt_table; mov $0x10, %ax; mov %ax, %ss; mov %ax, %ds
    movq ${INNER_STACK}, {TSS} + 4; movq ${IST_STACK}, {TSS} + 0x24
    mov $0x28, %ax; ltr %ax
"""


def words(made: Guest, count: int, size: int = 4) -> list[int]:
    """What a guest kept of its stack."""
    data = made.domain.memory.read(DATA, count * size)
    return list(struct.unpack(f"<{count}{ {2: 'H', 4: 'I', 8: 'Q'}[size] }", data))


def address(source: str, label: str, tmp_path: Path) -> int:
    """Where a label of the last assembled guest is."""
    import subprocess

    done = subprocess.run(
        ["nm", str(tmp_path / "guest.elf")], capture_output=True, text=True, check=True
    )
    found = [line.split() for line in done.stdout.splitlines() if line.endswith(f" {label}")]
    assert found, f"{label} is not in {source}"
    return int(found[0][0], 16)


def test_int_in_real_mode_goes_through_the_table_and_back(tmp_path: Path) -> None:
    source = f"""{REAL}
    vector 0x40, handler
    sti; xor %eax, %eax; stc; int $0x40
    after: pushf; pop %bx; shl $16, %ebx; or %ebx, %eax; jmp finish
    handler: pushf; pop %ax; iret"""
    with guest(tmp_path, source, "real") as made:
        made.run()
    assert made.last is not None
    assert not made.last & 0x200, "interrupts are off in the handler"
    assert made.last >> 16 & 0x201 == 0x201, "and the flags come back"


def test_the_frame_of_real_mode(tmp_path: Path) -> None:
    source = f"""{REAL}
    vector 0x41, keep
    sti; stc; int $0x41
    after: nop"""
    with guest(tmp_path, source, "real") as made:
        made.run()
        ip, cs, flags = words(made, 3, 2)
    assert (ip, cs) == (address(source, "after", tmp_path), 0)
    assert flags & 0x203 == 0x203


def test_a_divide_error_points_at_the_instruction(tmp_path: Path) -> None:
    source = f"""{REAL}
    vector 0, keep
    xor %cl, %cl; mov $1, %ax
    fault: div %cl"""
    with guest(tmp_path, source, "real") as made:
        made.run()
        assert words(made, 1, 2) == [address(source, "fault", tmp_path)]


def test_int3_and_into_point_behind_themselves(tmp_path: Path) -> None:
    source = f"""{PROTECTED}
    gate 3, first
    gate 4, keep
    int3
    first: mov $0x7fffffff, %eax; inc %eax; into
    after: nop"""
    with guest(tmp_path, source) as made:
        made.run()
        assert words(made, 2) == [address(source, "after", tmp_path), 8]


@pytest.mark.parametrize(("kind", "stays_on"), [(0x8E00, False), (0x8F00, True)])
def test_interrupt_gates_turn_interrupts_off_and_trap_gates_do_not(
    tmp_path: Path, kind: int, stays_on: bool
) -> None:
    source = f"""{PROTECTED}
    gate 0x50, handler, {kind}
    sti; int $0x50; jmp finish
    handler: pushf; pop %eax; iret"""
    with guest(tmp_path, source) as made:
        made.run()
    assert made.last is not None
    assert bool(made.last & 0x200) is stays_on


def test_a_286_gate_pushes_words(tmp_path: Path) -> None:
    source = f"""{PROTECTED}
    gate 0x50, keep, 0x8600
    int $0x50
    after: nop"""
    with guest(tmp_path, source) as made:
        made.run()
        assert words(made, 2, 2) == [address(source, "after", tmp_path), 8]


def test_a_general_protection_fault_brings_its_selector(tmp_path: Path) -> None:
    source = f"""{PROTECTED}
    gate 13, keep
    mov $0x1238, %ax
    fault: mov %ax, %fs"""
    with guest(tmp_path, source) as made:
        made.run()
        assert words(made, 3) == [0x1238, address(source, "fault", tmp_path), 8]


PAGING = f"""
    movl ${TABLES + 0x1003}, {TABLES}
    mov ${TABLES + 0x1000}, %edi; mov $3, %eax; mov $1024, %ecx
    2: mov %eax, (%edi); add $4, %edi; add $0x1000, %eax; loop 2b
    mov ${TABLES}, %eax; mov %eax, %cr3; mov %cr0, %eax; or $0x80010000, %eax; mov %eax, %cr0
"""
"""The first 4 MiB mapped to themselves, supervisor pages, with write protection."""


def test_page_faults_bring_address_and_error_code_and_may_come_again(tmp_path: Path) -> None:
    """The library takes the second one for a double fault, unless it is told of the first's end."""
    source = f"""{PROTECTED} {PAGING}
    gate 14, handler
    gate 8, double
    mov ${DATA}, %edi
    movl $0, {TABLES} + 0x1000 + 4 * 0x60
    movl $0x61001, {TABLES} + 0x1000 + 4 * 0x61
    mov %cr3, %eax; mov %eax, %cr3
    mov 0x60123, %ebx; mov %ebx, 0x60456; mov %ebx, 0x61789; jmp finish
    handler: pop (%edi); mov %cr2, %eax; mov %eax, 4(%edi); add $8, %edi
    mov %cr2, %eax; shr $12, %eax; movl $3, %ebp; mov %eax, %edx; shl $12, %edx; or %edx, %ebp
    push %edi; mov (%esp), %edi; pop %edi
    cmpl $0x60123, -4(%edi); je skip
    mov %ebp, {TABLES} + 0x1000(,%eax,4); mov %cr3, %eax; mov %eax, %cr3; iret
    skip: addl $6, (%esp); iret
    double: movl $0xdf, %eax; jmp finish"""
    with guest(tmp_path, source) as made:
        made.run()
        assert words(made, 6) == [0, 0x60123, 2, 0x60456, 3, 0x61789]


def test_a_vector_without_a_gate_is_a_protection_fault(tmp_path: Path) -> None:
    source = f"""{PROTECTED}
    gate 13, keep
    int $0x99"""
    with guest(tmp_path, source) as made:
        made.run()
        assert words(made, 1) == [0x99 * 8 + 2]


def test_an_absent_gate_is_a_not_present_fault(tmp_path: Path) -> None:
    source = f"""{PROTECTED}
    gate 11, keep
    gate 0x99, keep, 0x0e00
    int $0x99"""
    with guest(tmp_path, source) as made:
        made.run()
        assert words(made, 1) == [0x99 * 8 + 2]


def test_from_user_mode_the_stack_is_the_task_segments(tmp_path: Path) -> None:
    source = f"""{PROTECTED}
    gate 0x80, keep, 0xee00
    call user
    int $0x80
    after: nop"""
    with guest(tmp_path, source) as made:
        made.run()
        ip, cs, _, sp, ss = words(made, 5)
    assert (ip, cs, sp, ss) == (address(source, "after", tmp_path), 0x1B, 0x6000, 0x23)


def test_back_in_user_mode_after_an_interrupt_frame(tmp_path: Path) -> None:
    source = f"""{PROTECTED}
    gate 0x80, handler, 0xee00
    gate 13, end
    call user
    mov $1, %eax; int $0x80; int $0x80; mov %eax, %ebx
    cli
    end: mov %ebx, %eax; jmp finish
    handler: inc %eax; iret"""
    with guest(tmp_path, source) as made:
        made.run()
    assert made.last == 3, "twice through the gate; CLI in user mode then faults"


def test_user_code_cannot_call_a_kernel_gate(tmp_path: Path) -> None:
    source = f"""{PROTECTED}
    gate 13, keep
    gate 0x80, finish
    call user
    fault: int $0x80"""
    with guest(tmp_path, source) as made:
        made.run()
        code, ip, cs, _, sp, ss = words(made, 6)
    assert code == 0x80 * 8 + 2
    # The instruction is behind IP for the library; a processor points at it.
    assert (ip, cs, sp, ss) == (address(source, "fault", tmp_path), 0x1B, 0x6000, 0x23)


def test_an_exception_that_cannot_be_delivered_is_a_double_fault(tmp_path: Path) -> None:
    source = f"""{PROTECTED}
    gate 8, keep
    mov $0x1238, %ax; mov %ax, %fs"""
    with guest(tmp_path, source) as made:
        made.run()
        assert words(made, 1) == [0]


def test_a_double_fault_that_cannot_be_delivered_reboots(tmp_path: Path) -> None:
    source = f"{PROTECTED} mov $0x1238, %ax; mov %ax, %fs"
    with guest(tmp_path, source) as made:
        made.run()
    assert made.domain.state == "shutdown"
    assert made.domain.shutdown_reason == layouts.SHUTDOWN_REASON_REBOOT


def test_the_frame_of_long_mode_is_aligned_and_has_the_stack(tmp_path: Path) -> None:
    source = f"""{LONG}
    gate 0x40, keep
    mov $0x6ff8, %rsp; int $0x40
    after: nop"""
    with guest(tmp_path, source, "long") as made:
        made.run()
        ip, cs, _, sp, ss, *_, now = words(made, 9, 8)
    assert (ip, cs, sp, ss) == (address(source, "after", tmp_path), 8, 0x6FF8, 0x10)
    assert now == 0x6FF0 - 40


def test_long_mode_takes_the_stack_of_the_table(tmp_path: Path) -> None:
    source = f"""{LONG}
    gate 13, keep, 0x8e00, 1
    mov $0x1238, %ax
    fault: mov %ax, %fs"""
    with guest(tmp_path, source, "long") as made:
        made.run()
        code, ip, cs, _, sp, ss, *_, now = words(made, 9, 8)
    assert (code, ip, cs, ss) == (0x1238, address(source, "fault", tmp_path), 8, 0x10)
    assert (sp, now) == (0x7000, (IST_STACK & ~15) - 48)


def test_long_mode_between_user_and_kernel(tmp_path: Path) -> None:
    user_pages = f"""
    orq $4, {TABLES}; orq $4, {TABLES + 0x1000}; orq $4, {TABLES + 0x2000}
    mov %cr3, %rax; mov %rax, %cr3"""
    source = f"""{LONG} {user_pages}
    gate 0x80, handler, 0xee00
    gate 13, keep
    call user
    mov $1, %ebp; int $0x80; int $0x80
    fault: cli
    handler: inc %ebp; mov %ss, %ecx; add %ecx, %ebp; iretq"""
    with guest(tmp_path, source, "long") as made:
        made.run()
        code, ip, cs, _, sp, ss, *_, now = words(made, 9, 8)
    assert (code, ip, cs, sp, ss) == (0, address(source, "fault", tmp_path), 0x1B, 0x6000, 0x23)
    assert now == INNER_STACK - 48


@pytest.mark.parametrize("instruction", ["syscall", "sysenter"])
def test_fast_system_calls_are_not_modelled_and_say_so(tmp_path: Path, instruction: str) -> None:
    with guest(tmp_path, f"nop; {instruction}; {FINISH}", "long") as made:
        made.run()
    assert made.domain.state == "crashed"
    assert instruction.upper() in str(made.domain.crash_message)


def test_a_task_gate_is_not_modelled_and_says_so(tmp_path: Path) -> None:
    source = f"""{PROTECTED}
    gate 0x50, 0, 0x8500, 0x28
    int $0x50; jmp finish"""
    with guest(tmp_path, source) as made:
        made.run()
    assert "task gate" in str(made.domain.crash_message)


def test_a_stack_outside_of_ram_crashes_the_domain(tmp_path: Path) -> None:
    source = f"""{PROTECTED}
    gate 0x50, finish
    mov $0xd0001000, %esp; int $0x50"""
    with guest(tmp_path, source) as made:
        made.run()
    assert "not all RAM" in str(made.domain.crash_message)


def test_an_undefined_instruction(tmp_path: Path) -> None:
    source = f"""{PROTECTED}
    gate 6, keep
    fault: ud2"""
    with guest(tmp_path, source) as made:
        made.run()
        assert words(made, 2) == [address(source, "fault", tmp_path), 8]


@pytest.mark.parametrize("instruction", ["vmcall", "vmmcall"])
def test_a_hypercall_without_hypercalls_is_undefined(tmp_path: Path, instruction: str) -> None:
    source = f"""{PROTECTED}
    gate 6, keep
    fault: {instruction}"""
    with guest(tmp_path, source) as made:
        made.run()
        assert words(made, 1) == [address(source, "fault", tmp_path)]


HYPERCALL_PAGE = 0x40000
FIND_XEN = f"""
    mov $0x40000000, %eax; cpuid; mov %ebx, {DATA}; mov %ecx, {DATA + 4}; mov %edx, {DATA + 8}
    mov $0x40000002, %eax; cpuid; mov %ebx, %ecx
    mov ${HYPERCALL_PAGE}, %eax; xor %edx, %edx; wrmsr
"""


@pytest.mark.parametrize("mode", ["protected", "long"])
def test_hypercalls_through_the_page_of_stubs(tmp_path: Path, mode: str) -> None:
    """Found by CPUID, filled in by WRMSR, called: the version, and then a poweroff."""
    first, second = ("ebx", "ecx") if mode == "protected" else ("rdi", "rsi")
    call = "call *%eax" if mode == "protected" else "call *%rax"
    source = f"""{FIND_XEN}
    xor %{first}, %{first}; mov ${HYPERCALL_PAGE + 32 * 17}, %eax; {call}
    mov %eax, {DATA + 12}
    movl $0, {DATA + 16}; mov $2, %{first}; mov ${DATA + 16}, %{second}
    mov ${HYPERCALL_PAGE + 32 * 29}, %eax; {call}; {FINISH}"""
    with guest(tmp_path, source, mode) as made:  # type: ignore[arg-type]
        made.domain.hypercalls = Hypercalls(made.domain)
        made.run()
        assert made.domain.memory.read(DATA, 12) == b"XenVMMXenVMM"
        assert words(made, 4)[3] == 4 << 16 | 17
    assert made.last is None
    assert made.domain.shutdown_reason == layouts.SHUTDOWN_REASON_POWEROFF


def test_a_hypercall_from_user_mode_is_undefined(tmp_path: Path) -> None:
    source = f"""{PROTECTED}
    gate 6, keep
    call user
    fault: vmcall"""
    with guest(tmp_path, source) as made:
        made.domain.hypercalls = Hypercalls(made.domain)
        made.run()
        assert words(made, 2) == [address(source, "fault", tmp_path), 0x1B]


def test_the_local_apic_is_where_its_msr_says(tmp_path: Path) -> None:
    with guest(tmp_path, f"mov $0x1b, %ecx; rdmsr; {FINISH}") as made:
        made.run()
    assert made.last == 0xFEE00900


@pytest.mark.parametrize("instruction", ["rdmsr", "wrmsr"])
def test_an_unknown_msr_is_a_protection_fault(tmp_path: Path, instruction: str) -> None:
    source = f"""{PROTECTED}
    gate 13, keep
    mov $0x40000000, %ecx
    fault: {instruction}"""
    with guest(tmp_path, source) as made:
        made.run()
        assert words(made, 2) == [0, address(source, "fault", tmp_path)]


def test_cpuid_tells_of_nothing_that_is_not_there(tmp_path: Path) -> None:
    source = f"mov $1, %eax; cpuid; mov %edx, {DATA}; mov %ecx, %eax; {FINISH}"
    with guest(tmp_path, source) as made:
        made.run()
        assert words(made, 1)[0] & 1 << 9, "the local APIC"
    assert made.last is not None
    for bit, name in ((21, "x2APIC"), (24, "TSC deadline"), (3, "MONITOR"), (31, "a hypervisor")):
        assert not made.last & 1 << bit, name


def test_code_is_where_the_test_thinks(tmp_path: Path) -> None:
    with guest(tmp_path, f"call 2f; 2: pop %eax; {FINISH}") as made:
        made.run()
    assert made.last == CODE + 5
