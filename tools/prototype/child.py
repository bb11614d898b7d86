"""The device model as a child process: its argument vector, its end, what is asked of it by QMP."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from dm.errors import HostError

__all__ = ["DeviceModelProcess"]

PATIENCE = 30.0
"""Seconds for an answer, or for the end after a signal; a device model that takes longer hangs."""


class DeviceModelProcess:
    """One `ioreqd-dm`. ``ended`` is called from a thread of its own with the exit status."""

    def __init__(
        self,
        arguments: Sequence[str],
        monitor: Path,
        ended: Callable[[DeviceModelProcess, int], object],
        inherited: Sequence[int] = (),
    ) -> None:
        self._monitor = monitor
        monitor.unlink(missing_ok=True)
        words = [sys.executable, "-m", "dm.control.main", *arguments]
        words += ["-qmp", f"unix:{monitor},server,nowait"]
        self._process = subprocess.Popen(
            words,
            pass_fds=inherited,
            env={**os.environ, "PYTHONSAFEPATH": "1"},
        )
        self._waiter = threading.Thread(target=self._wait, args=(ended,), daemon=True)
        self._waiter.start()

    def _wait(self, ended: Callable[[DeviceModelProcess, int], object]) -> None:
        ended(self, self._process.wait())

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def poll(self) -> int | None:
        """The exit status, None while it runs."""
        return self._process.poll()

    def save(self, path: Path) -> None:
        """Stop the devices and write their state to ``path``, as a toolstack does."""
        self._command("stop")
        self._command("xen-save-devices-state", filename=str(path))

    def _command(self, name: str, **arguments: str) -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE)
            try:
                connection.connect(str(self._monitor))
                with connection.makefile("rwb") as stream:
                    stream.readline()
                    for request in ("qmp_capabilities", {}), (name, arguments):
                        message = {"execute": request[0], "arguments": request[1]}
                        stream.write(json.dumps(message).encode() + b"\n")
                        stream.flush()
                        _answer(name, stream)
            except OSError as error:
                raise HostError(f"device model, {name}: {error}", error.errno or 0) from None

    def end(self) -> int:
        """Ask it to end and wait until it has; gives its exit status."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def _answer(name: str, stream: object) -> None:
    for line in stream:  # type: ignore[attr-defined]
        message = json.loads(line)
        if "error" in message:
            raise HostError(f"device model, {name}: {message['error'].get('desc')}")
        if "return" in message:
            return
    raise HostError(f"device model, {name}: the connection ended")
