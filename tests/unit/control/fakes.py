"""A machine for the monitor to ask, and clients that speak QMP over real sockets."""

from __future__ import annotations

import array
import json
import os
import socket
from pathlib import Path
from typing import Any

from dm.control.argv_chardev import from_chardev
from dm.control.monitor import Monitor, PciFunctionInfo, PciRegionInfo
from dm.control.qmp_error import QmpError
from dm.control.qmp_listener import Qmp
from tests.unit.loop import MiniLoop


class FakeMachine(Monitor):
    """Remembers what was asked; runs, stops and saves like a machine without devices."""

    maxcpus = 3

    def __init__(self) -> None:
        self.state = "prelaunch"
        self.calls: list[str] = []
        self.content = b"state"
        self.loaded = b""
        self.failure: Exception | None = None
        self.vcpus = [0]
        self.media: dict[str, bytes | None] = {"ide-5632": None}
        self.qmp: Qmp | None = None

    def _did(self, what: str, event: str = "") -> None:
        self.calls.append(what)
        if self.failure is not None:
            raise self.failure
        if event and self.qmp is not None:
            self.qmp.emit(event)

    def run_state(self) -> str:
        return self.state

    def stop(self) -> None:
        was, self.state = self.state, "paused" if self.state == "running" else self.state
        self._did("stop", "STOP" if was == "running" else "")

    def cont(self) -> None:
        was, self.state = self.state, "running"
        self._did("cont", "RESUME" if was != "running" else "")

    def reset(self) -> None:
        self._did("reset")

    def power_down(self) -> None:
        self._did("power_down")

    def quit(self) -> None:
        self._did("quit")

    def save(self, fd: int, live: bool) -> None:
        self._did(f"save live={live} in {self.state}")
        os.write(fd, self.content)

    def load(self, fd: int) -> None:
        self.loaded = os.read(fd, 1000)
        self._did("load")

    def set_dirty_log(self, enable: bool) -> None:
        self._did(f"dirty_log {enable}")

    def chardevs(self) -> list[tuple[str, str, bool]]:
        return [("serial0", "pty:/dev/pts/3", True)]

    def online_vcpus(self) -> list[int]:
        return list(self.vcpus)

    def plug_vcpu(self, number: int) -> None:
        self.vcpus.append(number)

    def drives(self) -> list[str]:
        return list(self.media)

    def eject(self, drive: str, force: bool) -> None:
        self._did(f"eject {drive} {force}")
        self.media[drive] = None

    def insert(self, drive: str, fd: int, image_format: str, read_only: bool) -> None:
        self._did(f"insert {drive} {image_format} {read_only}")
        self.media[drive] = os.read(fd, 1000)
        os.close(fd)

    def statistics(self) -> str:
        return "12 requests\n"

    def pci_functions(self) -> list[PciFunctionInfo]:
        bars = (PciRegionInfo(0, False, 0xF0000000, 0x1000), PciRegionInfo(4, True, -1, 16))
        return [
            PciFunctionInfo(0, 0, 0, 0x8086, 0x1237, 0x060000, "Host bridge"),
            PciFunctionInfo(0, 4, 0, 0x1234, 0x11E8, 0xFF00, "", (1, 2), 1, 11, "edu0", bars),
        ]


class Refusing(FakeMachine):
    """Says no in QEMU's classes."""

    def eject(self, drive: str, force: bool) -> None:
        raise QmpError(f"Device '{drive}' is locked and force was not specified")


class Client:
    """A QMP client; every read runs the loop."""

    def __init__(self, loop: MiniLoop, path: Path) -> None:
        self._loop = loop
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(path))
        self.sock.setblocking(False)
        self.data = bytearray()
        self.closed = False

    def _more(self) -> None:
        try:
            data = self.sock.recv(1 << 20)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        self.closed = self.closed or not data
        self.data += data

    def line(self) -> bytes:
        """The next message with its end."""

        def arrived() -> bool:
            self._more()
            return b"\n" in self.data or self.closed

        self._loop.run_until(arrived)
        end = self.data.index(b"\n") + 1
        line = bytes(self.data[:end])
        del self.data[:end]
        return line

    def message(self) -> dict[str, Any]:
        """The next message; its form is checked."""
        line = self.line()
        assert line.endswith(b"\r\n")
        assert line.count(b"\r") == 1
        value = json.loads(line)
        assert isinstance(value, dict)
        return value

    def answer(self) -> dict[str, Any]:
        """The next message that is not an event."""
        while "event" in (message := self.message()):
            pass
        return message

    def send(self, text: str | bytes | dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        """Sends a message as it stands; descriptors go with its first byte."""
        data = json.dumps(text).encode() + b"\r\n" if isinstance(text, dict) else text
        if isinstance(data, str):
            data = data.encode()
        if fds:
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
            self.sock.sendmsg([data[:1]], [rights])
            data = data[1:]
        while data:
            try:
                data = data[self.sock.send(data) :]
            except BlockingIOError:
                self._loop.step(0.05)

    def ask(self, name: str, fds: tuple[int, ...] = (), **arguments: Any) -> dict[str, Any]:
        """Runs a command; `_` in an argument's name stands for `-`."""
        message: dict[str, Any] = {"execute": name, "id": 1}
        if arguments:
            message["arguments"] = {key.replace("_", "-"): one for key, one in arguments.items()}
        self.send(message, fds)
        answer = self.answer()
        assert answer.pop("id") == 1
        return answer

    def value(self, name: str, fds: tuple[int, ...] = (), **arguments: Any) -> Any:
        """What a command that must succeed returns."""
        answer = self.ask(name, fds, **arguments)
        assert "return" in answer, answer
        return answer["return"]

    def refusal(self, name: str, **arguments: Any) -> tuple[str, str]:
        """The class and description of a command that must fail."""
        error = self.ask(name, **arguments)["error"]
        return error["class"], error["desc"]

    def negotiate(self) -> Client:
        """Reads the greeting and leaves negotiation mode."""
        assert "QMP" in self.message()
        assert self.value("qmp_capabilities") == {}
        return self

    def close(self) -> None:
        self.sock.close()


class Bench:
    """A QMP server at a path, its machine and its clients."""

    def __init__(self, loop: MiniLoop, path: Path, machine: FakeMachine | None = None) -> None:
        self.loop = loop
        self.path = path
        self.machine = machine or FakeMachine()
        self.qmp = Qmp(loop, self.machine)
        self.machine.qmp = self.qmp
        text = f"socket,id=libxl-cmd,path={path},server=on,wait=off"
        self.entrance = self.qmp.open(from_chardev(text, []))
        self._clients: list[Client] = []

    def fresh(self) -> Client:
        """A client that has read nothing yet."""
        client = Client(self.loop, self.path)
        self._clients.append(client)
        return client

    def client(self) -> Client:
        """A client that has negotiated."""
        return self.fresh().negotiate()

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self.qmp.close()
