"""The device model as a child process: its argument vector, its end, what is asked of it by QMP."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from dm.errors import HostError

__all__ = ["END_PATIENCE", "DeviceModelProcess"]

PATIENCE = 30.0
"""Seconds for an answer; a device model that takes longer hangs."""
END_PATIENCE = 2.0
"""Seconds for the end after a signal; a device that never returns is ended with its process."""


class _Terminal:
    """Standard input and output as they are now, for after a process that could not tidy up."""

    def __init__(self) -> None:
        self._blocking = [(fd, os.get_blocking(fd)) for fd in (0, 1)]
        self._modes = termios.tcgetattr(0) if os.isatty(0) else None

    def restore(self) -> None:
        """Make them so again, unless the terminal is gone."""
        try:
            for fd, blocking in self._blocking:
                os.set_blocking(fd, blocking)
            if self._modes is not None:
                termios.tcsetattr(0, termios.TCSANOW, self._modes)
        except (OSError, termios.error):
            return


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
        self._terminal = _Terminal()
        self.leaving = False
        """Whether its end was asked for."""
        monitor.unlink(missing_ok=True)
        words = [sys.executable, "-m", "dm.control.main", *arguments]
        words += ["-qmp", f"unix:{monitor},server,nowait"]
        # A terminal's Ctrl-C is for who started this: the guest is to have its answers until then.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
        try:
            self._process = subprocess.Popen(
                words,
                pass_fds=inherited,
                env={**os.environ, "PYTHONSAFEPATH": "1"},
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self._waiter = threading.Thread(target=self._wait, args=(ended,), daemon=True)
        self._waiter.start()

    def _wait(self, ended: Callable[[DeviceModelProcess, int], object]) -> None:
        status = self._process.wait()
        if status:
            self._terminal.restore()
        ended(self, status)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def poll(self, patience: float = 0.0) -> int | None:
        """The exit status, None while it runs; ``patience``: for how many seconds it may."""
        try:
            return self._process.wait(patience)
        except subprocess.TimeoutExpired:
            return None

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
        self.leaving = True
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(END_PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._process.wait()

    def kill(self) -> None:
        """End it at once; from a signal's handler, too."""
        self.leaving = True
        self._process.kill()
        try:
            # Not by the object, whose lock the code below the handler may hold.
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            pass
        self._terminal.restore()


def _answer(name: str, stream: object) -> None:
    for line in stream:  # type: ignore[attr-defined]
        message = json.loads(line)
        if "error" in message:
            raise HostError(f"device model, {name}: {message['error'].get('desc')}")
        if "return" in message:
            return
    raise HostError(f"device model, {name}: the connection ended")
