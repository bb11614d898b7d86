"""The real `ioreqd` command as a user starts it: what it prints, how it ends, what it leaves."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

__all__ = ["IOREQD", "LIMIT", "Running"]

IOREQD = Path(sys.executable).parent / "ioreqd"
LIMIT = 30.0
"""Seconds for anything that a test waits for."""


class Running:
    """One `ioreqd` in a session of its own, with ``folder`` as its working directory.

    Its temporary files go to ``folder``/tmp. ``terminal``: a terminal's descriptor, to be its
    controlling terminal, standard input, output and error instead of the null device and two pipes.
    """

    def __init__(
        self,
        folder: Path,
        words: Sequence[str],
        *,
        terminal: int | None = None,
        environment: Mapping[str, str] = {},
    ) -> None:
        self.temporary = folder / "tmp"
        self.temporary.mkdir(exist_ok=True)
        self._text = {"stdout": "", "stderr": ""}
        self._changed = threading.Condition()
        piped = subprocess.PIPE if terminal is None else terminal
        self.process = subprocess.Popen(
            [*([] if terminal is None else ["setsid", "--ctty"]), str(IOREQD), *words],
            cwd=folder,
            stdin=subprocess.DEVNULL if terminal is None else terminal,
            stdout=piped,
            stderr=piped,
            start_new_session=terminal is None,
            env={**os.environ, "TMPDIR": str(self.temporary), "LC_ALL": "C.UTF-8", **environment},
        )
        self._readers = [
            threading.Thread(target=self._read, args=(name, stream), daemon=True)
            for name, stream in (("stdout", self.process.stdout), ("stderr", self.process.stderr))
            if stream is not None
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, name: str, stream: IO[bytes]) -> None:
        with stream:
            while data := os.read(stream.fileno(), 65536):
                with self._changed:
                    self._text[name] += data.decode(errors="replace").replace("\r", "")
                    self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    @property
    def stdout(self) -> str:
        """What it has printed so far, without carriage returns."""
        return self._text["stdout"]

    @property
    def stderr(self) -> str:
        """What it has printed to standard error so far."""
        return self._text["stderr"]

    def wait_for(self, pattern: str, count: int = 1) -> re.Match[str]:
        """Wait until it has printed ``pattern`` ``count`` times on one stream; gives the last."""
        expression = re.compile(pattern, re.MULTILINE)

        def found() -> re.Match[str] | None:
            for text in self._text.values():
                matches = list(expression.finditer(text))
                if len(matches) >= count:
                    return matches[count - 1]
            return None

        with self._changed:
            self._changed.wait_for(
                lambda: found() or not any(r.is_alive() for r in self._readers), LIMIT
            )
            match = found()
        assert match is not None, f"no {pattern!r} in\n{self.stdout}\n---\n{self.stderr}"
        return match

    def wait(self) -> int:
        """Wait for its end and for all that it has printed; gives the exit status."""
        status = self.process.wait(LIMIT)
        for reader in self._readers:
            reader.join(LIMIT)
        return status

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def processes(self) -> dict[int, str]:
        """The processes of its session, with their command lines; itself is not among them."""
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == self.process.pid:
                continue
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if int(fields[3]) == self.process.pid:
                found[int(entry.name)] = command
        return found

    def device_model(self) -> int:
        """The process id of its device model."""
        (pid,) = [pid for pid, words in self.processes().items() if "dm.control.main" in words]
        return pid

    def leftovers(self) -> list[str]:
        """Temporary files and processes that are there."""
        files = [str(path) for path in self.temporary.rglob("*")]
        return sorted(files) + sorted(self.processes().values())

    def kill(self) -> None:
        """End all of its session, if it is still there."""
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(LIMIT)
