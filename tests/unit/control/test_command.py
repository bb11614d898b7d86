"""The command `ioreqd-dm` as a process: its exit statuses, its one-line errors, libxl's probe."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "dm.control.main"]
PROBE = ["-S", "-no-user-config", "-nodefaults", "-nographic", "-machine", "none,accel=xen"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    "arguments",
    [["-no-such-option"], ["-xen-domid"], ["-xen-domid", "x"], ["-accel", "local,path=/x"]],
)
def test_a_users_mistake_is_one_line_and_status_2(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("ioreqd-dm: ")
    assert done.stderr.count("\n") == 1


def test_a_host_without_xen_is_one_line_and_status_1() -> None:
    if os.path.exists("/dev/xen/privcmd"):
        pytest.skip("this host has Xen")
    done = run("-xen-domid", "1")
    assert done.returncode == 1
    # Xen's own library may have its say before.
    assert done.stderr.splitlines()[-1].startswith("ioreqd-dm: xendevicemodel_open: ")


def test_version_and_help_are_printed() -> None:
    assert "7.2.0" in run("-version").stdout
    assert "-xen-domid" in run("-help").stdout


class Probe:
    """A probe run as libxl makes it: QMP on an inherited, listening descriptor."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "qmp"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.path))
        listener.listen(1)
        self.client = socket.socket(socket.AF_UNIX)
        self.client.connect(str(self.path))
        fd = listener.fileno()
        chardev = f"socket,id=libxl-cmd,fd={fd},server=on,wait=off"
        monitor = "chardev=libxl-cmd,mode=control"
        self.process = subprocess.Popen(
            [*COMMAND, *PROBE, "-chardev", chardev, "-mon", monitor], pass_fds=[fd]
        )
        listener.close()
        self.lines = self.client.makefile("rb")

    def ask(self, command: str) -> dict[str, object]:
        """Send a command and read its answer; the greeting when ``command`` is empty."""
        if command:
            self.client.sendall(json.dumps({"execute": command, "id": 1}).encode() + b"\r\n")
        line = self.lines.readline()
        assert line.endswith(b"\r\n")
        answer: dict[str, object] = json.loads(line)
        return answer

    def close(self) -> None:
        """End it, whatever state it is in."""
        self.process.kill()
        self.process.wait()
        self.lines.close()
        self.client.close()


@pytest.fixture
def probe(tmp_path: Path) -> Iterator[Probe]:
    made = Probe(tmp_path)
    yield made
    made.close()


def test_the_probe_run_tells_what_it_can_do_and_quits(probe: Probe) -> None:
    assert "QMP" in probe.ask("")
    assert probe.ask("qmp_capabilities")["return"] == {}
    options = probe.ask("query-command-line-options")["return"]
    assert isinstance(options, list)
    (run_with,) = [entry for entry in options if entry["option"] == "run-with"]
    assert {parameter["name"] for parameter in run_with["parameters"]} >= {"chroot", "user"}
    assert probe.ask("quit")["return"] == {}
    assert probe.process.wait(30) == 0
    assert probe.path.exists(), "the socket is libxl's, not ours to remove"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(probe: Probe, number: signal.Signals) -> None:
    probe.ask("")
    probe.process.send_signal(number)
    assert probe.process.wait(30) == 0
