"""What a guest's accesses become: each request has the size, count and address that it was made
with, whatever the library makes of it (engines.md lists its traps)."""

from __future__ import annotations

from pathlib import Path

import pytest

from .machine import DATA, PORT, RAM, guest

MEMORY = 1
MMIO = 0xD0000000
FINISH = "mov %ebx, %eax; mov $0xf5, %dx; out %eax, %dx; 1: jmp 1b"


def answers(first: int, count: int = 32) -> dict[tuple[int, int], int]:
    """Device memory in which each byte says where it is."""
    return {(MEMORY, first + n): 0x10 + n for n in range(count)}


@pytest.mark.parametrize("mode", ["real", "protected", "long"])
def test_ports_of_every_width(tmp_path: Path, mode: str) -> None:
    source = f"""
    mov $0x1234, %dx; mov $0x89abcdef, %eax
    out %al, %dx; out %ax, %dx; out %eax, %dx; out %al, $0x99
    in %dx, %al; in %dx, %ax; in %dx, %eax; in $0x99, %eax
    mov %eax, %ebx; {FINISH}"""
    with guest(tmp_path, source, mode) as made:  # type: ignore[arg-type]
        for port in (0x1234, 0x99):
            made.recorders[0].answers |= {(PORT, port + n): 0x51 + n for n in range(4)}
        made.run()
    assert made.log == [
        *(("out", 0x1234, 1, 0xEF), ("out", 0x1234, 2, 0xCDEF), ("out", 0x1234, 4, 0x89ABCDEF)),
        *(("out", 0x99, 1, 0xEF), ("in", 0x1234, 1), ("in", 0x1234, 2), ("in", 0x1234, 4)),
        ("in", 0x99, 4),
    ]
    assert made.last == 0x54535251


@pytest.mark.parametrize("offset", range(9))
@pytest.mark.parametrize(
    ("size", "instruction"),
    [(1, "movzbl"), (2, "movzwl"), (4, "movl"), (8, "movq")],
)
def test_a_read_is_one_request_at_any_alignment(
    tmp_path: Path, size: int, instruction: str, offset: int
) -> None:
    register = "%rbx" if size == 8 else "%ebx"
    source = f"""
    mov ${MMIO + offset}, %esi; {instruction} (%rsi), {register}
    mov %rbx, {DATA}; xor %ebx, %ebx; {FINISH}"""
    with guest(tmp_path, source, "long") as made:
        made.recorders[0].answers = answers(MMIO)
        made.run()
        stored = made.domain.memory.read(DATA, 8)
    assert made.log == [("read", MMIO + offset, size)]
    expected = bytes(0x10 + offset + n for n in range(size))
    assert stored == expected.ljust(8, b"\0")


@pytest.mark.parametrize("offset", range(9))
@pytest.mark.parametrize(("size", "register"), [(1, "bl"), (2, "bx"), (4, "ebx"), (8, "rbx")])
def test_a_write_is_one_request_at_any_alignment(
    tmp_path: Path, size: int, register: str, offset: int
) -> None:
    source = f"""
    mov $0x8877665544332211, %rbx; mov ${MMIO + offset}, %esi; mov %{register}, (%rsi); {FINISH}"""
    with guest(tmp_path, source, "long") as made:
        made.run()
    value = 0x8877665544332211 & (1 << 8 * size) - 1
    assert made.log == [("write", MMIO + offset, size, value)]


def test_two_neighbouring_accesses_stay_two(tmp_path: Path) -> None:
    source = f"""
    mov ${MMIO}, %esi; mov (%esi), %eax; mov 4(%esi), %ebx
    mov %eax, (%esi); mov %ebx, 4(%esi); {FINISH}"""
    with guest(tmp_path, source) as made:
        made.recorders[0].answers = answers(MMIO)
        made.run()
    assert made.log == [
        *(("read", MMIO, 4), ("read", MMIO + 4, 4)),
        *(("write", MMIO, 4, 0x13121110), ("write", MMIO + 4, 4, 0x17161514)),
    ]


def test_sixteen_bytes_are_two_requests_of_eight(tmp_path: Path) -> None:
    source = f"""
    mov ${MMIO}, %esi; movdqu (%rsi), %xmm0; movdqu %xmm0, {DATA}; movdqu %xmm0, 16(%rsi); {FINISH}
    """
    with guest(tmp_path, source, "long") as made:
        made.recorders[0].answers = answers(MMIO)
        made.run()
        stored = made.domain.memory.read(DATA, 16)
    assert stored == bytes(range(0x10, 0x20))
    assert made.log == [
        *(("read", MMIO, 8), ("read", MMIO + 8, 8)),
        ("write", MMIO + 16, 8, 0x1716151413121110),
        ("write", MMIO + 24, 8, 0x1F1E1D1C1B1A1918),
    ]


def test_a_locked_instruction_is_a_read_and_a_write(tmp_path: Path) -> None:
    source = f"""
    mov ${MMIO}, %esi; mov $0x100, %eax; lock xadd %eax, (%esi); mov %eax, %ebx
    mov $5, %ecx; xchg %ecx, 4(%esi); {FINISH}"""
    with guest(tmp_path, source) as made:
        made.recorders[0].answers = answers(MMIO)
        made.run()
    assert made.last == 0x13121110
    assert made.log == [
        *(("read", MMIO, 4), ("write", MMIO, 4, 0x13121210)),
        *(("read", MMIO + 4, 4), ("write", MMIO + 4, 4, 5)),
    ]


def test_an_access_at_the_end_of_a_page_of_mmio_is_one_request(tmp_path: Path) -> None:
    """Cutting it at the border is the vCPU's business."""
    at = MMIO + 0xFFE
    source = f"mov ${at}, %esi; mov (%esi), %ebx; mov %ebx, (%esi); {FINISH}"
    with guest(tmp_path, source) as made:
        made.recorders[0].answers = answers(at)
        made.run()
    assert made.log == [("read", at, 4), ("write", at, 4, 0x13121110)]
    assert made.last == 0x13121110


@pytest.mark.parametrize("gpa", [0x500000, 0xA00000000, 0xFF00000000])
def test_mmio_reaches_as_far_as_a_bar_may_lie(tmp_path: Path, gpa: int) -> None:
    """Up to the 40 bits that CPUID tells; above 4 GiB by an entry in the guest's tables."""
    source = f"""
    mov $0x40000000, %rsi; movabs ${gpa | 0x83}, %rax; mov %rax, 0x102000 + 8 * 512
    mov %cr3, %rax; mov %rax, %cr3
    mov 0x40(%rsi), %rbx; {FINISH}"""
    if gpa & 0x1FFFFF:
        source = f"mov ${gpa + 0x40}, %rsi; mov (%rsi), %rbx; {FINISH}"
    with guest(tmp_path, source, "long") as made:
        made.run()
    assert made.log == [("read", gpa + 0x40, 8)]


@pytest.mark.parametrize("mode", ["real", "protected", "long"])
@pytest.mark.parametrize(("suffix", "size"), [("b", 1), ("w", 2), ("l", 4)])
def test_rep_ins_is_one_request_into_ram(tmp_path: Path, mode: str, suffix: str, size: int) -> None:
    data = 0x6000
    source = f"""
    mov $0x170, %dx; mov $9, %ecx; mov ${data}, %edi; cld; rep ins{suffix} (%dx), %es:(%di)
    lea (%edi, %ecx), %ebx; {FINISH}"""
    source = source.replace("(%di)", "(%di)" if mode == "real" else "(%edi)")
    with guest(tmp_path, source, mode) as made:  # type: ignore[arg-type]
        made.run()
        stored = made.domain.memory.read(data, 9 * size)
    assert made.log == [("ins", 0x170, size, 9, data, False)]
    assert stored == b"".join(bytes([n + 1]) * size for n in range(9))
    assert made.last == data + 9 * size, "EDI is behind the buffer and ECX is 0"


def test_rep_ins_downwards(tmp_path: Path) -> None:
    source = f"""
    mov $0x170, %dx; mov $5, %ecx; mov ${DATA + 0x10}, %edi; std; rep insw; cld
    mov %edi, %ebx; {FINISH}"""
    with guest(tmp_path, source) as made:
        made.run()
        stored = made.domain.memory.read(DATA + 8, 10)
    assert made.log == [("ins", 0x170, 2, 5, DATA + 0x10, True)]
    assert stored == bytes([5, 5, 4, 4, 3, 3, 2, 2, 1, 1])
    assert made.last == DATA + 0x10 - 10


def test_rep_outs_with_a_segment_prefix(tmp_path: Path) -> None:
    source = f"""
    mov $0x2000, %ax; mov %ax, %fs; mov $0x80, %dx; mov $6, %cx; mov $0x30, %si; cld
    rep outsw %fs:(%si), (%dx)
    movzwl %si, %ebx; {FINISH}"""
    with guest(tmp_path, source, "real") as made:
        made.run()
    assert made.log == [("outs", 0x80, 2, 6, DATA + 0x30, False)]
    assert made.last == 0x30 + 12


def test_a_block_is_cut_at_pages_and_goes_on(tmp_path: Path) -> None:
    source = f"""
    mov $0x80, %dx; mov $2000, %ecx; mov ${DATA + 0x800}, %esi; cld; rep outsl
    mov %ecx, %ebx; {FINISH}"""
    with guest(tmp_path, source) as made:
        made.run()
    assert made.log == [
        ("outs", 0x80, 4, 0x200, DATA + 0x800, False),
        ("outs", 0x80, 4, 0x400, DATA + 0x1000, False),
        ("outs", 0x80, 4, 2000 - 0x600, DATA + 0x2000, False),
    ]
    assert made.last == 0


def test_elements_over_a_page_border_go_alone(tmp_path: Path) -> None:
    source = f"""
    mov $0x80, %dx; mov $3, %ecx; mov ${DATA + 0xFFA}, %esi; cld; rep outsl; {FINISH}"""
    with guest(tmp_path, source) as made:
        made.domain.memory.write(DATA + 0xFFA, bytes(range(12)))
        made.run()
    assert made.log == [
        ("out", 0x80, 4, int.from_bytes(bytes(range(n, n + 4)), "little")) for n in (0, 4, 8)
    ]


def test_an_instruction_without_repeat_is_a_plain_access(tmp_path: Path) -> None:
    source = f"mov $0x80, %dx; mov $5, %ecx; mov ${DATA}, %esi; outsb; insb; {FINISH}"
    with guest(tmp_path, source) as made:
        made.run()
    assert [entry[:3] for entry in made.log] == [("out", 0x80, 1), ("in", 0x80, 1)]


def test_ins_into_mmio_goes_element_by_element(tmp_path: Path) -> None:
    source = f"mov $0x80, %dx; mov $2, %ecx; mov ${MMIO}, %edi; cld; rep insb; {FINISH}"
    with guest(tmp_path, source) as made:
        made.recorders[0].answers = {(PORT, 0x80): 7}
        made.run()
    assert [entry for entry in made.log if entry[0] != "read"] == [
        *(("write", MMIO, 1, 0), ("in", 0x80, 1), ("write", MMIO, 1, 7)),
        *(("write", MMIO + 1, 1, 0), ("in", 0x80, 1), ("write", MMIO + 1, 1, 7)),
    ]


@pytest.mark.parametrize(("suffix", "size"), [("b", 1), ("w", 2), ("l", 4), ("q", 8)])
def test_rep_movs_from_mmio_is_one_request(tmp_path: Path, suffix: str, size: int) -> None:
    source = f"""
    mov $7, %ecx; mov ${MMIO + 8}, %esi; mov ${DATA}, %edi; cld; rep movs{suffix}
    sub ${DATA}, %edi; lea (%rdi, %rcx), %ebx; {FINISH}"""
    with guest(tmp_path, source, "long") as made:
        made.run()
        stored = made.domain.memory.read(DATA, 8 * size)
    assert made.log == [("from", MMIO + 8, size, 7, DATA, False)]
    assert stored == b"".join(bytes([n + 1]) * size for n in range(7)) + bytes(size)
    assert made.last == 7 * size


@pytest.mark.parametrize("direction", ["cld", "std"])
def test_rep_movs_to_mmio_is_one_request(tmp_path: Path, direction: str) -> None:
    source = f"""
    mov $7, %ecx; mov ${DATA + 0x100}, %esi; mov ${MMIO + 0x100}, %edi; {direction}; rep movsl; cld
    mov %edi, %ebx; {FINISH}"""
    with guest(tmp_path, source) as made:
        made.run()
    down = direction == "std"
    assert made.log == [("to", MMIO + 0x100, 4, 7, DATA + 0x100, down)]
    assert made.last == MMIO + 0x100 + (-28 if down else 28)


def test_rep_movs_from_mmio_downwards(tmp_path: Path) -> None:
    source = f"""
    mov $3, %ecx; mov ${MMIO + 0x20}, %esi; mov ${DATA + 8}, %edi; std; rep movsl; cld; {FINISH}"""
    with guest(tmp_path, source) as made:
        made.run()
        stored = made.domain.memory.read(DATA, 12)
    assert made.log == [("from", MMIO + 0x20, 4, 3, DATA + 8, True)]
    assert stored == bytes([3] * 4 + [2] * 4 + [1] * 4)


def test_rep_movs_between_mmio_and_mmio_goes_element_by_element(tmp_path: Path) -> None:
    source = f"mov $2, %ecx; mov ${MMIO}, %esi; mov ${MMIO + 64}, %edi; rep movsl; {FINISH}"
    with guest(tmp_path, source) as made:
        made.recorders[0].answers = answers(MMIO)
        made.run()
    assert made.log == [
        *(("read", MMIO, 4), ("write", MMIO + 64, 4, 0x13121110)),
        *(("read", MMIO + 4, 4), ("write", MMIO + 68, 4, 0x17161514)),
    ]


def test_rep_stos_to_mmio_is_one_request(tmp_path: Path) -> None:
    source = f"""
    mov $0x11223344, %eax; mov $500, %ecx; mov ${MMIO + 0xC00}, %edi; cld; rep stosw
    mov %ecx, %ebx; {FINISH}"""
    with guest(tmp_path, source) as made:
        made.run()
    assert made.log == [("fill", MMIO + 0xC00, 2, 500, 0x3344, False)]
    assert made.last == 0


def test_the_same_rep_movs_over_mmio_and_then_over_ram(tmp_path: Path) -> None:
    """What was found out about an instruction must not outlive what it does next."""
    source = f"""
    mov $2, %ebp
    again: mov $4, %ecx; mov ${MMIO}, %esi; mov ${DATA}, %edi
    cmp $1, %ebp; jne 2f; mov ${DATA + 0x100}, %esi; 2: cld; rep movsl
    dec %ebp; jnz again; mov {DATA}, %ebx; {FINISH}"""
    with guest(tmp_path, source) as made:
        made.domain.memory.write(DATA + 0x100, b"\x77" * 16)
        made.run()
    assert made.log == [("from", MMIO, 4, 4, DATA, False)]
    assert made.last == 0x77777777


def test_code_outside_of_ram_crashes_the_domain(tmp_path: Path) -> None:
    with guest(tmp_path, f"mov ${MMIO}, %eax; jmp *%eax") as made:
        made.run()
    assert made.domain.state == "crashed"
    assert f"{MMIO:#x}" in str(made.domain.crash_message)
    assert made.log == []


def test_half_an_access_outside_of_ram_crashes_the_domain(tmp_path: Path) -> None:
    with guest(tmp_path, f"mov {RAM - 2}, %eax; mov %eax, {RAM - 2}; {FINISH}") as made:
        made.run()
    assert made.domain.state == "crashed"
    assert "outside of RAM" in str(made.domain.crash_message)


def test_what_ins_stores_over_code_is_run(tmp_path: Path) -> None:
    """The library does not see what an emulator writes to guest memory."""
    source = f"""
    movb $0xc3, {DATA}; movb $0xc3, {DATA + 1}; call {DATA}
    mov $0x80, %dx; mov $2, %ecx; mov ${DATA}, %edi; cld; rep insb
    call {DATA}; {FINISH}"""
    with guest(tmp_path, source) as made:
        memory = made.domain.memory
        increment = bytes.fromhex("43c3")  # inc %ebx; ret
        made.recorders[0].on_string = lambda: memory.write(DATA, increment)
        made.run()
    assert made.last == 1


def test_self_modifying_code_is_seen(tmp_path: Path) -> None:
    source = f"""
    xor %ebx, %ebx; mov $3, %ecx
    again: movb $0x43, patch; patch: nop; loop again; {FINISH}"""
    with guest(tmp_path, source) as made:
        made.run()
    assert made.last == 3
