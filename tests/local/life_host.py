"""A host of stand-alone guests for a test: its run directory, guests from C, the real `ioreqd`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tools.prototype.guest_build import build_guest
from tools.toolstack.errors import HostFailure, ToolstackError
from tools.toolstack.life.control import ask
from tools.toolstack.life.places import Places

__all__ = ["GUESTS", "LIMIT", "LifeHost"]

GUESTS = Path(__file__).parent / "guests"
ROOT = Path(__file__).parents[2]
LIMIT = 60.0
"""Seconds after which what a test waits for is taken never to come."""
LOOK = 0.02


class LifeHost:
    """Everything is below ``folder``. `close` ends what still runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run_dir = folder / "ioreqd"
        self.places = Places(self.run_dir)
        self.places.open()
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, *words: str | Path, output: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a Python program beside this one; ``output``: the file of what it prints."""
        environment = {**self.environment, "PYTHONPATH": str(ROOT)}
        with (output or Path(os.devnull)).open("wb") as file:
            command = [sys.executable, *map(str, words)]
            process = subprocess.Popen(command, env=environment, stdout=file)
        self._started.append(process)
        return process

    def guest(self, name: str, **defines: int) -> Path:
        """guests/``name``.c as an ELF file."""
        target = self.folder / "".join([name, *(f"-{key}-{v}" for key, v in defines.items())])
        if not target.exists():
            build_guest(GUESTS / f"{name}.c", target, defines, warnings=True)
        return target

    def config(self, name: str, kernel: Path, **settings: object) -> Path:
        """An xl.cfg; a small guest unless the settings say otherwise."""
        values: Mapping[str, object] = {
            "name": name,
            "type": "hvm",
            "memory": 4,
            "vga": "none",
            "vnc": 0,
            "firmware_override": str(kernel),
            **settings,
        }
        path = self.folder / f"{name}.cfg"
        path.write_text("".join(f"{key} = {json.dumps(v)}\n" for key, v in values.items()))
        return path

    def ioreqd(
        self, *words: str | Path, status: int | None = 0
    ) -> subprocess.CompletedProcess[str]:
        """Run the command, with this host's folders; it ends with ``status``."""
        done = subprocess.run(
            [sys.executable, "-m", "tools.cli.main", *map(str, words)],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=LIMIT,
            check=False,
            env=self.environment,
        )
        assert status is None or done.returncode == status, f"{words}: {done.stdout}{done.stderr}"
        return done

    @property
    def environment(self) -> dict[str, str]:
        """Where the command finds this host."""
        folders = {"XDG_RUNTIME_DIR": str(self.folder), "XDG_STATE_HOME": str(self.folder)}
        return {**os.environ, **folders}

    def create(self, config: Path, *words: str) -> int:
        """`ioreqd create` on the unicorn engine; the domid."""
        done = self.ioreqd("create", config, "--engine", "unicorn", *words)
        return int(done.stdout.split(",")[0].removeprefix("domain "))

    def ask(self, who: str, command: str, **arguments: Any) -> Any:
        """Ask the keeper of a domain."""
        return ask(self.places.find(who).control, command, timeout=LIMIT, **arguments)

    def info(self, who: str) -> dict[str, Any]:
        """What `ioreqd list` knows of a domain."""
        found: dict[str, Any] = self.ask(who, "info")
        return found

    def lines(self, domid: int) -> list[str]:
        """What a guest has said so far, even if it is gone by now."""
        try:
            return (self.run_dir / str(domid) / "console.log").read_text().splitlines()
        except OSError:
            return []

    def journal(self, name: str) -> str:
        """The keeper's log."""
        path = self.run_dir / "log" / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def wait(self, what: str, ready: Callable[[], Any]) -> Any:
        """Wait until ``ready`` gives something true, and give that."""
        deadline = time.monotonic() + LIMIT
        while not (found := self._try(ready)):
            assert time.monotonic() < deadline, f"{what}; {self.journals()}"
            time.sleep(LOOK)
        return found

    def _try(self, ready: Callable[[], Any]) -> Any:
        try:
            return ready()
        except (ToolstackError, HostFailure):
            return None

    def journals(self) -> str:
        """All logs there are, for a test that fails."""
        folder = self.run_dir / "log"
        logs = sorted(folder.iterdir()) if folder.exists() else []
        lines = [
            line
            for d in self.run_dir.iterdir()
            if d.name.isdecimal()
            for line in self.lines(int(d.name))
        ]
        return "\n".join([*(f"{log.name}: {log.read_text()}" for log in logs), *lines[-30:]])

    def wait_line(self, domid: int, text: str) -> list[str]:
        """Wait until a guest has said a line; all lines until now."""
        self.wait(f"no line {text!r}", lambda: text in self.lines(domid))
        return self.lines(domid)

    def wait_gone(self, domid: int) -> None:
        """Wait until a domain is destroyed."""
        folder = self.run_dir / str(domid)
        self.wait(f"domain {domid} stays", lambda: not folder.exists())

    def processes(self) -> list[int]:
        """The processes that know of this host's folder, other than this one."""
        found = []
        needle = os.fsencode(str(self.folder))
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal() or int(entry.name) == os.getpid():
                continue
            try:
                text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if needle in text:
                found.append(int(entry.name))
        return sorted(found)

    def residue(self) -> list[str]:
        """What is left of guests: processes, and files other than logs."""
        files = [path for path in self.run_dir.rglob("*") if path.parent.name != "log"]
        names = {str(path.relative_to(self.run_dir)) for path in files} - {"log", "lock"}
        return sorted(names | {f"process {pid}" for pid in self.processes()})

    def wait_nothing_left(self) -> None:
        """Wait until nothing is left; keepers end a little after their last domain."""
        deadline = time.monotonic() + LIMIT
        while left := self.residue():
            assert time.monotonic() < deadline, f"left behind: {left}"
            time.sleep(LOOK)

    def close(self) -> None:
        """Destroy what there is."""
        for place in self.places.all():
            try:
                ask(place.control, "destroy", timeout=LIMIT)
            except (HostFailure, ToolstackError):
                pass
        for process in self._started:
            process.kill()
            process.wait(LIMIT)
        for pid in self.processes():
            try:
                os.kill(pid, 9)
            except OSError:
                pass
