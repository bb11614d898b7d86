"""A client of QEMU's qtest protocol that launches its target as QEMU's own test programs do."""

from __future__ import annotations

import json
import os
import shlex
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.closing import Closing

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools" / "prototype" / "ioreqd-system-x86_64"
SIZES = {"b": 1, "w": 2, "l": 4, "q": 8}
PATIENCE = 45.0

Launch = Callable[..., "QtestClient"]


class QtestClient(Closing):
    """Launches ``binary`` with ``arguments``; the target connects to two sockets in ``folder``.

    ``irqs``: the levels seen of intercepted interrupts; ``events``: what QMP reported.
    """

    def __init__(
        self, binary: Path, folder: Path, arguments: Sequence[str] = (), handshake: bool = True
    ) -> None:
        self.irqs: dict[int, int] = {}
        self.events: list[dict[str, Any]] = []
        place = folder / f"qtest-{os.urandom(4).hex()}"
        listeners = [_listener(f"{place}.{suffix}") for suffix in ("sock", "qmp")]
        words = ["-qtest", f"unix:{place}.sock", "-qtest-log", "/dev/null"]
        words += ["-chardev", f"socket,path={place}.qmp,id=char0"]
        words += ["-mon", "chardev=char0,mode=control", "-display", "none"]
        words += [*arguments, "-accel", "qtest"]
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {shlex.quote(str(binary))} {shlex.join(words)}"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        self._streams: list[socket.socket] = []
        try:
            for listener in listeners:
                listener.settimeout(PATIENCE)
                with listener:
                    self._streams.append(listener.accept()[0])
        except BaseException:
            self.close()
            raise
        for stream in self._streams:
            stream.settimeout(PATIENCE)
        self._qtest = self._streams[0].makefile("rwb")
        self._qmp = self._streams[1].makefile("rwb")
        if handshake:
            self.greeting = json.loads(self._qmp.readline())
            assert self.qmp("qmp_capabilities") == {}
            assert self.command("endianness") == "little"

    def send(self, line: str) -> None:
        """Send one request, or several with line ends between them."""
        self._qtest.write(line.encode() + b"\n")
        self._qtest.flush()

    def receive(self) -> str:
        """The next answer; changes of interrupts before it are noted."""
        while True:
            line = self._qtest.readline().decode()
            if not line:
                raise EOFError("the target has gone")
            words = line.split()
            if words[0] != "IRQ":
                return line.rstrip("\n")
            self.irqs[int(words[2])] = int(words[1] == "raise")

    def raw(self, line: str) -> str:
        """One request; its whole answer."""
        self.send(line)
        return self.receive()

    def command(self, line: str) -> str:
        """One request; what follows its OK."""
        answer = self.raw(line)
        assert answer.startswith("OK"), f"{line!r} was answered with {answer!r}"
        return answer[2:].strip()

    def inp(self, port: int, size: str = "b") -> int:
        """IN."""
        return int(self.command(f"in{size} {port:#x}"), 0)

    def out(self, port: int, value: int, size: str = "b") -> None:
        """OUT."""
        self.command(f"out{size} {port:#x} {value:#x}")

    def load(self, gpa: int, size: str = "l") -> int:
        """A load."""
        return int(self.command(f"read{size} {gpa:#x}"), 0)

    def store(self, gpa: int, value: int, size: str = "l") -> None:
        """A store."""
        self.command(f"write{size} {gpa:#x} {value:#x}")

    def read(self, gpa: int, length: int) -> bytes:
        """A block of memory."""
        return bytes.fromhex(self.command(f"read {gpa:#x} {length}")[2:])

    def write(self, gpa: int, data: bytes) -> None:
        """Store a block of memory."""
        self.command(f"write {gpa:#x} {len(data)} 0x{data.hex()}")

    def step(self, nanoseconds: int | None = None) -> int:
        """Let time pass, or go to the next deadline; the time then."""
        return int(
            self.command("clock_step" if nanoseconds is None else f"clock_step {nanoseconds}")
        )

    def config_read(self, devfn: int, register: int, size: str = "l") -> int:
        """Read PCI configuration space, the way libqos does."""
        self.out(0xCF8, 1 << 31 | devfn << 8 | register, "l")
        return self.inp(0xCFC, size)

    def config_write(self, devfn: int, register: int, value: int, size: str = "l") -> None:
        """Write PCI configuration space."""
        self.out(0xCF8, 1 << 31 | devfn << 8 | register, "l")
        self.out(0xCFC, value, size)

    def irq(self, line: int) -> int:
        """The level of an intercepted interrupt; what is under way is flushed first."""
        self.inp(0)
        return self.irqs.get(line, 0)

    def qmp(self, command: str, **arguments: object) -> Any:
        """What a QMP command returns: the first object that is no event."""
        request: dict[str, object] = {"execute": command}
        if arguments:
            request["arguments"] = arguments
        self._qmp.write(json.dumps(request).encode() + b"\n")
        self._qmp.flush()
        while "event" in (answer := self._object()):
            self.events.append(answer)
        assert "return" in answer, answer
        return answer["return"]

    def event(self, name: str) -> dict[str, Any]:
        """The next event ``name``; others before it are dropped."""
        while True:
            found = self.events.pop(0) if self.events else self._object()
            if found["event"] == name:
                return found

    def _object(self) -> dict[str, Any]:
        line = self._qmp.readline()
        if not line:
            raise EOFError("the monitor has gone")
        found: dict[str, Any] = json.loads(line)
        return found

    def hang_up(self) -> None:
        """Close the qtest connection, and only that."""
        self._streams[0].shutdown(socket.SHUT_RDWR)

    def end(self) -> int:
        """SIGTERM, as a client ends its target; the exit status."""
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def wait(self) -> int:
        """The exit status, when the target ends by itself."""
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        """End the target, whatever state it is in."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()
        for stream in self._streams:
            stream.close()


def _listener(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)
    return listener


@pytest.fixture(scope="session")
def qtest_binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The target as an installer would leave it: the script with an interpreter in its first line.

    Its name must contain -system- and end in the architecture, for clients look at that.
    """
    path = tmp_path_factory.mktemp("bin") / SCRIPT.name
    path.write_text(SCRIPT.read_text().replace("#!python", f"#!{sys.executable}", 1))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def launch(qtest_binary: Path, tmp_path: Path) -> Iterator[Launch]:
    """``launch(*arguments)`` gives a `QtestClient`, which ends with the test."""
    started: list[QtestClient] = []

    def start(*arguments: str, handshake: bool = True) -> QtestClient:
        started.append(QtestClient(qtest_binary, tmp_path, arguments, handshake))
        return started[-1]

    yield start
    for client in started:
        client.close()
