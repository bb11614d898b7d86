"""Guest memory and what is known of its pages."""

from __future__ import annotations

import mmap

import pytest

from tools.hypervisor.errors import NotRamError
from tools.hypervisor.memory import DirtyLog, GuestMemory, MemoryRegion


def test_memory_is_where_the_regions_say_and_shared_through_the_file() -> None:
    memory = GuestMemory([(0x100000, 0x2000), (0, 0x1000)])
    assert memory.regions == [MemoryRegion(0, 0x1000, 0), MemoryRegion(0x100000, 0x2000, 0x1000)]
    memory.write(0x101FFE, b"ab")
    with mmap.mmap(memory.fd, memory.size) as other:
        assert other[0x2FFE:0x3000] == b"ab"
        other[0] = 7
    assert memory.read(0, 2) == b"\x07\0"


def test_adjacent_regions_are_one() -> None:
    memory = GuestMemory([(0x1000, 0x1000), (0, 0x1000)])
    memory.write(0xFFF, b"xy")
    assert memory.read(0xFFF, 2) == b"xy"


@pytest.mark.parametrize(("gpa", "length"), [(0xFFF, 2), (0x1000, 1), (1 << 60, 1), (0, -1)])
def test_what_is_not_all_ram_is_refused_and_nothing_stored(gpa: int, length: int) -> None:
    memory = GuestMemory([(0, 0x1000), (0x2000, 0x1000)])
    with pytest.raises(NotRamError):
        memory.read(gpa, length)
    if length > 0:
        with pytest.raises(NotRamError):
            memory.write(gpa, b"x" * length)
    assert not any(memory.map[:])


@pytest.mark.parametrize(
    "ram",
    [[], [(0, 0)], [(0, 100)], [(1, 0x1000)], [(0, 0x2000), (0x1000, 0x1000)], [(1 << 52, 4096)]],
)
def test_regions_that_cannot_be_are_refused(ram: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError):
        GuestMemory(ram)


def test_the_dirty_log_has_ram_only_and_only_while_it_is_on() -> None:
    log = DirtyLog(GuestMemory([(0, 0x3000)]))
    log.mark(0, 2)
    assert log.take() == set()
    log.enabled = True
    log.mark(1, 1 << 40)
    assert log.take() == {1, 2}
    assert log.take() == set()


def test_watched_memory_is_all_dirty_first_then_what_changed() -> None:
    memory = GuestMemory([(0, 0x10000)])
    log = DirtyLog(memory)
    assert log.watch(1, 9) == b"\xff\x01"
    assert log.watch(1, 9) == b"\0\0"
    memory.write(0x1000, b"x")
    memory.write(0x9FFF, b"x")
    assert log.watch(1, 9) == b"\x01\x01"
    assert log.watch(1, 9) == b"\0\0"
    assert log.watch(1, 8) == b"\xff"
    assert log.watch(0, 0) == b""
    assert log.watch(1, 8) == b"\xff"
