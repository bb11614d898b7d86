"""The guest's RAM: regions, holes between them, and what the guest gave back."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dm.errors import GuestError, HostError
from dm.hypervisor.local.hypervisor import LocalHypervisor
from dm.hypervisor.local.memory import LONGEST_ACCESS, LocalMemory
from protocol import layouts
from protocol.local import LOCAL_REGION, LocalCall

from .peer import PAGE, Peer, memory_file

REGIONS = [(0x2000, 0x1000, 0x3000), (0x3000, 0x2000, 0), (0x10000, 0x1000, 0x2000)]
"""Two that touch, stored in another order, and one after a hole."""


def packed(regions: list[tuple[int, int, int]]) -> bytes:
    return b"".join(
        LOCAL_REGION.build({"gpa": gpa, "length": length, "offset": offset})
        for gpa, length, offset in regions
    )


@pytest.fixture
def memory() -> Iterator[LocalMemory]:
    fd = memory_file(0x4000)
    os.pwrite(fd, bytes(range(256)) * 64, 0)
    made = LocalMemory(fd, lambda: packed(REGIONS), lambda first, count: None)
    made.take(packed(REGIONS))
    yield made
    made.close()
    os.close(fd)


def test_an_access_may_span_regions_that_touch(memory: LocalMemory) -> None:
    memory.write(0x2FFE, b"abcd")
    assert memory.read(0x2FFD, 6) == b"\xfdabcd\x02"
    memory.write(0x4FFF, memoryview(b"z"))
    assert memory.read(0x4FFF, 1) == b"z"


@pytest.mark.parametrize(
    ("gpa", "length"),
    [(0x1FFF, 1), (0x1FFF, 2), (0x4FFF, 2), (0x5000, 1), (0xFFFF, 2), (1 << 60, 4), (-1, 1)],
)
def test_outside_of_ram_nothing_is_read_or_stored(
    memory: LocalMemory, gpa: int, length: int
) -> None:
    before = [memory.read(first, size) for first, size, _ in REGIONS]
    with pytest.raises(GuestError):
        memory.read(gpa, length)
    with pytest.raises(GuestError):
        memory.write(gpa, bytes(length))
    assert [memory.read(first, size) for first, size, _ in REGIONS] == before


@pytest.mark.parametrize("length", [-1, LONGEST_ACCESS + 1, 1 << 40])
def test_lengths_that_no_device_needs_are_refused(memory: LocalMemory, length: int) -> None:
    with pytest.raises(GuestError, match="too long"):
        memory.read(0x2000, length)


def test_nothing_at_nowhere_is_nothing(memory: LocalMemory) -> None:
    assert memory.read(0x9000, 0) == b""
    memory.write(0x9000, b"")


@given(gpa=st.integers(0, 0x12000), data=st.binary(max_size=0x2100))
def test_what_was_stored_is_read_and_all_else_stays(gpa: int, data: bytes) -> None:
    fd = memory_file(0x4000)
    memory = LocalMemory(fd, lambda: packed(REGIONS), lambda first, count: None)
    memory.take(packed(REGIONS))
    model = {address: 0 for first, size, _ in REGIONS for address in range(first, first + size)}
    wanted = range(gpa, gpa + len(data))
    if all(address in model for address in wanted):
        memory.write(gpa, data)
        model.update(zip(wanted, data, strict=True))
    else:
        with pytest.raises(GuestError):
            memory.write(gpa, data)
    for first, size, _ in REGIONS:
        assert memory.read(first, size) == bytes(model[first + at] for at in range(size))
    memory.close()
    os.close(fd)


def test_pages_that_were_given_back_are_no_ram_any_more(
    peer: Peer, hypervisor: LocalHypervisor
) -> None:
    hypervisor.memory.write(0x100000, b"there")
    assert os.pread(peer.memory, 5, 4 * PAGE) == b"there"
    peer.regions.pop()
    hypervisor.memory.invalidate()
    assert len(peer.asked(LocalCall.MEMORY)) == 2
    with pytest.raises(GuestError):
        hypervisor.memory.read(0x100000, 1)
    assert hypervisor.memory.read(0, 1) == b"\0"


def test_memory_may_grow(peer: Peer, hypervisor: LocalHypervisor) -> None:
    os.ftruncate(peer.memory, 32 * PAGE)
    peer.regions.append((0x200000, 8 * PAGE, 24 * PAGE))
    hypervisor.memory.invalidate()
    hypervisor.memory.write(0x207FFF, b"x")
    assert os.pread(peer.memory, 1, 32 * PAGE - 1) == b"x"


def test_ram_that_came_without_a_word_is_found_when_it_is_used(
    peer: Peer, hypervisor: LocalHypervisor
) -> None:
    os.ftruncate(peer.memory, 32 * PAGE)
    peer.regions.append((0x200000, 8 * PAGE, 24 * PAGE))
    hypervisor.memory.write(0x200000, b"x")
    assert os.pread(peer.memory, 1, 24 * PAGE) == b"x"
    with pytest.raises(GuestError):
        hypervisor.memory.read(0x300000, 1)


def test_a_guest_may_cut_its_memory_into_many_regions(
    peer: Peer, hypervisor: LocalHypervisor
) -> None:
    count = 2 * layouts.LOCAL_PACKET_SIZE // layouts.LOCAL_REGION_SIZE
    os.ftruncate(peer.memory, count * PAGE)
    peer.regions = [(2 * number * PAGE, PAGE, number * PAGE) for number in range(count)]
    hypervisor.memory.invalidate()
    hypervisor.memory.write(2 * (count - 1) * PAGE + PAGE - 1, b"x")
    assert os.pread(peer.memory, 1, count * PAGE - 1) == b"x"
    with pytest.raises(GuestError):
        hypervisor.memory.read(2 * (count - 1) * PAGE - 1, 2)


@pytest.mark.parametrize("damage", [b"x", b""])
def test_regions_that_are_cut_short_are_refused(
    peer: Peer, hypervisor: LocalHypervisor, damage: bytes
) -> None:
    fd = os.memfd_create("damaged")
    os.write(fd, damage)
    peer.handlers[LocalCall.MEMORY] = lambda body: (0, b"", [fd] if damage else [])
    with pytest.raises(HostError, match=r"memory\(domain 3"):
        hypervisor.memory.invalidate()
    os.close(fd)
    assert hypervisor.memory.read(0, 1) == b"\0"


def test_regions_beyond_the_file_are_refused(peer: Peer, hypervisor: LocalHypervisor) -> None:
    peer.regions.append((0x200000, PAGE, 8 * PAGE))
    with pytest.raises(HostError, match="guest memory"):
        hypervisor.memory.invalidate()
