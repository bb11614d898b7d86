"""What a real QEMU 7.2 answers is what this server answers: errors, malformed input, chardevs."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dm.control.argv_chardev import from_chardev
from dm.control.monitor import Monitor
from dm.control.qmp_listener import Qmp
from dm.host.chardev import ChardevSet
from tests.unit.control.oracle import NO_QEMU, QEMU
from tests.unit.loop import MiniLoop

# A message whose answer marks the end of the answers to what came before it.
MARK = b'\n{"execute": "query-uuid", "id": "end of answers"}\n'


def converse(sock: socket.socket, pump: Callable[[], None]) -> Callable[[bytes], list[Any]]:
    """A function that sends bytes and returns the answers to them, without events."""
    received = bytearray()

    def ask(data: bytes) -> list[Any]:
        sock.sendall(data + MARK)
        answers: list[Any] = []
        while True:
            while b"\n" not in received:
                pump()
                received.extend(sock.recv(1 << 20))
            line, _, rest = bytes(received).partition(b"\n")
            received[:] = rest
            assert line.endswith(b"\r")
            answer = json.loads(line)
            if answer.get("id") == "end of answers":
                return answers
            if "event" not in answer and "QMP" not in answer:
                answers.append(answer)

    return ask


@pytest.fixture(scope="module")
def qemu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[bytes], list[Any]]]:
    if QEMU is None:
        pytest.skip(NO_QEMU)
    version = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=True).stdout
    if "version 7.2" not in version:
        pytest.skip(f"the QEMU installed here is not 7.2: {version.splitlines()[0]}")
    ours, theirs = socket.socketpair()
    ours.settimeout(30)
    command = [QEMU, "-nodefaults", "-display", "none", "-machine", "none", "-S"]
    command += ["-chardev", f"socket,id=c,fd={theirs.fileno()}", "-mon", "chardev=c,mode=control"]
    with subprocess.Popen(command, pass_fds=[theirs.fileno()]) as process:
        theirs.close()
        ask = converse(ours, lambda: None)
        ask(b'{"execute": "qmp_capabilities"}')
        yield ask
        ours.close()
        process.terminate()


class Bare(Monitor):
    """As QEMU is without a machine: it can run, and has nothing in it."""

    state = "prelaunch"

    def run_state(self) -> str:
        return self.state

    def stop(self) -> None:
        self.state = "paused" if self.state == "running" else self.state

    def cont(self) -> None:
        self.state = "running"

    def set_dirty_log(self, enable: bool) -> None:
        pass

    def online_vcpus(self) -> list[int]:
        return []


@pytest.fixture
def ours(loop: MiniLoop) -> Iterator[Callable[[bytes], list[Any]]]:
    client, server = socket.socketpair()
    client.settimeout(30)
    qmp = Qmp(loop, Bare())
    qmp.open(from_chardev(f"socket,id=c,fd={server.detach()}", []))
    ask = converse(client, loop.settle)
    ask(b'{"execute": "qmp_capabilities"}')
    yield ask
    client.close()
    qmp.close()


def command(name: str, **arguments: Any) -> bytes:
    """A command; `_` in an argument's name stands for `-`."""
    fields = {key.replace("_", "-"): value for key, value in arguments.items()}
    return json.dumps(
        {"execute": name, "id": 1, **({"arguments": fields} if fields else {})}
    ).encode()


def hmp(line: str) -> bytes:
    return command("human-monitor-command", command_line=line)


MALFORMED = [
    b"[]",
    b'[1,{"id":3}]',
    b'"abc"',
    b"1 ",
    b"null\n",
    b"}",
    b"]",
    b"[}",
    b"{}",
    b"{,}",
    b'{"a"}',
    b'{"a":}',
    b'{"a" 1}',
    b'{"a":1 "b":2}',
    b'{"a":1,,}',
    b'{"a":1]',
    b"[1 2]",
    b"[1,]",
    b"{1:2}",
    b"{[1]:2}",
    b"abc ",
    b"\xff",
    b"\x00",
    b"@",
    b"%d ",
    b"#comment\n",
    b'{"id":1}',
    b'{"id":1,"id":2}',
    b'{"execute":1}',
    b'{"execute":null}',
    b'{"execute":"nope"}',
    b'{"execute":"\xc3\xa9"}',
    b'{"execute":"query-status","foo":1}',
    b'{"execute":"query-status","arguments":[]}',
    b'{"execute":"query-status","arguments":null}',
    b'{"execute":"query-status","control":{}}',
    b'{"exec-oob":"query-status"}',
    b'{"execute":"query-status","exec-oob":"x"}',
    b'{"execute":"query-status",}',
    b'{"execute":"query-status"]',
    b"{'execute':'query-status'}",
    b'{"execute":"query-status"}{"execute":"query-name","id":9}',
    b'{"id":"\xff"}',
    b'{"id":"a\nb"}',
    b'{"id":"unterminated\n',
    b'{"id":"\\q"}',
    b'{"id":"\\u12"}',
    b'{"id":"\\u12zz"}',
    b'{"id":"\\ud800x"}',
    b'{"id":"\\ude00"}',
    b'{"id":"\\ud83d\\ude00 \\ud83d"}',
    b'{"id":"\\ud83d\\ude00"}',
    b'{"id":"\\u0000"}',
    b'{"id":"\xc0\x80"}',
    b'{"id":"\xed\xa0\x80"}',
    b'{"id":"\xe2\x82"}',
    b'{"id":"\\\n"}',
    b'{"id":"\\\xff"}',
    b'{"id":"x"}}',
    b'{"id":"x\x7f\x01"}',
    b'{"id":"x\x7f"}',
    b'{"id":1.5}',
    b'{"id":0e5}',
    b'{"id":01}',
    b'{"id":-}',
    b'{"id":1.}',
    b'{"id":.5}',
    b'{"id":+1}',
    b'{"id":1.5e}',
    b'{"id":1e5}',
    b'{"id":-0}',
    b'{"id":0.10}',
    b'{"id":18446744073709551616}',
    b'{"id":12345678901234567890}',
    b'{"id":-9223372036854775808}',
    b'{"id":tru}',
    b'{"id":TRUE}',
    b'{"id":nullnull}',
    b'{"id":null}',
    b'"a\\b"',
    b"[" * 1025,
    b'{"id":' + b"[" * 500 + b"]" * 500 + b"}",
    b'{"a":' * 1024 + b"1" + b"}" * 1024,
]
COMMANDS = [
    command("qmp_capabilities"),
    command("qmp_capabilities", x=1),
    command("qmp_capabilities", enable=["foo"]),
    command("qmp_capabilities", enable="oob"),
    command("qmp_capabilities", enable=[1]),
    command("query-status", x=1),
    command("query-cpus"),
    command("cpu-add", id=1),
    command("change", device="vnc", target="x"),
    command("query-block"),
    command("query-blockstats"),
    command("query-blockstats", query_nodes=1),
    command("query-pci"),
    command("query-vnc"),
    command("query-vnc-servers"),
    command("query-name"),
    command("query-uuid"),
    command("query-cpus-fast"),
    command("query-fdsets"),
    command("query-migrate"),
    command("query-mice"),
    command("query-iothreads"),
    command("query-tpm"),
    command("query-balloon"),
    command("query-memory-devices"),
    command("query-spice"),
    command("query-current-machine"),
    command("add-fd"),
    command("add-fd", opaque=1),
    command("add-fd", fdset_id="x"),
    command("remove-fd"),
    command("remove-fd", fdset_id=3),
    command("remove-fd", fdset_id=3, fd=1),
    command("remove-fd", fdset_id=-1),
    command("remove-fd", fdset_id=2**63),
    command("remove-fd", fdset_id=1.5),
    command("remove-fd", fdset_id=None),
    command("remove-fd", fdset_id=True),
    command("device_add"),
    command("device_add", driver="nonsense", id="x"),
    command("device_add", driver=3),
    command("device_add", driver=None),
    command("device_add", driver=""),
    command("device_add", driver="nonsense", id=1),
    command("device_add", driver="nonsense", id="1x!"),
    command("device_add", driver="xen-pci-passthrough", id="x", hostaddr="0000:00:00.0"),
    command("device_del"),
    command("device_del", id="nope"),
    command("device_del", id=1),
    command("eject"),
    command("eject", id="ide-5632"),
    command("eject", device="ide-5632"),
    command("eject", device="a", id="b"),
    command("eject", id="a", force="x"),
    command("eject", device=1),
    command("blockdev-change-medium"),
    command("blockdev-change-medium", filename="x"),
    command("blockdev-change-medium", id="x", filename="/dev/fdset/1"),
    command("blockdev-change-medium", id="x", filename="f", read_only_mode="foo"),
    command("change-vnc-password"),
    command("change-vnc-password", password="x"),
    command("change-vnc-password", password=1),
    command("set_password"),
    command("set_password", protocol="vnc", password="x"),
    command("set_password", protocol="foo", password="x"),
    command("set_password", protocol=1),
    command("set_password", protocol="spice", password="x"),
    command("set_password", protocol="vnc", password="x", connected="bad"),
    command("set_password", protocol="vnc", password="x", foo=1),
    command("expire_password"),
    command("expire_password", protocol="vnc"),
    command("expire_password", protocol="vnc", time="now"),
    command("expire_password", protocol="spice", time="now"),
    command("xen-save-devices-state"),
    command("xen-save-devices-state", filename=1),
    command("xen-save-devices-state", filename="/nonexistent/x"),
    command("xen-save-devices-state", filename="/dev/fdset/7"),
    command("xen-save-devices-state", filename="/dev/fdset/7", live="yes"),
    command("xen-load-devices-state"),
    command("xen-load-devices-state", filename="/nonexistent"),
    command("xen-set-global-dirty-log"),
    command("xen-set-global-dirty-log", enable=1),
    command("xen-set-global-dirty-log", enable=False),
    command("xen-set-replication"),
    command("x-blockdev-change"),
    command("x-blockdev-change", parent="x"),
    command("nbd-server-start"),
    command("nbd-server-add"),
    command("nbd-server-add", device="x"),
    command("nbd-server-stop"),
    command("nbd-server-stop", a=1),
    command("system_wakeup"),
    command("inject-nmi"),
    command("query-command-line-options", option="nope"),
    command("query-command-line-options", option=3),
    command("stop", x=None),
    command("stop") + command("cont") + command("cont") + command("query-status"),
    command("cont") + command("stop") + command("stop") + command("query-status"),
    command("cont") + command("xen-load-devices-state", filename="/nonexistent") + command("stop"),
    command("human-monitor-command"),
    command("human-monitor-command", command_line="info status", cpu_index=7),
    command("human-monitor-command", command_line="info status", cpu_index="x"),
    *map(
        hmp,
        [
            "",
            "foo",
            "  foo bar",
            "FOO",
            "a-b c",
            "foo;bar",
            "info foo",
            "info name",
            "info  name ",
            "info uuid",
            "info pci",
            "info cpus",
            "info kvm",
            "info vnc",
            "info status x",
            "stop",
            "stop x",
            "quit x",
            "c",
            "s",
            "system_wakeup",
            "nmi",
            "help stop",
            "? stop",
            "help nope",
            "help info status",
            "? info nope",
            "help help",
            "help cont",
            "help quit",
            "help system_reset",
            "help nmi",
            "help info chardev",
        ],
    ),
]


@pytest.mark.parametrize("data", MALFORMED + COMMANDS, ids=lambda data: repr(data[:60]))
def test_the_answer_is_qemus(
    qemu: Callable[[bytes], list[Any]], ours: Callable[[bytes], list[Any]], data: bytes
) -> None:
    reset = command("stop")
    qemu(reset)
    expected = qemu(data)
    qemu(reset)
    ours(command("cont") + reset)
    assert scrubbed(ours(data)) == scrubbed(expected)


def scrubbed(answers: list[Any]) -> list[Any]:
    """Without what tells one run from another, or depends on where a QEMU began."""
    text = json.dumps(answers).replace("prelaunch", "paused")
    return list(json.loads(text))


def plain(name: str) -> str:
    """A file name without the numbers that the kernel chose."""
    return re.sub(r":[0-9]+(?=,| |$)", ":PORT", re.sub(r"pts/[0-9]+", "pts/N", name))


def test_the_file_names_of_back_ends_are_qemus(loop: MiniLoop, tmp_path: Path) -> None:
    if QEMU is None:
        pytest.skip(NO_QEMU)
    with socket.socket(socket.AF_UNIX) as unix, socket.create_server(("127.0.0.1", 0)) as tcp:
        unix.bind(str(tmp_path / "srv"))
        unix.listen()
        port = tcp.getsockname()[1]
        texts = [
            "null,id=a",
            "pty,id=b",
            f"file,id=c,path={tmp_path}/file",
            "ringbuf,id=d",
            "socket,id=e,host=127.0.0.1,port=0,server=on,wait=off",
            f"socket,id=f,path={tmp_path}/s%d,server=on,wait=off",
            f"socket,id=g,path={tmp_path}/srv",
            f"socket,id=h,host=127.0.0.1,port={port}",
        ]
        expected = qemu_chardevs([text.replace("%d", "1") for text in texts])
        chardevs = ChardevSet(loop)
        for text in texts:
            chardevs.open(from_chardev(text.replace("%d", "1"), []))
        found = {label: plain(name) for label, name, _ in chardevs.entries()}
        chardevs.close()
    assert found == expected


def qemu_chardevs(texts: list[str]) -> dict[str, str]:
    """What query-chardev of QEMU says of each -chardev."""
    assert QEMU is not None
    client, server = socket.socketpair()
    client.settimeout(30)
    line = [QEMU, "-nodefaults", "-display", "none", "-machine", "none", "-S"]
    line += ["-chardev", f"socket,id=qmp,fd={server.fileno()}", "-mon", "chardev=qmp,mode=control"]
    for text in texts:
        line += ["-chardev", text]
    with subprocess.Popen(
        line, pass_fds=[server.fileno()], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        server.close()
        ask = converse(client, lambda: None)
        ask(b'{"execute": "qmp_capabilities"}')
        (answer,) = ask(b'{"execute": "query-chardev"}')
        client.close()
        process.terminate()
    return {
        one["label"]: plain(one["filename"]) for one in answer["return"] if one["label"] != "qmp"
    }
