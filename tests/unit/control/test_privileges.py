"""Giving up privileges: the order, that it cannot be undone, and that service goes on after it."""

from __future__ import annotations

import array
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dm.control.privileges import change_root, parse_user
from dm.errors import ConfigError, HostError
from dm.machine.snapshot import parse as parse_state

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give up root")


def test_a_user_is_a_name_or_two_numbers() -> None:
    assert parse_user("12:34") == (12, 34, None)
    assert parse_user("root") == (0, 0, "root")
    for user in ("nobody-of-that-name", "12:", ":", "12:x"):
        with pytest.raises(ConfigError, match="no such user"):
            parse_user(user)


def test_a_root_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="chroot"):
        change_root(str(tmp_path / "absent"))


class Client:
    """A QMP client that checks every answer."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.lines = self.socket.makefile("rb")

    def close(self) -> None:
        self.lines.close()
        self.socket.close()

    def ask(self, command: str, fd: int | None = None, **named: Any) -> Any:
        arguments = {name.replace("_", "-"): value for name, value in named.items()}
        text = json.dumps({"execute": command, "arguments": arguments}).encode()
        rights = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, _array(fd))]
        self.socket.sendmsg([text], rights)
        while "event" in (answer := json.loads(self.lines.readline())):
            continue
        return answer.get("return", answer)


def _array(fd: int) -> array.array[int]:
    return array.array("i", [fd])


@needs_root
def test_confined_it_serves_saves_and_quits(tmp_path: Path) -> None:
    root, state, path = tmp_path / "root", tmp_path / "state", tmp_path / "qmp"
    root.mkdir(mode=0o755)
    tmp_path.chmod(0o755)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(4)
    fd = listener.fileno()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.unit.control.confined", str(root), str(fd)], pass_fds=[fd]
    )
    listener.close()
    try:
        client = Client(path)
        client.lines.readline()
        assert client.ask("qmp_capabilities") == {}
        assert client.ask("query-status")["status"] == "prelaunch"
        assert client.ask("cont") == {}
        assert "7.2.0" in client.ask("human-monitor-command", command_line="info version")
        assert client.ask("no-such-command")["error"]["class"] == "CommandNotFound"
        assert client.ask("stop") == {}
        with state.open("wb") as file:
            fdset = client.ask("add-fd", file.fileno())["fdset-id"]
        assert client.ask("xen-save-devices-state", filename=f"/dev/fdset/{fdset}") == {}
        assert parse_state(state.read_bytes()).kind == "xenfv"
        refused = client.ask("xen-save-devices-state", filename="/state")
        assert refused["error"]["class"] == "GenericError"
        assert client.ask("quit") == {}
        assert process.wait(30) == 0
        assert (root / "restricted").read_text() == "0"
        client.close()
    finally:
        process.kill()
        process.wait()
