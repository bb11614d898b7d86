"""What set_mem_type does to a guest that runs: read-only RAM drops writes, mmio_dm is no RAM."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from protocol import layouts
from tools.hypervisor.memory import GuestMemory

from .kvm_support import PORTS, Log, kvm_guest
from .machine import DATA, guest

RW, RO, MMIO = layouts.MEM_TYPE_RAM_RW, layouts.MEM_TYPE_RAM_RO, layouts.MEM_TYPE_MMIO_DM
PAGE = DATA + 0x1000
ORDER = PORTS.start
"""The port whose values are types for `PAGE`."""


def ordered(mem_type: int) -> str:
    return f"mov ${mem_type}, %eax; mov ${ORDER}, %dx; out %al, %dx;"


SOURCE = f"""
    movl $1, {PAGE}; mov {PAGE}, %ecx
    {ordered(RO)}
    movl $2, {PAGE + 4}; movl $0x22, {PAGE}; add {PAGE}, %ecx; movl $5, {PAGE - 4}
    mov ${PAGE + 8}, %edi; mov $0x77, %al; stosb
    {ordered(RW)}
    movl $3, {PAGE + 12}; shl $8, %ecx; add {PAGE + 12}, %ecx
    mov %ecx, %eax; mov $0xf5, %dx; out %eax, %dx; 1: jmp 1b"""
AFTER = b"\1\0\0\0" + bytes(8) + b"\3\0\0\0"
LAST = 0x203


def test_read_only_ram_drops_writes_until_it_is_ram_again_on_unicorn(tmp_path: Path) -> None:
    with guest(tmp_path, SOURCE) as made:
        memory = made.domain.memory
        made.recorders[0].on_write = lambda port, value: memory.page_types(PAGE >> 12, 1, value)
        made.run()
        assert made.last == LAST
        assert memory.read(PAGE, 16) == AFTER
        assert memory.read(PAGE - 4, 4) == b"\5\0\0\0"
    assert memory.on_type == []


def test_read_only_ram_drops_writes_until_it_is_ram_again_on_kvm(tmp_path: Path) -> None:
    with kvm_guest(tmp_path, SOURCE) as made:
        memory = made.domain.memory

        class Orders(Log):
            def write(self, address: int, size: int, value: int) -> bool:
                memory.page_types(PAGE >> 12, 1, value)
                return True

        made.domain.intercepts.remove(made.log)
        made.domain.intercepts.add_ports(ORDER, ORDER, Orders())
        made.run()
        assert made.last == LAST
        assert memory.read(PAGE, 16) == AFTER
        assert memory.read(PAGE - 4, 4) == b"\5\0\0\0"


def test_pages_of_mmio_are_for_the_emulators_on_unicorn(tmp_path: Path) -> None:
    source = f"""movl $1, {PAGE}; {ordered(MMIO)} movl $2, {PAGE}; mov {PAGE}, %eax
        mov $0xf5, %dx; out %eax, %dx; 1: jmp 1b"""
    with guest(tmp_path, source) as made:
        memory = made.domain.memory
        made.recorders[0].on_write = lambda address, value: (
            memory.page_types(PAGE >> 12, 1, value) if address == ORDER else None
        )
        made.run()
        assert made.last == 0xFFFFFFFF
        assert ("write", PAGE, 4, 2) in made.log
        assert memory.read(PAGE, 4) == b"\1\0\0\0"


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 6), st.sampled_from([RW, RO, MMIO]))),
    st.sets(st.integers(0, 15), max_size=5),
)
def test_runs_are_ram_by_type_in_order_and_as_long_as_can_be(
    changes: list[tuple[int, int, int]], gone: set[int]
) -> None:
    memory = GuestMemory([(0, 16 << 12)])
    for gfn in gone:
        memory.unmap_page(gfn)
    for first, count, mem_type in changes:
        memory.page_types(first, count, mem_type)
    pages = {}
    runs = list(memory.runs())
    for gpa, size, offset, writable in runs:
        for step in range(0, size, 4096):
            pages[gpa + step >> 12] = (offset + step, writable)
    assert pages == {
        gfn: (gfn << 12, memory.types.get(gfn, RW) == RW)
        for gfn in range(16)
        if gfn not in gone and memory.types.get(gfn) != MMIO
    }
    assert all(size for _, size, _, _ in runs)
    for one, other in pairwise(runs):
        assert one.gpa + one.size < other.gpa or one.writable != other.writable
