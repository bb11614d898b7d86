"""The fake is honest: it punishes what Xen punishes."""

from __future__ import annotations

import os
import struct

import pytest

from dm.errors import HostError

from .fake_xen import ANSWERED, INPROCESS, READ, READY, Domain, FakeXen


def opened() -> tuple[Domain, FakeXen, int]:
    domain = Domain()
    xen = FakeXen(domain)
    server = xen.create_server()
    xen.map_server(server)
    xen.enable_server(server, enabled=True)
    port = xen.bind(domain.servers[server].channels[0].number)
    return domain, xen, port


def test_enabling_before_mapping_is_punished() -> None:
    domain = Domain()
    xen = FakeXen(domain)
    xen.enable_server(xen.create_server(), enabled=True)
    assert "before its page was mapped" in domain.punishments[0]
    assert not domain.send(domain.servers[0])


def test_a_slot_that_is_not_free_or_has_lost_its_port_crashes_the_domain() -> None:
    domain, _, _ = opened()
    server = domain.servers[0]
    server.synchronous[30] = ANSWERED
    assert not domain.send(server)
    server.synchronous[30] = 0
    server.synchronous[24] ^= 1
    assert not domain.send(server)
    assert [text.split(",")[1].strip() for text in domain.punishments] == [
        "bad IO state 3",
        f"bad event channel {server.channels[0].number ^ 1}",
    ]


@pytest.mark.parametrize("state", [4, 9, 15])
def test_an_unknown_state_at_wake_up_crashes_the_domain(state: int) -> None:
    domain, xen, port = opened()
    server = domain.servers[0]
    domain.send(server, flags=READ)
    server.synchronous[30] = state
    xen.notify(port)
    assert domain.answer(server) is None
    assert domain.punishments


def test_a_vcpu_sleeps_until_it_is_notified_of_an_answer() -> None:
    domain, xen, port = opened()
    server = domain.servers[0]
    domain.send(server, flags=READ)
    for state in (READY, INPROCESS):
        server.synchronous[30] = state
        xen.notify(port)
        assert domain.answer(server) is None
    server.synchronous[8:16] = (77).to_bytes(8, "little")
    server.synchronous[30] = ANSWERED
    assert domain.answer(server) is None
    xen.notify(port)
    assert domain.answer(server) == 77
    assert server.state(0) == 0


def test_destroying_a_server_with_a_request_outstanding_leaves_a_vcpu_asleep() -> None:
    domain, xen, _ = opened()
    domain.send(domain.servers[0])
    xen.destroy_server(0)
    assert domain.punishments == ["vCPU 0 never wakes: server 0 destroyed"]


def test_a_bound_port_cannot_be_bound_again_until_its_owner_dies() -> None:
    domain, xen, _ = opened()
    remote = domain.servers[0].channels[0].number
    other = FakeXen(domain)
    with pytest.raises(HostError):
        other.bind(remote)
    with pytest.raises(HostError):
        other.bind(0)
    domain.kill(xen)
    assert other.bind(remote)


def test_a_port_is_announced_once_until_it_is_written_back() -> None:
    domain, xen, port = opened()
    assert xen.announced() == [port]
    channel = domain.servers[0].channels[0]
    domain.signal(channel)
    domain.signal(channel)
    assert xen.announced() == []
    os.write(xen.event_fd, struct.pack("I", port))
    assert xen.announced() == [port]
    os.write(xen.event_fd, struct.pack("II", port, 4711))
    assert xen.announced() == []
    domain.signal(channel)
    assert xen.announced() == [port]


def test_there_are_eight_servers_and_the_lowest_id_is_taken() -> None:
    xen = FakeXen(Domain())
    assert [xen.create_server() for _ in range(8)] == list(range(8))
    with pytest.raises(HostError):
        xen.create_server()
    xen.destroy_server(3)
    assert xen.create_server() == 3


def test_claims_of_one_server_may_not_overlap() -> None:
    domain, xen, _ = opened()
    xen.use_server(0)
    xen.claim(0, 0x10, 0x1F)
    heir = FakeXen(domain)
    heir.use_server(0)
    heir.claim(0, 0x10, 0x1F)
    with pytest.raises(HostError):
        xen.claim(0, 0x18, 0x20)
    with pytest.raises(HostError):
        xen.release(0, 0x1F, 0x20)
    assert domain.servers[0].ranges.claimed[0] == [(0x10, 0x1F)]
