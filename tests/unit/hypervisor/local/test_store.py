"""xenstore messages in packets."""

from __future__ import annotations

from errno import EACCES, EIO, EPROTO

import pytest

from dm.errors import HostError
from dm.hypervisor.local.hypervisor import LocalHypervisor
from dm.hypervisor.local.store import LocalStore
from protocol.local import LocalCall
from protocol.xenstore import XS_MESSAGE, XsMessageType

from .peer import Peer, Reply, xenstore

NODES = {"/local/domain/3": "", "vm": "ünï"}


def answer(kind: int, payload: bytes) -> Reply:
    return 0, xenstore(kind, payload), []


def read(body: bytes) -> Reply:
    """A store that can only be read."""
    kind = XS_MESSAGE.parse(body).type
    path = body[XS_MESSAGE.sizeof() :].split(b"\0")[0].decode()
    if kind != XsMessageType.READ:
        return answer(XsMessageType.ERROR, b"EACCES\0")
    if path not in NODES:
        return answer(XsMessageType.ERROR, b"ENOENT\0")
    return answer(kind, NODES[path].encode())


@pytest.fixture
def store(peer: Peer, hypervisor: LocalHypervisor) -> LocalStore:
    peer.handlers[LocalCall.STORE] = read
    return hypervisor.store()


def message(peer: Peer) -> tuple[int, bytes]:
    """The last message: its type and payload, whose length is as the header says."""
    body = peer.asked(LocalCall.STORE)[-1]
    head = XS_MESSAGE.parse(body)
    assert head.len == len(body) - XS_MESSAGE.sizeof()
    return head.type, body[XS_MESSAGE.sizeof() :]


def test_values_are_read(store: LocalStore) -> None:
    assert store.read("vm") == "ünï"
    assert store.read("/local/domain/3") == ""
    assert store.read("nothing") is None


def test_messages_are_xenstores(peer: Peer, store: LocalStore) -> None:
    peer.handlers[LocalCall.STORE] = lambda body: answer(XS_MESSAGE.parse(body).type, b"OK\0")
    store.write("device-model/3/state", "running")
    assert message(peer) == (XsMessageType.WRITE, b"device-model/3/state\0running")
    store.remove("a")
    assert message(peer) == (XsMessageType.RM, b"a\0")
    store.watch("@releaseDomain", "token")
    assert message(peer) == (XsMessageType.WATCH, b"@releaseDomain\0token\0")


def test_a_refusal_names_path_and_error(store: LocalStore) -> None:
    with pytest.raises(HostError, match=r"xs_write\(x\): EACCES") as caught:
        store.write("x", "1")
    assert caught.value.errno == EACCES


def test_removing_what_is_not_there_is_nothing(peer: Peer, store: LocalStore) -> None:
    peer.handlers[LocalCall.STORE] = lambda body: answer(XsMessageType.ERROR, b"ENOENT\0")
    store.remove("x")
    peer.handlers[LocalCall.STORE] = lambda body: answer(XsMessageType.ERROR, b"EWHAT\0")
    with pytest.raises(HostError) as caught:
        store.remove("x")
    assert caught.value.errno == EIO


def test_a_message_that_is_too_long_is_not_sent(peer: Peer, store: LocalStore) -> None:
    with pytest.raises(HostError, match="too many"):
        store.write("x", "v" * 4095)
    assert peer.asked(LocalCall.STORE) == []


def test_an_answer_without_a_header_is_refused(peer: Peer, store: LocalStore) -> None:
    peer.handlers[LocalCall.STORE] = lambda body: (0, b"short", [])
    with pytest.raises(HostError) as caught:
        store.read("vm")
    assert caught.value.errno == EPROTO
