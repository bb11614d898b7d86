"""Ioreq servers: creation, pages, ports, states and ids, over the socket."""

from __future__ import annotations

import struct
from errno import EEXIST, EINVAL, ENOENT, ENOSPC, EOPNOTSUPP, EPERM

import pytest

from protocol import layouts
from tools.hypervisor.errors import DomainEnded

from .core_emulator import (
    ATOMIC,
    LEGACY,
    MEMORY,
    OFF,
    PCI,
    PORT,
    STUB_DOMAIN,
    Host,
    RefusedError,
    Running,
)


def refusal(function: object, *arguments: int) -> int:
    with pytest.raises(RefusedError) as caught:
        function(*arguments)  # type: ignore[operator]
    return caught.value.errno


def test_ids_are_the_lowest_free_one_and_there_are_eight(host: Host) -> None:
    host.domain()
    emulator = host.emulator()
    assert [emulator.create() for _ in range(8)] == list(range(8))
    assert refusal(emulator.create) == ENOSPC
    emulator.destroy(5)
    emulator.destroy(2)
    assert [emulator.create(), emulator.create()] == [2, 5]


def test_a_mode_that_does_not_exist_is_refused(host: Host) -> None:
    host.domain()
    assert refusal(host.emulator().create, 3) == EINVAL


@pytest.mark.parametrize("mode", [OFF, LEGACY, ATOMIC])
def test_only_a_server_with_a_ring_has_its_port(host: Host, mode: int) -> None:
    domain = host.domain(vcpus=3)
    emulator = host.emulator()
    port, _, _ = emulator.info(emulator.create(mode))
    assert bool(port) == (mode != OFF)
    assert len(domain.event_channels.ports) == 3 + (mode != OFF)


def test_a_server_that_does_not_exist_is_refused_by_every_operation(host: Host) -> None:
    host.domain()
    emulator = host.emulator()
    emulator.create()
    for number in (1, 7, 8, 0xFFFF):
        assert refusal(emulator.info, number) == ENOENT
        assert refusal(emulator.enable, number) == ENOENT
        assert refusal(emulator.destroy, number) == ENOENT
        assert refusal(emulator.map, PORT, 0, 0, number) == ENOENT
        assert refusal(emulator.unmap, PORT, 0, 0, number) == ENOENT
        assert refusal(emulator.acquire, number) == ENOENT


def test_a_server_is_its_emulators_domains_not_its_process(host: Host) -> None:
    host.domain()
    first, second = host.emulator(), host.emulator()
    number = first.create()
    second.map(PORT, 0x60, 0x60, number)
    second.destroy(number)
    assert refusal(first.info, number) == ENOENT


def test_a_server_of_another_emulator_domain_is_refused(host: Host) -> None:
    domain = host.domain()
    own = host.emulator()
    number = own.create()
    domain.privileged.add(STUB_DOMAIN)
    other = host.emulator(path=host.stub_path)
    for function in (other.info, other.enable, other.destroy, other.acquire):
        assert refusal(function, number) == EPERM
    assert refusal(other.map, PORT, 0, 0, number) == EPERM
    assert refusal(own.bind, domain.servers.get(other.create(), STUB_DOMAIN).channels[0].port) == (
        EINVAL
    )


def test_an_emulator_domain_without_power_over_the_domain_is_refused(host: Host) -> None:
    domain = host.domain()
    with pytest.raises(RefusedError) as caught:
        host.emulator(path=host.stub_path)
    assert caught.value.errno == EPERM
    domain.privileged.add(STUB_DOMAIN)
    emulator = host.emulator(path=host.stub_path)
    domain.privileged.clear()
    assert refusal(emulator.create) == EPERM


def test_range_types_beyond_three_are_refused(host: Host) -> None:
    host.domain()
    emulator = host.emulator()
    number = emulator.create()
    for space in (PORT, MEMORY, PCI):
        emulator.map(space, 1, 2, number)
    for space in (3, 1 << 31):
        assert refusal(emulator.map, space, 1, 2, number) == EINVAL
        assert refusal(emulator.unmap, space, 1, 2, number) == EINVAL


def test_ranges_are_kept_apart_by_type_and_server(host: Host) -> None:
    host.domain()
    emulator = host.emulator()
    first, second = emulator.create(), emulator.create()
    emulator.map(PORT, 1, 2, first)
    emulator.map(MEMORY, 1, 2, first)
    emulator.map(PORT, 1, 2, second)
    assert refusal(emulator.map, PORT, 2, 3, first) == EEXIST
    emulator.unmap(PORT, 1, 2, second)
    assert refusal(emulator.unmap, PORT, 1, 2, second) == ENOENT


@pytest.mark.parametrize(
    ("mode", "frame", "count", "error"),
    [
        (OFF, 0, 1, ENOENT),
        (OFF, 0, 2, ENOENT),
        (OFF, 1, 2, EINVAL),
        (LEGACY, 2, 1, EINVAL),
        (LEGACY, 0, 3, EINVAL),
        (LEGACY, 0, 0, EINVAL),
    ],
)
def test_frames_that_do_not_exist_are_refused(
    host: Host, mode: int, frame: int, count: int, error: int
) -> None:
    host.domain()
    emulator = host.emulator()
    assert refusal(emulator.acquire, emulator.create(mode), frame, count) == error


def test_a_resource_of_another_type_is_refused(host: Host) -> None:
    host.domain()
    emulator = host.emulator()
    emulator.create()
    body = struct.pack("<HHII", 1, 0, 0, 1)
    with pytest.raises(RefusedError) as caught:
        emulator.ask(layouts.LOCAL_CALL_RESOURCE, body)
    assert caught.value.errno == EOPNOTSUPP


def test_pages_are_zeroed_and_the_same_for_everybody_who_maps_them(host: Host) -> None:
    host.domain()
    emulator = host.emulator()
    number = emulator.create()
    page = emulator.acquire(number)
    assert not any(page[:])
    page[100] = 1
    assert emulator.acquire(number)[100] == 1


def test_ports_are_written_when_the_page_is_acquired_before_enabling(host: Host) -> None:
    domain = host.domain(vcpus=2)
    emulator = host.emulator()
    number = emulator.create()
    page = emulator.acquire(number)
    assert struct.unpack_from("<I", page, 4096 + 24)[0] == 0
    emulator.enable(number)
    ports = [struct.unpack_from("<I", page, 4096 + 32 * n + 24)[0] for n in range(2)]
    assert len(set(ports)) == 2
    assert set(ports) < set(domain.event_channels.ports)


def test_enabling_twice_is_one_enabling_and_any_number_enables(host: Host) -> None:
    domain = host.domain()
    emulator = host.emulator().open()
    emulator.enable(emulator.id, 0xFF)
    emulator.enable(emulator.id, 0)
    emulator.enable(emulator.id, 0)
    emulator.map(PORT, 5, 5)
    assert domain.vcpus[0].read(PORT, 5, 1) == 0xFF
    emulator.enable(emulator.id, 2)
    asked = Running(lambda: domain.vcpus[0].read(PORT, 5, 1))
    emulator.serve(9)
    assert asked.result() == 9


def test_enabling_before_the_page_is_acquired_ends_the_domain_at_the_first_access(
    host: Host,
) -> None:
    domain = host.domain()
    emulator = host.emulator()
    number = emulator.create()
    emulator.map(PORT, 5, 5, number)
    emulator.enable(number)
    with pytest.raises(DomainEnded):
        domain.vcpus[0].read(PORT, 5, 1)
    assert domain.state == "crashed"
    assert "enabled before its page was acquired" in str(domain.crash_message)


def test_acquiring_after_enabling_leaves_the_ports_out(host: Host) -> None:
    domain = host.domain()
    emulator = host.emulator()
    number = emulator.create()
    emulator.map(PORT, 5, 5, number)
    emulator.enable(number)
    emulator.acquire(number)
    with pytest.raises(DomainEnded):
        domain.vcpus[0].read(PORT, 5, 1)
    assert domain.crash_message == "device model set bad event channel 0"


def test_a_port_can_be_bound_once_and_again_when_unbound_or_its_process_died(host: Host) -> None:
    host.domain()
    first, second = host.emulator().open(), host.emulator()
    port = first.request().port
    assert refusal(second.bind, port) == EINVAL
    first.unbind(first.vcpus[0].port)
    bound = second.bind(port)
    assert refusal(first.bind, port) == EINVAL
    second.unbind(bound.port)
    first.bind(port)


def test_a_port_that_does_not_exist_cannot_be_bound(host: Host) -> None:
    domain = host.domain()
    emulator = host.emulator()
    assert refusal(emulator.bind, 0) == EINVAL
    assert refusal(emulator.bind, 77) == EINVAL
    own = domain.event_channels.allocate(None, 0)
    assert refusal(emulator.bind, own.port) == EINVAL


def test_destroying_frees_ports_ranges_and_the_id(host: Host) -> None:
    domain = host.domain(vcpus=2)
    emulator = host.emulator().open(vcpus=2)
    emulator.map(PORT, 5, 5)
    emulator.destroy(emulator.id)
    assert domain.event_channels.ports == []
    assert domain.vcpus[0].read(PORT, 5, 1) == 0xFF
    again = emulator.create()
    assert again == emulator.id
    emulator.enable(again)
    assert domain.vcpus[0].read(PORT, 5, 1) == 0xFF


def test_a_page_outlives_its_server(host: Host) -> None:
    host.domain()
    emulator = host.emulator().open()
    emulator.page[50] = 3
    emulator.destroy(emulator.id)
    assert emulator.page[50] == 3


def test_pages_in_the_guest_come_from_the_pool_and_exclude_acquired_ones(host: Host) -> None:
    domain = host.domain(default_server=True)
    emulator = host.emulator()
    first, second = emulator.create(), emulator.create(OFF)
    _, gfn, ring_gfn = emulator.info(first, flags=0)
    assert (gfn, ring_gfn) == (0xFEFF0, 0xFEFF1)
    assert emulator.info(first, flags=0)[1:] == (0xFEFF0, 0xFEFF1)
    assert emulator.info(second, flags=0)[1:] == (0xFEFF2, 0)
    assert refusal(emulator.acquire, first) == EPERM
    third = emulator.create()
    emulator.acquire(third)
    assert refusal(emulator.info, third, 0) == EPERM
    domain.memory.write(0xFEFF0 << 12, b"dirt")
    emulator.enable(first)
    assert domain.memory.read(0xFEFF0 << 12, 4) == bytes(4)
    assert struct.unpack("<I", domain.memory.read((0xFEFF0 << 12) + 24, 4))[0] != 0


def test_the_pool_of_pages_in_the_guest_can_be_empty(host: Host) -> None:
    host.domain()
    emulator = host.emulator()
    with pytest.raises(RefusedError) as caught:
        emulator.info(emulator.create(), flags=0)
    assert caught.value.errno == 12


def test_unknown_flags_of_info_are_refused(host: Host) -> None:
    host.domain()
    emulator = host.emulator()
    assert refusal(emulator.info, emulator.create(), 2) == EINVAL


def test_an_emulators_death_leaves_its_server_for_a_successor(host: Host) -> None:
    domain = host.domain()
    first = host.emulator().open()
    first.map(PORT, 5, 5)
    asked = Running(lambda: domain.vcpus[0].read(PORT, 5, 1))
    first.wait()
    first.set_state(2)
    first.close()
    second = host.emulator()
    second.adopt(0)
    assert second.request().state == 2
    second.answer(0x42)
    assert asked.result() == 0x42
