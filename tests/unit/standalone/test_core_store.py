"""The small xenstore: paths, values, watches, and its wire messages."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import layouts
from tools.hypervisor.store import Store, StoreError
from tools.hypervisor.store_client import StoreClient

from .core_emulator import Host, RefusedError

READ = layouts.XS_MESSAGE_TYPE_READ
WRITE = layouts.XS_MESSAGE_TYPE_WRITE
ERROR = layouts.XS_MESSAGE_TYPE_ERROR


class Client:
    """Somebody on the wire, with what was sent to them unasked."""

    def __init__(self, store: Store | None = None) -> None:
        self.store = Store() if store is None else store
        self.events: list[list[bytes]] = []
        self._client = StoreClient(self.store, self._take, lambda domid: domid == 3)

    def _take(self, message: bytes) -> None:
        kind, serial, transaction, length = struct.unpack_from("<IIII", message)
        assert (kind, serial, transaction) == (layouts.XS_MESSAGE_TYPE_WATCH_EVENT, 0, 0)
        assert length == len(message) - 16
        self.events.append(message[16:].split(b"\0")[:-1])

    def ask(self, kind: int, payload: bytes, transaction: int = 0) -> bytes:
        """The payload of the answer; an error raises StoreError."""
        message = struct.pack("<IIII", kind, 9, transaction, len(payload)) + payload
        answer = self._client.handle(message)
        answered, serial, number, length = struct.unpack_from("<IIII", answer)
        assert (serial, number, length) == (9, transaction, len(answer) - 16)
        if answered == ERROR:
            raise StoreError(answer[16:-1].decode())
        assert answered == kind
        return answer[16:]

    def error(self, kind: int, payload: bytes, transaction: int = 0) -> str:
        with pytest.raises(StoreError) as caught:
            self.ask(kind, payload, transaction)
        assert caught.value.name in layouts_errors()
        return caught.value.name


def layouts_errors() -> tuple[str, ...]:
    from protocol.xenstore import XENSTORE_ERRORS

    return XENSTORE_ERRORS


def test_writing_makes_the_nodes_on_the_way() -> None:
    client = Client()
    assert client.ask(WRITE, b"/a/b/c\0value") == b"OK\0"
    assert client.ask(READ, b"/a/b/c\0") == b"value"
    assert client.ask(READ, b"/a/b\0") == b""
    assert client.ask(layouts.XS_MESSAGE_TYPE_DIRECTORY, b"/a\0") == b"b\0"
    assert client.store.read("/a/b/c") == "value"
    assert client.store.read("/a/x") is None


def test_relative_paths_begin_at_dom0s_home() -> None:
    client = Client()
    client.ask(WRITE, b"device-model/3/state\0running")
    assert client.store.read("/local/domain/0/device-model/3/state") == "running"


def test_what_does_not_exist_is_enoent() -> None:
    client = Client()
    for kind in (READ, layouts.XS_MESSAGE_TYPE_DIRECTORY, layouts.XS_MESSAGE_TYPE_GET_PERMS):
        assert client.error(kind, b"/none\0") == "ENOENT"
    assert client.error(layouts.XS_MESSAGE_TYPE_RM, b"/none/below\0") == "ENOENT"
    assert client.ask(layouts.XS_MESSAGE_TYPE_RM, b"/none\0") == b"OK\0"


@pytest.mark.parametrize(
    "path",
    [b"/a//b", b"/a/", b"", b"//", b"/a b", b"/\xff", b"/a\n", b"/" + b"x" * 3072, b"y" * 2049],
)
def test_paths_that_are_none_are_refused(path: bytes) -> None:
    client = Client()
    assert client.error(READ, path + b"\0") == "EINVAL"
    assert client.error(WRITE, path + b"\0v") == "EINVAL"
    assert client.error(layouts.XS_MESSAGE_TYPE_WATCH, path + b"\0t\0") == "EINVAL"


@pytest.mark.parametrize("payload", [b"", b"/a", b"/a\0b", b"/a\0b\0"])
def test_payloads_without_the_right_strings_are_refused(payload: bytes) -> None:
    assert Client().error(READ, payload) == "EINVAL"


def test_a_payload_has_4096_bytes_at_most() -> None:
    client = Client()
    room = 4096 - len(b"/a\0")
    client.ask(WRITE, b"/a\0" + b"v" * room)
    assert client.error(WRITE, b"/a\0" + b"v" * (room + 1)) == "E2BIG"
    client.store.write("/b", "v" * 4096)
    with pytest.raises(StoreError):
        client.store.write("/b", "v" * 4097)


def test_there_is_an_end_to_the_nodes() -> None:
    store = Store()
    for index in range(49_999):
        store._make(f"/n{index}")
    with pytest.raises(StoreError, match="ENOSPC"):
        store.write("/one/more", "")


def test_removing_takes_what_is_below() -> None:
    client = Client()
    client.ask(WRITE, b"/a/b/c\0v")
    client.ask(WRITE, b"/ab\0v")
    client.ask(layouts.XS_MESSAGE_TYPE_RM, b"/a\0")
    assert client.error(READ, b"/a/b/c\0") == "ENOENT"
    assert client.ask(layouts.XS_MESSAGE_TYPE_DIRECTORY, b"/\0") == b"ab\0"
    assert client.error(layouts.XS_MESSAGE_TYPE_RM, b"/\0") == "EINVAL"


def test_a_watch_fires_at_once_and_for_everything_below() -> None:
    client = Client()
    client.ask(layouts.XS_MESSAGE_TYPE_WATCH, b"/a\0token\0")
    assert client.events == [[b"/a", b"token"]]
    client.ask(WRITE, b"/a/b\0v")
    client.ask(WRITE, b"/ab\0v")
    client.ask(layouts.XS_MESSAGE_TYPE_RM, b"/a\0")
    assert client.events[1:] == [[b"/a/b", b"token"], [b"/a", b"token"]]


def test_removing_a_node_tells_those_who_watch_nodes_below_it() -> None:
    client = Client()
    client.ask(WRITE, b"/a/b/c\0v")
    client.ask(layouts.XS_MESSAGE_TYPE_WATCH, b"/a/b/c\0t\0")
    client.ask(layouts.XS_MESSAGE_TYPE_WATCH, b"/a/b/x\0t\0")
    client.ask(layouts.XS_MESSAGE_TYPE_RM, b"/a\0")
    assert client.events[2:] == [[b"/a/b/c", b"t"]]


def test_relative_watches_are_told_relative_paths() -> None:
    client = Client()
    client.ask(layouts.XS_MESSAGE_TYPE_WATCH, b"x\0t\0")
    client.ask(WRITE, b"/local/domain/0/x/y\0v")
    assert client.events == [[b"x", b"t"], [b"x/y", b"t"]]


def test_a_watch_of_the_root_sees_paths_but_no_special_names() -> None:
    client = Client()
    client.ask(layouts.XS_MESSAGE_TYPE_WATCH, b"/\0t\0")
    client.store.fire("@releaseDomain")
    client.ask(WRITE, b"/a\0v")
    assert client.events == [[b"/", b"t"], [b"/a", b"t"]]


def test_watches_end_and_cannot_be_doubled() -> None:
    client = Client()
    watch, unwatch = layouts.XS_MESSAGE_TYPE_WATCH, layouts.XS_MESSAGE_TYPE_UNWATCH
    client.ask(watch, b"/a\0t\0")
    assert client.error(watch, b"/a\0t\0") == "EEXIST"
    client.ask(watch, b"/a\0u\0")
    client.ask(unwatch, b"/a\0t\0")
    assert client.error(unwatch, b"/a\0t\0") == "ENOENT"
    client.ask(WRITE, b"/a\0v")
    assert client.events[2:] == [[b"/a", b"u"]]
    client.ask(layouts.XS_MESSAGE_TYPE_RESET_WATCHES, b"\0")
    client.ask(WRITE, b"/a\0v")
    assert len(client.events) == 3


def test_watches_are_each_clients_own() -> None:
    first = Client()
    second = Client(first.store)
    first.ask(layouts.XS_MESSAGE_TYPE_WATCH, b"/a\0t\0")
    second.ask(layouts.XS_MESSAGE_TYPE_WATCH, b"/a\0t\0")
    assert second.error(layouts.XS_MESSAGE_TYPE_UNWATCH, b"/a\0x\0") == "ENOENT"
    first._client.close()
    first.store.write("/a", "v")
    assert (len(first.events), len(second.events)) == (1, 2)


def test_there_is_an_end_to_a_clients_watches() -> None:
    client = Client()
    for index in range(1024):
        client.ask(layouts.XS_MESSAGE_TYPE_WATCH, b"/a\0%d\0" % index)
    assert client.error(layouts.XS_MESSAGE_TYPE_WATCH, b"/b\0t\0") == "E2BIG"
    assert client.error(layouts.XS_MESSAGE_TYPE_WATCH, b"/b\0" + b"t" * 257 + b"\0") == "E2BIG"


def test_transactions_are_numbers_that_must_be_known() -> None:
    client = Client()
    number = int(client.ask(layouts.XS_MESSAGE_TYPE_TRANSACTION_START, b"\0")[:-1])
    client.ask(WRITE, b"/a\0v", number)
    assert client.error(READ, b"/a\0", number + 1) == "ENOENT"
    end = layouts.XS_MESSAGE_TYPE_TRANSACTION_END
    assert client.error(end, b"x\0", number) == "EINVAL"
    assert client.ask(end, b"T\0", number) == b"OK\0"
    assert client.error(end, b"T\0", number) == "ENOENT"
    assert client.error(end, b"T\0") == "EINVAL"
    assert client.ask(READ, b"/a\0") == b"v"


def test_domains_have_paths_and_are_introduced_or_not() -> None:
    client = Client()
    assert client.ask(layouts.XS_MESSAGE_TYPE_GET_DOMAIN_PATH, b"7\0") == b"/local/domain/7\0"
    introduced = layouts.XS_MESSAGE_TYPE_IS_DOMAIN_INTRODUCED
    assert client.ask(introduced, b"3\0") == b"T\0"
    assert client.ask(introduced, b"4\0") == b"F\0"
    assert client.error(introduced, b"x\0") == "EINVAL"


def test_permissions_are_accepted_and_not_kept() -> None:
    client = Client()
    client.ask(WRITE, b"/a\0v")
    assert client.ask(layouts.XS_MESSAGE_TYPE_SET_PERMS, b"/a\0b7\0") == b"OK\0"
    assert client.ask(layouts.XS_MESSAGE_TYPE_GET_PERMS, b"/a\0") == b"n0\0"
    assert client.error(layouts.XS_MESSAGE_TYPE_SET_PERMS, b"/b\0b7\0") == "ENOENT"


def test_a_long_directory_is_read_in_parts() -> None:
    client = Client()
    names = [f"a-rather-long-name-of-a-node-{index}" for index in range(300)]
    for name in names:
        client.store.write(f"/d/{name}", "")
    assert client.error(layouts.XS_MESSAGE_TYPE_DIRECTORY, b"/d\0") == "E2BIG"
    listed = b""
    while not listed.endswith(b"\0\0"):
        part = client.ask(layouts.XS_MESSAGE_TYPE_DIRECTORY_PART, b"/d\0%d\0" % len(listed))
        generation, _, piece = part.partition(b"\0")
        assert generation == b"1"
        assert piece
        listed += piece
    assert listed[:-2].decode().split("\0") == names


def test_unknown_messages_are_answered() -> None:
    assert Client().error(layouts.XS_MESSAGE_TYPE_CONTROL, b"help\0") == "ENOSYS"
    assert Client().error(99, b"") == "ENOSYS"


@given(st.integers(0, 25), st.integers(0, 2), st.binary(max_size=60))
def test_any_message_gets_one_answer(kind: int, transaction: int, payload: bytes) -> None:
    client = Client()
    client.ask(layouts.XS_MESSAGE_TYPE_TRANSACTION_START, b"\0")
    try:
        client.ask(kind, payload, transaction)
    except StoreError as error:
        name = error.name
    else:
        name = "EINVAL"
    assert name in layouts_errors()


@pytest.mark.parametrize("message", [b"", b"x" * 15, struct.pack("<IIII", 2, 0, 0, 5) + b"/a\0"])
def test_bytes_that_are_no_message_are_an_error_of_the_caller(message: bytes) -> None:
    client = Client()
    with pytest.raises(ValueError):
        client._client.handle(message)


def test_waiting_for_a_value_ends_when_it_is_written() -> None:
    store = Store()
    store.write("/state", "running")
    assert store.wait("/state", 5, "running") == "running"
    assert store.wait("/state", 0, "stopped") == "running"
    assert store.wait("/other", 0) is None


def test_over_the_socket_a_watch_of_released_domains_tells_of_the_end(host: Host) -> None:
    domain = host.domain()
    emulator = host.emulator()
    path = f"/local/domain/{domain.domid}/domid\0".encode()
    assert emulator.store(READ, path) == (READ, b"1")
    emulator.store(layouts.XS_MESSAGE_TYPE_WATCH, b"@releaseDomain\0gone\0")
    domain.shutdown(layouts.SHUTDOWN_REASON_POWEROFF)
    host.hypervisor.destroy_domain(domain.domid)
    assert emulator.store(READ, path) == (ERROR, b"ENOENT\0")
    assert [event[16:] for event in emulator.events] == [b"@releaseDomain\0gone\0"] * 3
    with pytest.raises(RefusedError):
        emulator.create()


def test_over_the_socket_state_running_reaches_whoever_waits(host: Host) -> None:
    host.domain()
    emulator = host.emulator()
    emulator.store(WRITE, b"device-model/1/state\0running")
    path = "/local/domain/0/device-model/1/state"
    assert host.hypervisor.store.wait(path, 5, "running") == "running"
