"""What a guest's accesses on KVM become: each with size and value, strings element by element."""

from __future__ import annotations

import ctypes as c
from collections.abc import Callable
from pathlib import Path

import pytest

from .kvm_support import DATA, FINISH, LONG, MMIO, KvmGuest, Mode, kvm_guest
from .machine import RAM

PORT = 0x1234


@pytest.mark.parametrize("mode", ["real", "protected", "long"])
def test_ports_of_every_width(tmp_path: Path, mode: Mode) -> None:
    source = f"""
    mov ${PORT}, %dx; mov $0x89abcdef, %eax; out %al, %dx; out %ax, %dx; out %eax, %dx
    in %dx, %al; in %dx, %ax; in %dx, %eax; mov %eax, %ebx; {FINISH}"""
    with kvm_guest(tmp_path, source, mode) as guest:
        guest.log.answers = {PORT + n: 0x51 + n for n in range(4)}
        guest.run()
    assert guest.log.entries == [
        *(("w", PORT, 1, 0xEF), ("w", PORT, 2, 0xCDEF), ("w", PORT, 4, 0x89ABCDEF)),
        *(("r", PORT, 1, 0x51), ("r", PORT, 2, 0x5251), ("r", PORT, 4, 0x54535251)),
    ]
    assert guest.last == 0x54535251


def test_a_narrow_read_leaves_the_rest_of_the_register(tmp_path: Path) -> None:
    source = f"""
    mov ${PORT}, %edx; mov $0x89abcdef, %eax; in %dx, %al; mov %eax, {DATA}
    mov $0x89abcdef, %eax; in %dx, %ax; mov %eax, %ebx; {FINISH}"""
    with kvm_guest(tmp_path, source) as guest:
        guest.log.answers = {PORT: 0x11, PORT + 1: 0x22}
        guest.run()
        assert guest.word() == 0x89ABCD11
    assert guest.last == 0x89AB2211


def test_nobody_answers_with_ones(tmp_path: Path) -> None:
    source = f"""
    mov $0x3000, %dx; xor %eax, %eax; in %dx, %ax; mov %eax, %ebx; out %eax, %dx
    mov $0xc0000000, %esi; and (%rsi), %ebx; mov %ebx, (%rsi); {FINISH}"""
    with kvm_guest(tmp_path, source) as guest:
        guest.run()
    assert guest.last == 0xFFFF
    assert guest.log.entries == []


@pytest.mark.parametrize("mode", ["real", "long"])
@pytest.mark.parametrize(("suffix", "size"), [("b", 1), ("w", 2), ("l", 4)])
def test_a_string_of_a_port_is_its_elements_in_order(
    tmp_path: Path, mode: Mode, suffix: str, size: int
) -> None:
    count, data = 700, 0x9000
    source = f"""
    mov ${PORT}, %dx; cld; mov ${data}, %si; mov ${count}, %cx; rep outs{suffix} (INDEX), %dx
    mov ${data}, %di; mov ${count}, %cx; rep ins{suffix} %dx, %es:(TARGET)
    mov %di, %bx; {FINISH}"""
    index, target = ("%si", "%di") if mode == "real" else ("%rsi", "%rdi")
    if mode == "long":
        source = source.replace("%si;", "%esi;").replace("%di;", "%edi;").replace("%cx", "%ecx")
    with kvm_guest(
        tmp_path, source.replace("INDEX", index).replace("TARGET", target), mode
    ) as guest:
        sent = [number * 0x01030507 & (1 << 8 * size) - 1 for number in range(count)]
        guest.domain.memory.write(data, b"".join(one.to_bytes(size, "little") for one in sent))
        guest.log.answers = {PORT + n: 0xA0 + n for n in range(size)}
        guest.run()
        found = guest.domain.memory.read(data, size * count)
    assert guest.writes == [(PORT, size, value) for value in sent]
    assert len(guest.log.entries) == 2 * count
    assert found == bytes(0xA0 + n for n in range(size)) * count
    assert guest.last == data + size * count


WIDTHS = [(1, "bl", "movzbl", "ebx"), (2, "bx", "movzwl", "ebx"), (4, "ebx", "movl", "ebx")]


@pytest.mark.parametrize(
    ("size", "register", "load", "target"), [*WIDTHS, (8, "rbx", "movq", "rbx")]
)
def test_memory_accesses_of_every_width_and_alignment(
    tmp_path: Path, size: int, register: str, load: str, target: str
) -> None:
    offsets = range(0x10, 0x19)
    parts = [
        f"""{load} {offset}(%rsi), %{target}; mov %rbx, {DATA + offset * 8}
        mov $0x8877665544332211, %rbx; mov %{register}, {offset}(%rsi)"""
        for offset in offsets
    ]
    source = f"mov ${MMIO}, %esi\n" + "\n".join(parts) + f"\n{FINISH}"
    with kvm_guest(tmp_path, source) as guest:
        guest.log.answers = {MMIO + n: n for n in range(0x40)}
        guest.run()
        stored = [guest.domain.memory.read(DATA + offset * 8, 8) for offset in offsets]
    expected = []
    for offset in offsets:
        value = int.from_bytes(bytes(offset + n for n in range(size)), "little")
        expected.append(("r", MMIO + offset, size, value))
        written = 0x8877665544332211 & (1 << 8 * size) - 1
        expected.append(("w", MMIO + offset, size, written))
    assert guest.log.entries == expected
    assert stored == [bytes(offset + n for n in range(size)).ljust(8, b"\0") for offset in offsets]


def test_an_access_over_the_border_of_a_page_is_whole_in_the_guest(tmp_path: Path) -> None:
    """KVM brings it out in two parts, which may have odd sizes; each comes in parts of 1, 2, 4."""
    at = MMIO + 0x1000
    source = f"mov ${at - 3}, %esi; mov (%rsi), %rbx; mov %rbx, {DATA}; mov %rbx, (%rsi); {FINISH}"
    with kvm_guest(tmp_path, source) as guest:
        guest.log.answers = {at + n: 0x40 + n for n in range(-3, 8)}
        guest.run()
        assert guest.domain.memory.read(DATA, 8) == bytes(range(0x3D, 0x45))
    assert all(
        size in (1, 2, 4, 8) and (first & 0xFFF) + size <= 0x1000
        for _, first, size, _ in guest.log.entries
    )
    written = {
        first + n: value >> 8 * n & 0xFF for first, size, value in guest.writes for n in range(size)
    }
    assert written == {at - 3 + n: 0x3D + n for n in range(8)}


def test_a_string_to_device_memory_is_its_elements(tmp_path: Path) -> None:
    source = f"""
    cld; mov ${DATA}, %esi; mov ${MMIO + 0x100}, %edi; mov $5, %ecx; rep movsl
    mov ${MMIO + 0x200}, %edi; mov $0xabcd, %eax; mov $3, %ecx; rep stosw
    mov %edi, %ebx; {FINISH}"""
    with kvm_guest(tmp_path, source) as guest:
        guest.domain.memory.write(DATA, bytes(range(20)))
        guest.run()
    moved = [int.from_bytes(bytes(range(4 * n, 4 * n + 4)), "little") for n in range(5)]
    assert guest.writes == [
        *((MMIO + 0x100 + 4 * n, 4, value) for n, value in enumerate(moved)),
        *((MMIO + 0x200 + 2 * n, 2, 0xABCD) for n in range(3)),
    ]
    assert guest.last == MMIO + 0x206


def test_an_exchange_with_device_memory_is_a_read_and_a_write(tmp_path: Path) -> None:
    source = f"mov ${MMIO}, %esi; mov $5, %ebx; xchg %ebx, 4(%rsi); {FINISH}"
    with kvm_guest(tmp_path, source) as guest:
        guest.log.answers = {MMIO + 4 + n: 0x14 + n for n in range(4)}
        guest.run()
    assert guest.log.entries == [
        ("r", MMIO + 4, 4, 0x17161514),
        ("w", MMIO + 4, 4, 5),
    ]
    assert guest.last == 0x17161514


def doing(guest: KvmGuest, act: Callable[[], object]) -> None:
    """Have the guest's write to PORT do something instead of being noted."""

    class Handler:
        def read(self, address: int, size: int) -> int | None:
            return None

        def write(self, address: int, size: int, value: int) -> bool:
            act()
            return True

    guest.domain.intercepts.remove(guest.log)
    guest.domain.intercepts.add_ports(PORT, PORT, Handler())


def test_what_the_guest_writes_to_its_memory_is_seen_at_once(tmp_path: Path) -> None:
    source = f"""{LONG} movl $0x12345678, {DATA}; mov ${PORT}, %dx; out %al, %dx
    mov {DATA + 4}, %ebx; jmp finish"""
    with kvm_guest(tmp_path, source) as guest:
        seen: list[int] = []

        def look() -> None:
            seen.append(guest.word())
            guest.domain.memory.write(DATA + 4, b"\x21\x43\x65\x07")

        doing(guest, look)
        guest.run()
    assert seen == [0x12345678]
    assert guest.last == 0x07654321


def test_pages_that_the_guest_gives_up_and_gets_are_so_at_once(tmp_path: Path) -> None:
    """Memory may change while a guest runs: pages become a device's, others are new."""
    upper, lower, new = 0x204000, 0x24000, 0x900000
    places = (upper, lower, upper - 4, upper + 0x1000, lower - 4, lower + 0x1000, new, new + 0x1000)
    fill = "; ".join(f"movl ${0x11111111 * n}, {at}" for n, at in enumerate(places[:6], 1))
    look = "; ".join(f"mov {at}, %eax; mov %eax, {DATA + 4 * n}" for n, at in enumerate(places))
    source = f"""{LONG}
    {fill}; mov ${PORT}, %dx; out %al, %dx; {look}; movl $0x77777777, {new + 4}; jmp finish"""
    with kvm_guest(tmp_path, source) as guest:
        memory = guest.domain.memory

        def exchange() -> None:
            for number, gone in enumerate((upper, lower)):
                offset = memory.unmap_page(gone >> 12)
                assert offset is not None
                memory.map_page((new >> 12) + number, offset)

        doing(guest, exchange)
        guest.run()
        words = [guest.word(DATA + 4 * n) for n in range(len(places))]
        assert guest.word(new + 4) == 0x77777777
    kept = [0x11111111 * n for n in range(3, 7)]
    assert words == [0xFFFFFFFF, 0xFFFFFFFF, *kept, 0x11111111, 0x22222222]


def test_ram_that_is_just_being_mapped_anew_is_ram(tmp_path: Path) -> None:
    """One vCPU may come to it while another one's hypercall is changing memory."""
    hole = 0x24000
    source = f"""{LONG}
    movl $0x11111111, {hole}; mov ${PORT}, %dx; out %al, %dx
    mov {hole}, %ebx; movl $0x22222222, {hole + 8}; movb $0x33, {hole + 0xFFF}; jmp finish"""
    with kvm_guest(tmp_path, source) as guest:
        memory = guest.domain.memory
        show = guest.engine._machine.show_memory

        def open_hole() -> None:
            base = c.addressof(c.c_char.from_buffer(memory.map))
            above = hole + 0x1000
            show([(0, hole, base, True), (above, RAM - above, base + above, True)])

        doing(guest, open_hole)
        guest.run()
        assert guest.word(hole + 8) == 0x22222222
        assert memory.read(hole + 0xFFF, 1) == b"\x33"
    assert guest.last == 0x11111111
