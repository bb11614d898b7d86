"""Requests of vCPUs: who gets them, what is in them, what comes back (hvmemul_do_io and below)."""

from __future__ import annotations

import struct

import pytest

from protocol import layouts
from tools.hypervisor.domain import Domain
from tools.hypervisor.vcpu import MEMORY, PORT

from .core_emulator import (
    DOWN,
    LEGACY,
    OFF,
    ONES,
    PCI,
    POINTER,
    READ,
    READY,
    Emulator,
    Host,
    Request,
    Running,
    readable,
)

PIO = layouts.IOREQ_TYPE_PIO
COPY = layouts.IOREQ_TYPE_COPY
PCI_CONFIG = layouts.IOREQ_TYPE_PCI_CONFIG
INVALIDATE = layouts.IOREQ_TYPE_INVALIDATE
MMIO = 0xFE000000


def opened(host: Host, *ranges: tuple[int, int, int], mode: int = OFF) -> tuple[Domain, Emulator]:
    """A domain with one vCPU, and an emulator that has claimed the ranges."""
    domain = host.domain()
    emulator = host.emulator().open(mode=mode)
    for claimed in ranges:
        emulator.map(*claimed)
    return domain, emulator


def essence(request: Request) -> tuple[int, int, int, int, int, int]:
    """Type, address, data, count, size, flags without the state."""
    return (
        request.kind,
        request.address,
        request.data,
        request.number,
        request.size,
        request.flags & 0xF0,
    )


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_port_read_is_one_pio_request_and_takes_the_low_bytes(host: Host, size: int) -> None:
    domain, emulator = opened(host, (PORT, 0x10, 0x1F))
    asked = Running(lambda: domain.vcpus[0].read(PORT, 0x12, size))
    request = emulator.serve(0x1122334455667788)
    assert essence(request) == (PIO, 0x12, 0, 1, size, READ)
    assert asked.result() == 0x1122334455667788 & ((1 << 8 * size) - 1)
    assert emulator.request().state == 0


def test_write_data_is_cut_to_the_size_and_the_rest_is_zero(host: Host) -> None:
    domain, emulator = opened(host, (PORT, 0x10, 0x1F))
    asked = Running(lambda: domain.vcpus[0].write(PORT, 0x12, 2, 0x12345678))
    assert essence(emulator.serve()) == (PIO, 0x12, 0x5678, 1, 2, 0)
    asked.result()


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_memory_accesses_are_copy_requests(host: Host, size: int) -> None:
    domain, emulator = opened(host, (MEMORY, MMIO, MMIO + 0xFFF))
    asked = Running(lambda: domain.vcpus[0].read(MEMORY, MMIO + 3, size))
    assert essence(emulator.serve(ONES)) == (COPY, MMIO + 3, 0, 1, size, READ)
    assert asked.result() == (1 << 8 * size) - 1


def test_memory_accesses_over_a_page_and_of_odd_sizes_come_in_parts(host: Host) -> None:
    domain, emulator = opened(host, (MEMORY, MMIO, MMIO + 0x1FFF))
    for address, size, parts in (
        (MMIO + 0xFFE, 4, [(MMIO + 0xFFE, 2), (MMIO + 0x1000, 2)]),
        (MMIO + 0xFFF, 4, [(MMIO + 0xFFF, 1), (MMIO + 0x1000, 2), (MMIO + 0x1002, 1)]),
        (MMIO, 16, [(MMIO, 8), (MMIO + 8, 8)]),
    ):
        value = int.from_bytes(bytes(range(1, size + 1)), "little")
        asked = Running(lambda a=address, s=size, v=value: domain.vcpus[0].write(MEMORY, a, s, v))  # type: ignore[misc]
        offset = 0
        for part, length in parts:
            request = emulator.serve()
            assert (request.address, request.size) == (part, length)
            assert request.data == value >> 8 * offset & ((1 << 8 * length) - 1)
            offset += length
        asked.result()
        asked_back = Running(lambda a=address, s=size: domain.vcpus[0].read(MEMORY, a, s))  # type: ignore[misc]
        offset = 0
        for _, length in parts:
            emulator.serve(value >> 8 * offset)
            offset += length
        assert asked_back.result() == value


@pytest.mark.parametrize(("space", "size"), [(PORT, 8), (PORT, 3), (PORT, 16)])
def test_sizes_that_are_none_reach_nobody(host: Host, space: int, size: int) -> None:
    domain, _ = opened(host, (space, 0, 0xFFFF))
    assert domain.vcpus[0].read(space, 0, size) == (1 << 8 * size) - 1
    domain.vcpus[0].write(space, 0, size, 1)


def test_what_nobody_claims_reads_as_ones_and_writes_vanish(host: Host) -> None:
    domain, emulator = opened(host)
    vcpu = domain.vcpus[0]
    assert vcpu.read(PORT, 5, 2) == 0xFFFF
    assert vcpu.read(MEMORY, MMIO, 8) == ONES
    vcpu.write(PORT, 5, 1, 0)
    vcpu.string(port=5, size=2, count=3, gpa=0x100, reads=True, down=False)
    assert domain.memory.read(0xFF, 8) == b"\0\xff\xff\xff\xff\xff\xff\0"
    vcpu.move(mmio=MMIO + 4, size=4, count=2, gpa=0x204, reads=True, down=True)
    assert domain.memory.read(0x1FF, 10) == b"\0" + b"\xff" * 8 + b"\0"
    vcpu.fill(mmio=MMIO, size=4, count=3, value=1, down=False)
    assert emulator.request().state == 0


def test_an_access_must_lie_wholly_in_what_one_server_claims(host: Host) -> None:
    domain, _ = opened(host, (PORT, 0x10, 0x11), (MEMORY, MMIO, MMIO + 3))
    vcpu = domain.vcpus[0]
    assert vcpu.read(PORT, 0x11, 2) == 0xFFFF
    assert vcpu.read(PORT, 0x0F, 2) == 0xFFFF
    assert vcpu.read(MEMORY, MMIO + 1, 4) == 0xFFFFFFFF
    other = host.emulator().open()
    other.map(PORT, 0x12, 0x13)
    assert vcpu.read(PORT, 0x11, 2) == 0xFFFF


def test_the_highest_id_wins_and_the_next_one_when_it_is_disabled(host: Host) -> None:
    domain = host.domain()
    emulators = [host.emulator().open() for _ in range(3)]
    for emulator in emulators:
        emulator.map(PORT, 0x10, 0x1F)
    emulators[2].unmap(PORT, 0x18, 0x1F)
    vcpu = domain.vcpus[0]
    for port, winner in ((0x10, 2), (0x18, 1)):
        asked = Running(lambda p=port: vcpu.read(PORT, p, 1))  # type: ignore[misc]
        emulators[winner].serve(winner)
        assert asked.result() == winner
    emulators[2].enable(2, 0)
    asked = Running(lambda: vcpu.read(PORT, 0x10, 1))
    emulators[1].serve(1)
    assert asked.result() == 1


def test_a_recycled_id_has_its_old_priority(host: Host) -> None:
    domain = host.domain()
    first, second = host.emulator().open(), host.emulator().open()
    first.destroy(first.id)
    third = host.emulator().open()
    assert third.id == 0
    for emulator in (second, third):
        emulator.map(PORT, 0x10, 0x10)
    asked = Running(lambda: domain.vcpus[0].read(PORT, 0x10, 1))
    second.serve(2)
    assert asked.result() == 2


def test_claims_take_effect_for_the_next_access_and_one_under_way_is_unaffected(
    host: Host,
) -> None:
    domain, emulator = opened(host, (PORT, 0x10, 0x10))
    asked = Running(lambda: domain.vcpus[0].read(PORT, 0x10, 1))
    emulator.wait()
    emulator.unmap(PORT, 0x10, 0x10)
    emulator.enable(emulator.id, 0)
    emulator.answer(7)
    assert asked.result() == 7
    assert domain.vcpus[0].read(PORT, 0x10, 1) == 0xFF


def test_the_config_latch_takes_whole_writes_only_and_they_go_on_as_port_writes(
    host: Host,
) -> None:
    domain, emulator = opened(host, (PORT, 0xCF8, 0xCFF), (PCI, 0x18, 0x18))
    vcpu = domain.vcpus[0]
    asked = Running(lambda: vcpu.write(PORT, 0xCF8, 4, 0x800018F4))
    assert essence(emulator.serve()) == (PIO, 0xCF8, 0x800018F4, 1, 4, 0)
    asked.result()
    for port, size in ((0xCF9, 1), (0xCF8, 2), (0xCFA, 2)):
        asked = Running(lambda p=port, s=size: vcpu.write(PORT, p, s, 0))  # type: ignore[misc]
        assert essence(emulator.serve()) == (PIO, port, 0, 1, size, 0)
        asked.result()
    assert domain.pci_cf8 == 0x800018F4
    read = Running(lambda: vcpu.read(PORT, 0xCF8, 4))
    assert essence(emulator.serve(0x1234)) == (PIO, 0xCF8, 0, 1, 4, READ)
    assert read.result() == 0x1234


@pytest.mark.parametrize(("port", "size"), [(0xCFC, 4), (0xCFD, 1), (0xCFE, 2), (0xCFE, 4)])
def test_data_cycles_are_config_requests_with_the_whole_register(
    host: Host, port: int, size: int
) -> None:
    domain, emulator = opened(host, (PCI, 0x1234, 0x1234))
    domain.pci_cf8 = 0x80123456
    asked = Running(lambda: domain.vcpus[0].read(PORT, port, size))
    address = 0x1234 << 32 | 0x54 | (port & 3)
    assert essence(emulator.serve(1)) == (PCI_CONFIG, address, 0, 1, size, READ)
    assert asked.result() == 1


def test_data_cycles_of_an_unclaimed_function_are_nobodys_even_if_the_port_is_claimed(
    host: Host,
) -> None:
    domain, emulator = opened(host, (PORT, 0xCFC, 0xCFF), (PCI, 0x10, 0x10))
    domain.pci_cf8 = 0x80001100
    assert domain.vcpus[0].read(PORT, 0xCFC, 4) == 0xFFFFFFFF
    domain.pci_cf8 = 0x00001000
    asked = Running(lambda: domain.vcpus[0].read(PORT, 0xCFC, 4))
    assert essence(emulator.serve(3)) == (PIO, 0xCFC, 0, 1, 4, READ)
    assert asked.result() == 3


def test_a_whole_bus_can_be_claimed_at_once(host: Host) -> None:
    domain, emulator = opened(host, (PCI, 0, 0xFF))
    domain.pci_cf8 = 0x8000FF00
    asked = Running(lambda: domain.vcpus[0].read(PORT, 0xCFC, 4))
    emulator.serve(4)
    assert asked.result() == 4


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("reads", [False, True])
def test_repeated_port_accesses_are_one_request_with_the_buffers_address(
    host: Host, reads: bool, down: bool
) -> None:
    domain, emulator = opened(host, (PORT, 0x10, 0x13))
    vcpu = domain.vcpus[0]
    asked = Running(
        lambda: vcpu.string(port=0x10, size=4, count=100, gpa=0x2000, reads=reads, down=down)
    )
    flags = POINTER | (READ if reads else 0) | (DOWN if down else 0)
    assert essence(emulator.serve()) == (PIO, 0x10, 0x2000, 100, 4, flags)
    asked.result()


def test_no_request_has_more_than_4096_elements_and_one_alone_has_no_pointer(host: Host) -> None:
    domain, emulator = opened(host, (PORT, 0x10, 0x10))
    domain.memory.write(0x3001, b"\x77")
    asked = Running(
        lambda: domain.vcpus[0].string(
            port=0x10, size=1, count=4098, gpa=0x2000, reads=False, down=False
        )
    )
    assert essence(emulator.serve()) == (PIO, 0x10, 0x2000, 4096, 1, POINTER)
    assert essence(emulator.serve()) == (PIO, 0x10, 0x3000, 2, 1, POINTER)
    asked.result()
    asked = Running(
        lambda: domain.vcpus[0].string(
            port=0x10, size=1, count=1, gpa=0x3001, reads=False, down=False
        )
    )
    assert essence(emulator.serve()) == (PIO, 0x10, 0x77, 1, 1, 0)
    asked.result()


def test_moves_end_at_the_border_of_a_page_on_either_side(host: Host) -> None:
    domain, emulator = opened(host, (MEMORY, MMIO, MMIO + 0x1FFF))
    asked = Running(
        lambda: domain.vcpus[0].move(
            mmio=MMIO + 0xFF8, size=4, count=6, gpa=0x2FF0, reads=True, down=False
        )
    )
    assert essence(emulator.serve()) == (COPY, MMIO + 0xFF8, 0x2FF0, 2, 4, POINTER | READ)
    assert essence(emulator.serve()) == (COPY, MMIO + 0x1000, 0x2FF8, 2, 4, POINTER | READ)
    assert essence(emulator.serve()) == (COPY, MMIO + 0x1008, 0x3000, 2, 4, POINTER | READ)
    asked.result()


def test_moves_downwards_begin_with_the_highest_element(host: Host) -> None:
    domain, emulator = opened(host, (MEMORY, MMIO, MMIO + 0x1FFF))
    asked = Running(
        lambda: domain.vcpus[0].move(
            mmio=MMIO + 0x1004, size=4, count=4, gpa=0x2008, reads=False, down=True
        )
    )
    flags = POINTER | DOWN
    assert essence(emulator.serve()) == (COPY, MMIO + 0x1004, 0x2008, 2, 4, flags)
    assert essence(emulator.serve()) == (COPY, MMIO + 0xFFC, 0, 1, 4, 0)
    assert essence(emulator.serve())[:2] == (COPY, MMIO + 0xFF8)
    asked.result()


def test_an_element_over_a_border_is_made_alone(host: Host) -> None:
    domain, emulator = opened(host, (MEMORY, MMIO, MMIO + 0xFFF))
    domain.memory.write(0x1FFE, b"abcd")
    asked = Running(
        lambda: domain.vcpus[0].move(
            mmio=MMIO, size=4, count=3, gpa=0x1FFE, reads=False, down=False
        )
    )
    data = int.from_bytes(b"abcd", "little")
    assert essence(emulator.serve()) == (COPY, MMIO, data, 1, 4, 0)
    assert essence(emulator.serve()) == (COPY, MMIO + 4, 0x2002, 2, 4, POINTER)
    asked.result()


def test_fills_are_one_request_with_the_value_and_the_count(host: Host) -> None:
    domain, emulator = opened(host, (MEMORY, MMIO, MMIO + 0xFFF))
    asked = Running(
        lambda: domain.vcpus[0].fill(mmio=MMIO + 8, size=2, count=5, value=0x12345, down=True)
    )
    assert essence(emulator.serve()) == (COPY, MMIO + 8, 0x2345, 5, 2, DOWN)
    asked.result()


def test_all_of_a_repetition_must_be_claimed(host: Host) -> None:
    domain, _ = opened(host, (MEMORY, MMIO + 0x10, MMIO + 0x17))
    domain.vcpus[0].fill(mmio=MMIO + 0x10, size=4, count=3, value=1, down=False)
    domain.vcpus[0].fill(mmio=MMIO + 0x14, size=4, count=3, value=1, down=True)


def test_reads_by_pointer_ignore_the_slots_data(host: Host) -> None:
    domain, emulator = opened(host, (PORT, 0x10, 0x10))
    asked = Running(
        lambda: domain.vcpus[0].string(
            port=0x10, size=1, count=4, gpa=0x100, reads=True, down=False
        )
    )
    emulator.wait()
    domain.memory.write(0x100, b"data")
    emulator.answer(0)
    asked.result()
    assert domain.memory.read(0x100, 4) == b"data"


class Register:
    """A handler of the hypervisor's own."""

    def __init__(self) -> None:
        self.value = 0x5A
        self.mine = True
        self.seen: list[tuple[int, int]] = []

    def read(self, address: int, size: int) -> int | None:
        self.seen.append((address, size))
        return self.value if self.mine else None

    def write(self, address: int, size: int, value: int) -> bool:
        self.seen.append((address, size))
        self.value = value
        return self.mine


def test_the_hypervisors_own_handlers_come_first_unless_they_decline(host: Host) -> None:
    domain, emulator = opened(host, (PORT, 0x70, 0x71))
    register = Register()
    domain.intercepts.add_ports(0x70, 0x70, register)
    vcpu = domain.vcpus[0]
    assert vcpu.read(PORT, 0x70, 1) == 0x5A
    vcpu.write(PORT, 0x70, 1, 0x33)
    assert register.value == 0x33
    assert not readable(emulator.vcpus[0].front)
    asked = Running(lambda: vcpu.read(PORT, 0x70, 2))
    emulator.serve(0x1111)
    assert asked.result() == 0x1111
    register.mine = False
    asked = Running(lambda: vcpu.read(PORT, 0x70, 1))
    emulator.serve(0x22)
    assert asked.result() == 0x22
    writing = Running(lambda: vcpu.write(PORT, 0x70, 1, 0x44))
    assert emulator.serve().data == 0x44
    writing.result()
    assert register.value == 0x44


def test_repetitions_on_an_own_handler_are_made_one_by_one(host: Host) -> None:
    domain, _ = opened(host, (PORT, 0, 0xFFFF), (MEMORY, MMIO, MMIO + 0xFFF))
    register = Register()
    domain.intercepts.add_ports(0x40, 0x40, register)
    domain.intercepts.add_memory(MMIO, MMIO + 0xFFF, register)
    vcpu = domain.vcpus[0]
    vcpu.string(port=0x40, size=1, count=3, gpa=0, reads=True, down=False)
    assert domain.memory.read(0, 4) == b"\x5a\x5a\x5a\0"
    vcpu.move(mmio=MMIO, size=4, count=2, gpa=0, reads=False, down=False)
    vcpu.fill(mmio=MMIO, size=4, count=2, value=1, down=False)
    assert register.seen == [(0x40, 1)] * 3 + [(MMIO, 4), (MMIO + 4, 4)] * 2


def test_handlers_may_not_overlap(host: Host) -> None:
    domain = host.domain()
    domain.intercepts.add_ports(0x40, 0x43, Register())
    for first, last in ((0x43, 0x44), (0x3F, 0x40), (0x41, 0x41), (0x50, 0x4F)):
        with pytest.raises(ValueError):
            domain.intercepts.add_ports(first, last, Register())
    register = Register()
    domain.intercepts.add_ports(0x50, 0x5F, register)
    domain.intercepts.remove(register)
    taken = domain.intercepts.taken
    assert [port for port in range(1 << 16) if taken[port]] == list(range(0x40, 0x44))
    domain.intercepts.add_ports(0x50, 0x5F, Register())
    assert len(taken) == 1 << 16
    assert taken[0x50:0x60] == b"\1" * 16


def test_invalidate_asks_every_enabled_server_and_the_vcpu_waits_for_all(host: Host) -> None:
    domain = host.domain()
    first, second, third = (host.emulator().open() for _ in range(3))
    third.enable(third.id, 0)
    domain.invalidate()
    resting = Running(domain.vcpus[0].rest)
    for emulator in (first, second):
        request = emulator.wait()
        assert essence(request) == (INVALIDATE, 0, ONES, 0, 4, 0)
    second.answer()
    first.answer()
    resting.result()
    assert third.request().state == 0
    assert not domain.vcpus[0].attention


def test_invalidate_comes_before_the_next_access_of_each_vcpu(host: Host) -> None:
    domain = host.domain(vcpus=2)
    emulator = host.emulator().open(vcpus=2)
    emulator.map(PORT, 5, 5)
    domain.invalidate()
    for number in range(2):
        asked = Running(lambda n=number: domain.vcpus[n].read(PORT, 5, 1))  # type: ignore[misc]
        assert emulator.serve(vcpu=number).kind == INVALIDATE
        assert emulator.serve(9, vcpu=number).kind == PIO
        assert asked.result() == 9


def test_vcpus_wait_independently(host: Host) -> None:
    domain = host.domain(vcpus=3)
    emulator = host.emulator().open(vcpus=3)
    emulator.map(PORT, 0, 0xFF)
    asked = [
        Running(lambda n=number: domain.vcpus[n].read(PORT, n, 1))  # type: ignore[misc]
        for number in range(3)
    ]
    for number in (2, 0, 1):
        assert emulator.serve(10 + number, number).address == number
        assert asked[number].result() == 10 + number


def test_the_pages_hold_what_the_hypervisor_says_they_hold(host: Host) -> None:
    domain, emulator = opened(host, (PORT, 5, 5), mode=LEGACY)
    asked = Running(lambda: domain.vcpus[0].write(PORT, 5, 1, 0xAB))
    emulator.wait()
    raw = emulator.page[4096:4128]
    expected = struct.pack("<QQIIIHBB", 5, 0xAB, 1, 1, emulator.request().port, 0, READY, PIO)
    assert raw == expected
    emulator.answer()
    asked.result()
