"""The QMP server's manners: greeting, negotiation, framing, clients, descriptors, limits."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from dm.control.argv_chardev import from_chardev, from_short
from dm.control.qmp_listener import Qmp
from dm.errors import ConfigError, GuestError, HostError
from tests.unit.control.fakes import Bench, Client, FakeMachine
from tests.unit.loop import MiniLoop


def test_the_greeting_announces_7_2_0(bench: Bench) -> None:
    assert bench.fresh().message() == {
        "QMP": {
            "version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""},
            "capabilities": ["oob"],
        }
    }


def test_nothing_but_negotiation_comes_first(bench: Bench) -> None:
    client = bench.fresh()
    client.message()
    for name in ("query-status", "nonsense"):
        assert client.refusal(name) == (
            "CommandNotFound",
            "Expecting capabilities negotiation with 'qmp_capabilities'",
        )
    assert client.value("qmp_capabilities") == {}
    assert client.value("query-status")["status"] == "prelaunch"


@pytest.mark.parametrize(
    "identity", [0, -5, 2**63, "x\n\0é", None, True, 1.5, [1, [2]], {"a": {"b": []}}]
)
def test_any_id_comes_back(client: Client, identity: object) -> None:
    client.send({"execute": "query-name", "id": identity})
    assert client.answer() == {"return": {}, "id": identity}
    client.send({"execute": "nonsense", "id": identity})
    assert client.answer()["id"] == identity


def test_an_answer_has_no_id_when_the_command_has_none(client: Client) -> None:
    client.send('{ "execute": "query-name" }')
    assert client.answer() == {"return": {}}


def test_several_clients_are_served_at_once_and_in_their_order(bench: Bench) -> None:
    clients = [bench.client() for _ in range(20)]
    for number, client in enumerate(clients):
        client.send({"execute": "query-name", "id": number})
        client.send({"execute": "query-name", "id": -number})
    for number, client in reversed(list(enumerate(clients))):
        assert [client.answer()["id"], client.answer()["id"]] == [number, -number]


def test_events_reach_only_clients_that_have_negotiated(bench: Bench) -> None:
    early, client = bench.fresh(), bench.client()
    early.message()
    bench.qmp.emit("SHUTDOWN", {"guest": True})
    event = client.message()
    assert event["event"] == "SHUTDOWN"
    assert event["data"] == {"guest": True}
    assert set(event["timestamp"]) == {"seconds", "microseconds"}
    early.send({"execute": "query-name"})
    assert "error" in early.message()


def test_an_event_with_no_client_is_no_work(loop: MiniLoop) -> None:
    Qmp(loop, FakeMachine()).emit("STOP")


def test_a_run_state_event_comes_before_the_answer(client: Client) -> None:
    client.send({"execute": "cont", "id": 3})
    assert client.message()["event"] == "RESUME"
    assert client.message() == {"return": {}, "id": 3}


@pytest.mark.parametrize("error", [ConfigError("a b"), GuestError("c d"), HostError("e: f", 5)])
def test_what_the_machine_raises_is_a_generic_error(
    bench: Bench, client: Client, error: Exception
) -> None:
    bench.machine.failure = error
    assert client.refusal("stop") == ("GenericError", str(error))


def test_a_fault_in_a_command_is_answered_and_the_server_lives(
    bench: Bench, client: Client
) -> None:
    bench.machine.failure = RuntimeError("bug")
    assert client.refusal("stop") == ("GenericError", "internal error: RuntimeError: bug")
    bench.machine.failure = None
    assert client.value("stop") == {}


def test_a_client_that_never_reads_is_dropped_and_others_are_served(bench: Bench) -> None:
    silent, client = bench.client(), bench.client()
    data = {"filler": "x" * 4000}
    for _ in range(3000):
        bench.qmp.emit("STOP", data)
        bench.loop.step()
        client._more()
        del client.data[: client.data.rfind(b"\n") + 1]
        if bench.entrance._clients == 1:
            break
    assert bench.entrance._clients == 1
    assert client.value("query-name") == {}
    assert silent.sock.fileno() >= 0


def test_a_client_that_does_not_read_answers_is_not_listened_to(bench: Bench) -> None:
    client = bench.client()
    sent = 0
    command = json.dumps({"execute": "query-commands"}).encode()
    for _ in range(200_000):
        try:
            sent += client.sock.send(command)
        except BlockingIOError:
            if not bench.loop.step():
                break
    assert sent < 64 << 20, "the flood is held up by the socket, not kept here"
    assert bench.entrance._clients == 1
    assert "return" in client.answer()


def test_clients_that_break_in_the_middle_leave_nothing(bench: Bench) -> None:
    for text in (b"", b'{"execute":', b'{"execute": "query-name"}', b"\xff" * 10):
        client = bench.client()
        client.send(text)
        client.close()
        bench.loop.run_until(lambda: bench.entrance._clients == 0)
    assert bench.client().value("query-name") == {}


def test_a_shut_down_write_side_ends_the_connection_after_the_answers(bench: Bench) -> None:
    client = bench.client()
    client.send({"execute": "query-name", "id": 4})
    client.sock.shutdown(socket.SHUT_WR)
    assert client.answer()["id"] == 4
    bench.loop.run_until(lambda: bench.entrance._clients == 0)


def test_the_server_is_loaded_by_the_first_client_only(loop: MiniLoop, tmp_path: Path) -> None:
    bench = Bench(loop, tmp_path / "q")
    loaded = [bench.qmp._server]
    bench.client()
    loaded.append(bench.qmp._server)
    assert [one is None for one in loaded] == [True, False]
    bench.close()


def test_the_entrance_is_listed_as_qemu_does(bench: Bench) -> None:
    entrance = bench.entrance
    assert (entrance.label, entrance.frontend_open) == ("libxl-cmd", True)
    assert entrance.filename == f"disconnected:unix:{bench.path},server=on"
    client = bench.client()
    assert entrance.filename == f"unix:{bench.path},server=on"
    client.close()
    bench.loop.run_until(lambda: entrance.filename.startswith("disconnected:"))


def test_a_stale_socket_is_replaced_and_a_successors_is_left(
    loop: MiniLoop, tmp_path: Path
) -> None:
    path = tmp_path / "qmp"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    old = Bench(loop, path)
    new = Bench(loop, path)
    old.close()
    assert path.exists()
    assert new.client().value("query-name") == {}
    new.close()
    assert not path.exists()


def test_an_inherited_socket_is_served_and_its_path_stays(loop: MiniLoop, tmp_path: Path) -> None:
    path = tmp_path / "qmp"
    parent = socket.socket(socket.AF_UNIX)
    parent.bind(str(path))
    parent.listen(1)
    early = Client(loop, path)
    qmp = Qmp(loop, FakeMachine())
    qmp.open(from_chardev(f"socket,id=libxl-cmd,fd={parent.detach()},server=on,wait=off", []))
    assert early.negotiate().value("query-name") == {}
    early.close()
    qmp.close()
    assert path.exists()


def test_a_monitor_that_connects_itself_is_served(loop: MiniLoop, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "theirs"))
        listener.listen()
        qmp = Qmp(loop, FakeMachine())
        qmp.open(from_chardev(f"socket,path={tmp_path}/theirs,id=char0", []))
        peer, _ = listener.accept()
    with peer:
        peer.settimeout(10)
        assert b"QMP" in peer.recv(4096)
        peer.send(b'{"execute": "qmp_capabilities"}\n')
        loop.run_until(lambda: loop.step() > 0)
        assert peer.recv(4096) == b'{"return": {}}\r\n'
    qmp.close()


def test_qmp_elsewhere_than_on_a_socket_is_refused(loop: MiniLoop) -> None:
    spec = from_short("-qmp", "compat_monitor0", "pty", [])
    assert spec is not None
    with pytest.raises(ConfigError, match="-qmp pty: QMP needs a socket"):
        Qmp(loop, FakeMachine()).open(spec)


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_descriptor_comes_with_the_first_byte_of_its_command(
    client: Client, tmp_path: Path
) -> None:
    with open(tmp_path / "f", "wb") as file:
        first = client.value("add-fd", (file.fileno(),), opaque="raw:x")
    assert first["fdset-id"] == 0
    assert client.value("query-fdsets") == [
        {"fdset-id": 0, "fds": [{"fd": first["fd"], "opaque": "raw:x"}]}
    ]
    assert client.value("remove-fd", fdset_id=0) == {}
    assert client.value("query-fdsets") == []


def test_descriptors_belong_to_the_client_that_passed_them_in_order(
    bench: Bench, tmp_path: Path
) -> None:
    one, other = bench.client(), bench.client()
    with open(tmp_path / "a", "wb") as file_a, open(tmp_path / "b", "wb") as file_b:
        one.send(b" ", (file_a.fileno(), file_b.fileno()))
        bench.loop.settle()
    assert "No file descriptor supplied" in other.refusal("add-fd")[1]
    fds = [one.value("add-fd")["fd"] for _ in range(2)]
    names = [os.readlink(f"/proc/self/fd/{fd}") for fd in fds]
    assert names == [str(tmp_path / "a"), str(tmp_path / "b")]
    assert "No file descriptor supplied" in one.refusal("add-fd")[1]


def test_descriptors_that_no_command_took_are_closed_with_the_connection(
    bench: Bench, tmp_path: Path
) -> None:
    bench.client().close()
    bench.loop.run_until(lambda: bench.entrance._clients == 0)
    before = open_fds()
    client = bench.client()
    with open(tmp_path / "f", "wb") as file:
        for _ in range(10):
            client.send(b" ", (file.fileno(),) * 10)
            bench.loop.settle()
        client.value("add-fd")
    assert open_fds() <= before + 2 + 16 + 1
    client.close()
    bench.loop.run_until(lambda: bench.entrance._clients == 0)
    assert open_fds() == before


def test_a_client_cannot_exhaust_descriptors(bench: Bench, tmp_path: Path) -> None:
    client = bench.client()
    with open(tmp_path / "f", "wb") as file:
        kept = 0
        while "return" in client.ask("add-fd", (file.fileno(),)):
            kept += 1
            assert kept <= 256
    assert kept == 256
