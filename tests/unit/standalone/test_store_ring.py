"""xenstore by a guest's ring: what it may do there, and that a broken ring hurts nobody else."""

from __future__ import annotations

import struct

import pytest

from protocol import layouts
from tools.hypervisor.domain import Domain
from tools.hypervisor.hypercalls import Hypercalls
from tools.hypervisor.store import Store
from tools.hypervisor.store_ring import StoreRing

GFN = 5
RING = layouts.XENSTORE_RING_SIZE
HEADER = struct.Struct(layouts.XS_MESSAGE_FORMAT)
INDEXES = layouts.XENSTORE_PAGE_REQ_CONS_OFFSET
READ, WRITE = layouts.XS_MESSAGE_TYPE_READ, layouts.XS_MESSAGE_TYPE_WRITE
WATCH, RM = layouts.XS_MESSAGE_TYPE_WATCH, layouts.XS_MESSAGE_TYPE_RM
HOME = "/local/domain/3"


class Guest:
    """A guest's end of the ring, in the test's thread."""

    def __init__(self) -> None:
        self.domain = Domain(3, vcpus=1, ram=[(0, 16 << 12)])
        self.calls = self.domain.hypercalls = Hypercalls(self.domain)
        self.store = Store()
        self.ring = StoreRing(self.domain, self.calls.events, self.store, GFN)
        self.page = self.domain.memory.view(GFN << 12, 4096)

    def indexes(self) -> list[int]:
        return list(struct.unpack_from("<IIII", self.page, INDEXES))

    def set_index(self, number: int, value: int) -> None:
        struct.pack_into("<I", self.page, INDEXES + 4 * number, value & 0xFFFFFFFF)

    def put(self, data: bytes) -> int:
        """Write as much of ``data`` as there is room for; how much."""
        consumed, produced, _, _ = self.indexes()
        room = min(RING - (produced - consumed & 0xFFFFFFFF), len(data))
        for offset in range(room):
            self.page[(produced + offset) % RING] = data[offset]
        self.set_index(1, produced + room)
        return room

    def get(self) -> bytes:
        """Take what has come."""
        _, _, consumed, produced = self.indexes()
        length = produced - consumed & 0xFFFFFFFF
        data = bytes(self.page[RING + (consumed + at) % RING] for at in range(length))
        self.set_index(2, produced)
        return data

    def exchange(self, message: bytes) -> list[tuple[int, bytes]]:
        """Send a message and give those that come."""
        got = b""
        while message:
            message = message[self.put(message) :]
            self.ring.serve()
            got += self.get()
        part = got
        while part:
            self.ring.serve()
            part = self.get()
            got += part
        messages = []
        while got:
            kind, _, _, length = HEADER.unpack_from(got)
            messages.append((kind, got[HEADER.size : HEADER.size + length]))
            got = got[HEADER.size + length :]
        return messages

    def ask(self, kind: int, *words: str, tail: bytes = b"") -> tuple[int, bytes]:
        payload = b"".join(word.encode() + b"\0" for word in words) + tail
        (answer,) = self.exchange(HEADER.pack(kind, 1, 0, len(payload)) + payload)
        return answer


@pytest.fixture
def guest() -> Guest:
    return Guest()


def error(name: str) -> tuple[int, bytes]:
    return layouts.XS_MESSAGE_TYPE_ERROR, name.encode() + b"\0"


def test_relative_paths_begin_at_the_guests_own_home(guest: Guest) -> None:
    guest.store.write(f"{HOME}/hvmloader/bios", "seabios")
    assert guest.ask(READ, "hvmloader/bios") == (READ, b"seabios")
    assert guest.ask(WRITE, "data/x", tail=b"1")[0] == WRITE
    assert guest.store.read(f"{HOME}/data/x") == "1"


def test_an_answer_is_an_event(guest: Guest) -> None:
    guest.ask(READ, "nothing")
    assert guest.calls.shared.is_pending(guest.ring.port)


def test_the_rings_are_round_at_any_index(guest: Guest) -> None:
    guest.store.write(f"{HOME}/long", "v" * 300)
    for start in (RING - 1, RING - HEADER.size, 0xFFFFFFFF - 5):
        for number in range(4):
            guest.set_index(number, start)
        assert guest.ask(READ, "long") == (READ, b"v" * 300)


def test_messages_larger_than_the_ring_come_in_parts(guest: Guest) -> None:
    value = bytes(range(1, 256)) * 8
    assert guest.ask(WRITE, "big", tail=value)[0] == WRITE
    assert guest.ask(READ, "big")[1] == value.decode("latin-1").encode("latin-1")


def test_a_watch_fires_whoever_writes(guest: Guest) -> None:
    answers = guest.exchange(HEADER.pack(WATCH, 1, 0, 6) + b"a\0tok\0")
    assert sorted(kind for kind, _ in answers) == sorted(
        [WATCH, layouts.XS_MESSAGE_TYPE_WATCH_EVENT]
    )
    guest.store.write(f"{HOME}/a/b", "1")
    data = guest.get()
    assert data[HEADER.size :] == b"a/b\0tok\0"


@pytest.mark.parametrize(
    ("kind", "path", "allowed"),
    [
        (READ, "/local/domain/0/name", False),
        (READ, "/local/domain/33/name", False),
        (READ, "/local/domain/0/backend/vbd/3/0/state", True),
        (READ, "/local/domain/0/backend/vbd/33/0/state", False),
        (READ, "/vm/own/name", True),
        (READ, "/vm/other/name", False),
        (RM, "/local/domain/0/name", False),
        (RM, "/vm/own/name", False),
        (RM, "/local/domain/3/vm", False),
        (RM, "/local/domain/3/name", False),
        (RM, "/local/domain/3", False),
        (RM, "/local/domain/3/device/vbd", True),
    ],
)
def test_a_guest_sees_and_changes_what_is_its_own(
    guest: Guest, kind: int, path: str, allowed: bool
) -> None:
    guest.store.write(f"{HOME}/vm", "/vm/own")
    guest.store.write(path, "/vm/own" if path.endswith("/vm") else "v")
    answer = guest.ask(kind, path)
    assert (answer == error("EACCES")) != allowed
    assert answer[0] == (kind if allowed else layouts.XS_MESSAGE_TYPE_ERROR)


def test_a_guest_may_begin_anew_by_setting_the_indexes_to_0(guest: Guest) -> None:
    guest.ask(READ, "x")
    guest.page[: 2 * RING] = b"\xff" * (2 * RING)
    for number in range(4):
        guest.set_index(number, 0)
    assert guest.ask(READ, "x") == error("ENOENT")


@pytest.mark.parametrize(
    ("number", "value", "said"),
    [(1, RING + 1, "requests"), (1, 0xFFFFFFFF, "requests"), (2, 1, "answers")],
)
def test_indexes_that_cannot_be_end_the_service(
    guest: Guest, number: int, value: int, said: str
) -> None:
    guest.set_index(number, value)
    guest.ring.serve()
    assert said in (guest.ring.broken or "")
    guest.store.write(f"{HOME}/still", "works")


def test_a_message_that_is_too_long_ends_the_service(guest: Guest) -> None:
    guest.put(HEADER.pack(READ, 1, 0, layouts.XENSTORE_PAYLOAD_MAX + 1))
    guest.ring.serve()
    assert "message of 4097 bytes" in (guest.ring.broken or "")


def test_a_guest_that_does_not_read_is_given_up_and_its_watches_end(guest: Guest) -> None:
    guest.exchange(HEADER.pack(WATCH, 1, 0, 6) + b"a\0tok\0")
    for _ in range(20_000):
        guest.store.write(f"{HOME}/a", "1")
    assert guest.ring.broken == "the guest does not read its answers"
    guest.set_index(2, guest.indexes()[3])
    guest.ring.serve()
    assert guest.get() == b""


def test_a_ring_whose_page_is_gone_ends_the_service(guest: Guest) -> None:
    guest.put(HEADER.pack(READ, 1, 0, 2) + b"a\0")
    guest.domain.memory.unmap_page(GFN)
    guest.ring.serve()
    assert guest.ring.broken == "the ring's page is not RAM"
