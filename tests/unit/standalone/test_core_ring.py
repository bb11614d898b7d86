"""The buffered ring as the hypervisor fills it (ioreq_send_buffered, stdvga.c)."""

from __future__ import annotations

import os

import pytest

from protocol import layouts
from tools.hypervisor.domain import Domain
from tools.hypervisor.vcpu import MEMORY, PORT

from .core_emulator import ATOMIC, LEGACY, OFF, Emulator, Host, Running, readable

VGA = 0xB8000
COPY = layouts.IOREQ_TYPE_COPY


def opened(host: Host, mode: int = LEGACY) -> tuple[Domain, Emulator]:
    domain = host.domain()
    emulator = host.emulator().open(mode=mode)
    emulator.map(MEMORY, 0x90000, 0xDFFFF)
    return domain, emulator


def header(address: int, size: int, kind: int = COPY) -> int:
    return kind | (size.bit_length() - 1) << 10 | address << 12


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_write_to_the_vga_window_is_an_entry_and_the_vcpu_goes_on(host: Host, size: int) -> None:
    domain, emulator = opened(host)
    domain.vcpus[0].write(MEMORY, VGA, size, 0x1122334455667788)
    assert emulator.pointers == (0, 1)
    assert emulator.entry(0) == (header(VGA, size), 0x1122334455667788 & ((1 << 8 * size) - 1))
    assert emulator.request().state == 0


def test_eight_bytes_take_two_entries_with_equal_headers(host: Host) -> None:
    domain, emulator = opened(host)
    domain.vcpus[0].write(MEMORY, VGA, 8, 0x1122334455667788)
    assert emulator.pointers == (0, 2)
    assert emulator.entry(0) == (header(VGA, 8), 0x55667788)
    assert emulator.entry(1) == (header(VGA, 8), 0x11223344)


def test_the_ring_is_announced_after_every_entry(host: Host) -> None:
    domain, emulator = opened(host)
    assert emulator.ring is not None
    for _ in range(3):
        domain.vcpus[0].write(MEMORY, VGA, 1, 1)
    assert os.eventfd_read(emulator.ring.front) == 3
    assert not readable(emulator.vcpus[0].front)


@pytest.mark.parametrize("address", [0x9FFFF, 0xC0000])
def test_only_the_vga_window_is_buffered(host: Host, address: int) -> None:
    domain, emulator = opened(host)
    asked = Running(lambda: domain.vcpus[0].write(MEMORY, address, 1, 1))
    emulator.serve()
    asked.result()
    domain.vcpus[0].write(MEMORY, 0xA0000, 1, 1)
    domain.vcpus[0].write(MEMORY, 0xBFFFF, 1, 1)
    assert emulator.pointers == (0, 2)


def test_reads_and_repetitions_are_not_buffered(host: Host) -> None:
    domain, emulator = opened(host)
    vcpu = domain.vcpus[0]
    asked = Running(lambda: vcpu.read(MEMORY, VGA, 2))
    emulator.serve(7)
    assert asked.result() == 7
    filling = Running(lambda: vcpu.fill(mmio=VGA, size=2, count=80, value=7, down=False))
    assert emulator.serve().number == 80
    filling.result()
    moving = Running(lambda: vcpu.move(mmio=VGA, size=2, count=80, gpa=0, reads=False, down=False))
    assert emulator.serve().number == 80
    moving.result()
    vcpu.fill(mmio=VGA, size=2, count=1, value=7, down=False)
    assert emulator.pointers == (0, 1)


def test_an_entry_has_20_bits_of_address(host: Host) -> None:
    domain, emulator = opened(host)
    server = domain.servers.get(emulator.id, 0)
    assert not server.send_buffered(COPY, 0x100000, 1, 1, 0)
    assert server.send_buffered(COPY, 0xFFFFF, 1, 1, 0)
    assert not server.send_buffered(COPY, 0, 1, 3, 0)
    assert emulator.pointers == (0, 1)


def test_ports_are_never_buffered(host: Host) -> None:
    domain, emulator = opened(host)
    emulator.map(PORT, 0, 0xFFFF)
    asked = Running(lambda: domain.vcpus[0].write(PORT, 0x3C4, 1, 1))
    emulator.serve()
    asked.result()
    assert emulator.pointers == (0, 0)


def test_a_server_without_a_ring_gets_requests(host: Host) -> None:
    domain, emulator = opened(host, OFF)
    asked = Running(lambda: domain.vcpus[0].write(MEMORY, VGA, 1, 1))
    assert emulator.serve().address == VGA
    asked.result()


@pytest.mark.parametrize(("size", "room"), [(1, 511), (8, 510)])
def test_a_full_ring_falls_back_to_a_request(host: Host, size: int, room: int) -> None:
    domain, emulator = opened(host)
    emulator.set_pointers(100, 100 + room)
    asked = Running(lambda: domain.vcpus[0].write(MEMORY, VGA, size, 1))
    assert emulator.serve().size == size
    asked.result()
    assert emulator.pointers == (100, 100 + room)
    emulator.set_pointers(101, 100 + room)
    domain.vcpus[0].write(MEMORY, VGA, size, 1)
    assert emulator.pointers[1] > 100 + room


def test_pointers_run_freely_and_wrap_at_32_bits_in_legacy_mode(host: Host) -> None:
    domain, emulator = opened(host)
    emulator.set_pointers(0xFFFFFFFF, 0xFFFFFFFF)
    domain.vcpus[0].write(MEMORY, VGA, 1, 5)
    assert emulator.pointers == (0xFFFFFFFF, 0)
    assert emulator.entry(0xFFFFFFFF % 511)[1] == 5
    emulator.set_pointers(600, 600)
    domain.vcpus[0].write(MEMORY, VGA, 1, 6)
    assert emulator.pointers == (600, 601)
    assert emulator.entry(600)[1] == 6


def test_atomic_mode_lowers_both_pointers_by_whole_rounds_and_keeps_the_index(
    host: Host,
) -> None:
    domain, emulator = opened(host, ATOMIC)
    emulator.set_pointers(1500, 1501)
    domain.vcpus[0].write(MEMORY, VGA, 1, 5)
    assert emulator.pointers == (1500, 1502), "only an empty ring is safe to change"
    emulator.set_pointers(1502, 1502)
    domain.vcpus[0].write(MEMORY, VGA, 1, 6)
    assert emulator.pointers == (1502 % 511, 1502 % 511 + 1)
    assert emulator.entry(1502)[1] == 6


def test_a_time_offset_goes_to_every_enabled_server_with_a_ring(host: Host) -> None:
    domain = host.domain()
    rings = [host.emulator().open(), host.emulator().open()]
    host.emulator().open(mode=OFF)
    rings[1].enable(rings[1].id, 0)
    assert domain.time_offset(-5)
    kind = header(0, 8, layouts.IOREQ_TYPE_TIMEOFFSET)
    assert rings[0].pointers == (0, 2)
    assert rings[0].entry(0) == (kind, 0xFFFFFFFB)
    assert rings[0].entry(1) == (kind, 0xFFFFFFFF)
    assert rings[1].pointers == (0, 0)


def test_no_time_offset_is_not_told_and_a_full_ring_loses_it(host: Host) -> None:
    domain, emulator = opened(host)
    assert domain.time_offset(0)
    assert emulator.pointers == (0, 0)
    emulator.set_pointers(0, 510)
    assert not domain.time_offset(1)
    assert emulator.pointers == (0, 510)
