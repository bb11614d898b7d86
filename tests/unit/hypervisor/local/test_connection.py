"""Packets that come unasked, wrong answers, and the end of the other side."""

from __future__ import annotations

from errno import EPIPE

import pytest

from dm.errors import HostError
from dm.hypervisor.local.connection import LocalConnection
from dm.hypervisor.local.hypervisor import LocalHypervisor
from dm.server.loop import Loop
from protocol.local import LOCAL_REPLY, LocalCall
from protocol.xenstore import XsMessageType

from .peer import Peer, Reply, xenstore

GONE = "the hypervisor at .* is gone"


def store_event(path: str = "@releaseDomain") -> bytes:
    return xenstore(XsMessageType.WATCH_EVENT, f"{path}\0{path}\0".encode())


class World:
    """A hypervisor that is attended to by a loop, and what was told."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.loop = Loop()
        self.ends: list[str] = []
        self.hypervisor = LocalHypervisor(str(peer.path))
        peer.before_answer = lambda: peer.say(store_event())
        self.hypervisor.attend(self.loop, lambda: self.ends.append("end"))
        peer.before_answer = lambda: None

    def close(self) -> None:
        self.hypervisor.close()
        self.loop.close()


def test_what_comes_unasked_during_a_request_is_kept(peer: Peer) -> None:
    connection = LocalConnection(str(peer.path))
    kept: list[bool] = []
    connection.kept = lambda: kept.append(True)
    peer.before_answer = lambda: peer.say(b"news")
    assert connection.call(LocalCall.RESTRICT, b"", "restrict") == b""
    body, fds = connection.call_for_descriptors(LocalCall.RESTRICT, b"", 0, "restrict")
    assert (body, fds, kept) == (b"", [], [True, True])
    assert connection.events() == [b"news", b"news"]
    assert connection.events() == []
    connection.close()


def test_other_packets_that_come_unasked_are_passed_over(peer: Peer) -> None:
    connection = LocalConnection(str(peer.path))
    peer.before_answer = lambda: peer.say(b"?", 77)
    assert connection.call(LocalCall.RESTRICT, b"", "restrict") == b""
    assert connection.events() == []
    connection.close()


@pytest.mark.parametrize(
    ("packet", "text"),
    [
        (b"abc", "a packet of 3 bytes"),
        (LOCAL_REPLY.build({"call": 10, "serial": 7, "status": 0}), "request 7, not 1"),
        (LOCAL_REPLY.build({"call": 9, "serial": 1, "status": 0}), "request 1"),
    ],
)
def test_an_answer_to_something_else_is_an_error(peer: Peer, packet: bytes, text: str) -> None:
    connection = LocalConnection(str(peer.path))

    def answer(body: bytes) -> Reply:
        assert peer.connection is not None
        peer.connection.send(packet)
        return 0, b"", []

    peer.handlers[LocalCall.RESTRICT] = answer
    with pytest.raises(HostError, match=text):
        connection.call(LocalCall.RESTRICT, b"", "restrict")
    connection.close()


def test_the_end_of_the_hypervisor_fails_every_call(peer: Peer) -> None:
    connection = LocalConnection(str(peer.path))

    def hang_up(body: bytes) -> Reply:
        peer.hang_up()
        return 0, b"", []

    peer.handlers[LocalCall.RESTRICT] = hang_up
    for _ in range(2):
        with pytest.raises(HostError, match=r"restrict: " + GONE) as caught:
            connection.call(LocalCall.RESTRICT, b"", "restrict")
        assert caught.value.errno == EPIPE
    with pytest.raises(HostError, match=GONE):
        connection.call_for_descriptors(LocalCall.RESTRICT, b"", 1, "restrict")
    assert connection.ended
    assert connection.events() == []
    connection.close()


def test_the_end_of_the_hypervisor_comes_out_of_the_loop(peer: Peer) -> None:
    world = World(peer)
    peer.hang_up()
    with pytest.raises(HostError, match=GONE):
        world.loop.run_once(10)
    assert world.hypervisor.gone
    assert world.ends == []
    world.close()


def test_another_domains_end_is_not_this_ones(peer: Peer) -> None:
    world = World(peer)
    peer.say(store_event())
    world.loop.run_once(10)
    assert peer.asked(LocalCall.DM_OP)
    assert not world.hypervisor.gone
    assert world.ends == []
    world.close()


@pytest.mark.parametrize("hangs_up", [False, True])
def test_the_domains_end_is_told_once(peer: Peer, hangs_up: bool) -> None:
    world = World(peer)
    peer.fail(LocalCall.DM_OP, 3)
    peer.say(store_event())
    peer.say(store_event())
    if hangs_up:
        peer.hang_up()
    world.loop.run_once(10)
    world.loop.run_once(0)
    assert world.ends == ["end"]
    assert world.hypervisor.gone
    world.close()


def test_an_end_that_is_told_during_a_request_is_not_forgotten(peer: Peer) -> None:
    world = World(peer)
    peer.before_answer = lambda: peer.say(store_event())
    world.hypervisor.vcpu_count()
    peer.before_answer = lambda: None
    peer.fail(LocalCall.DM_OP, 3)
    world.loop.run_once(world.loop.timeout())
    assert world.ends == ["end"]
    world.close()


def test_nothing_is_asked_of_a_hypervisor_that_is_gone(peer: Peer) -> None:
    world = World(peer)
    port = world.hypervisor.bind(7)
    peer.hang_up()
    with pytest.raises(HostError, match=GONE):
        world.loop.run_once(10)
    world.hypervisor.unbind(port)
    assert peer.asked(LocalCall.UNBIND) == []
    world.close()
