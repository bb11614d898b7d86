"""What the real-Xen tests know about a booted laboratory: guests, their lines, what they leave.

`Host` is one booted laboratory, `Guest` one domain of it as an xl user has it. Nothing here asks
dom0 repeatedly for what can be waited for: guests' lines are read from Xen's console, which is a
file on this machine, and everything else comes from commands that block.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dm.errors import HostError
from tools.prototype.guest_build import build_guest
from tools.xenlab import Command, Lab, Result

__all__ = ["COMMON", "GUESTS", "IOREQD", "Guest", "Host", "XenLog", "build_firmware"]

COMMON = Path(__file__).parent
GUESTS = COMMON / "guests"
IOREQD = "/usr/local/bin/ioreqd-dm"

_GUEST_LINE = re.compile(r"\(d(\d+)\) (?:\[[^]]*\] )?(.*)")
_LOOK = 0.02


def build_firmware(source: Path, target: Path, defines: Mapping[str, int] = {}) -> None:
    """Compile the guest ``source`` to the ELF file ``target``, with a macro per define."""
    build_guest(source, target, defines, [GUESTS], warnings=True)


def _run(arguments: Sequence[str]) -> None:
    import sys

    words = [sys.executable if word == "python" else word for word in arguments]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, f"{shlex.join(words)}:\n{done.stdout}{done.stderr}"


class XenLog:
    """Xen's console, read as it grows: the lines of each domain, in order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._rest = ""
        self._lines: dict[int, list[str]] = {}

    def lines(self, domid: int) -> list[str]:
        """What domain ``domid`` has printed so far."""
        self._read()
        return self._lines.setdefault(domid, [])

    def newest(self) -> int:
        """The highest domid that has printed anything."""
        self._read()
        return max((domid for domid, lines in self._lines.items() if lines), default=0)

    def _read(self) -> None:
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        self._offset += len(data)
        *whole, self._rest = (self._rest + data.decode("latin-1")).split("\n")
        for line in whole:
            match = _GUEST_LINE.search(line.rstrip("\r"))
            if match is not None:
                self._lines.setdefault(int(match[1]), []).append(match[2])


class Host:
    """A booted laboratory of one Xen release, with the project's wheel installed in its dom0."""

    def __init__(self, lab: Lab, release: str) -> None:
        self.lab = lab
        self.release = release
        self.share = lab.share
        self.log = XenLog(lab.logs / "xen.log")
        self.guests: list[Guest] = []
        self.history: list[str] = []
        self._serial = 0

    def run(
        self, command: str | Sequence[str], *, timeout: float = 60.0, check: bool = True
    ) -> Result:
        """Run a command in dom0; with ``check`` it must succeed."""
        text = command if isinstance(command, str) else shlex.join(command)
        result = self.lab.run(command, timeout=timeout)
        self.history.append(f"$ {text}  [{result.status}, {result.seconds:.1f} s]\n{result.output}")
        assert not check or result.status == 0, f"{text}: {result.status}\n{result.output}"
        return result

    def xl(self, *words: str, timeout: float = 60.0, check: bool = True) -> Result:
        """Run ``xl`` in dom0."""
        return self.run(["xl", *words], timeout=timeout, check=check)

    def firmware(self, name: str, **defines: int) -> str:
        """Compile tests/xen/guests/``name``.c; gives the ELF file's path in dom0."""
        suffix = "".join(f"-{key}-{value}" for key, value in sorted(defines.items()))
        target = self.share / f"{name}{suffix}.elf"
        if not target.exists():
            build_firmware(GUESTS / f"{name}.c", target, defines)
        return f"/share/{target.name}"

    def provide(self, path: Path) -> str:
        """Copy a file of the tests to the share; gives its path in dom0."""
        shutil.copyfile(path, self.share / path.name)
        return f"/share/{path.name}"

    def unique(self, stem: str) -> str:
        """A domain name that no other guest of this laboratory has."""
        self._serial += 1
        return f"{stem}{self._serial}"

    def dom0_python(self, name: str, *arguments: str, check: bool = True) -> Result:
        """Run tests/xen/dom0/``name``.py in dom0."""
        script = self.provide(COMMON / "dom0" / f"{name}.py")
        return self.run(["python3", script, *arguments], check=check)

    def servers(self, domid: int) -> list[int]:
        """The ids of the ioreq servers of a domain."""
        return [int(word) for word in self.dom0_python("servers", str(domid)).stdout.split()]

    def residue(self) -> list[str]:
        """Everything in dom0 that exists for some guest: files, nodes, processes, domains."""
        return sorted(self.dom0_python("residue").stdout.splitlines())

    def wait_residue(
        self,
        expected: list[str],
        timeout: float = 10.0,
        *,
        ignore: Callable[[str], bool] = lambda entry: False,
    ) -> None:
        """Wait until the residue is ``expected``: xl's own daemons end a little after xl does."""
        deadline = time.monotonic() + timeout
        while differing := [e for e in {*self.residue()} ^ {*expected} if not ignore(e)]:
            left = sorted(set(differing) - set(expected))
            gone = sorted(set(differing) & set(expected))
            assert time.monotonic() < deadline, f"left behind: {left}; gone: {gone}"

    def wait_domain(self, domid: int, timeout: float = 30.0) -> None:
        """Wait until a domain with an id of at least ``domid`` has printed something."""
        deadline = time.monotonic() + timeout
        while self.log.newest() < domid:
            assert time.monotonic() < deadline, f"no word from a domain {domid} in {timeout} s"
            time.sleep(_LOOK)

    def evidence(self) -> Iterator[tuple[str, str]]:
        """What a failed test shows: each guest's lines and logs, and the commands that were run."""
        for guest in self.guests:
            yield from guest.evidence()
        yield "commands in dom0", "\n".join(self.history)

    def finish(self) -> None:
        """Destroy what the test has left and forget its guests."""
        for guest in self.guests:
            guest.end()
        self.guests.clear()
        self.history.clear()


@dataclass
class Guest:
    """A domain and its configuration. ``firmware`` replaces hvmloader; None boots SeaBIOS.

    ``extra`` are further lines of xl.cfg; a key that is in the basic lines replaces that line, None
    takes it away. ``model`` is the device model's path, None the toolstack's own QEMU. The
    domain's id follows reboots and restores when `follow` is called.
    """

    host: Host
    name: str
    firmware: str | None = None
    memory: int = 32
    vcpus: int = 1
    model: str | None = IOREQD
    extra: Mapping[str, object] = field(default_factory=dict)
    domid: int = -1
    pids: list[int] = field(default_factory=list)
    _earlier: list[int] = field(default_factory=list)
    _seen: int = 0

    @property
    def config(self) -> str:
        """The text of its xl.cfg."""
        settings: dict[str, object] = {
            "name": self.name,
            "type": "hvm",
            "memory": self.memory,
            "vcpus": self.vcpus,
            "vga": "none",
            "vnc": 0,
            "serial": "pty",
            "on_poweroff": "destroy",
            "on_reboot": "destroy",
            "on_crash": "destroy",
            "on_soft_reset": "soft-reset",
        }
        if self.model is not None:
            settings["device_model_override"] = self.model
        if self.firmware is not None:
            settings["firmware_override"] = self.firmware
        settings.update(self.extra)
        given = {key: value for key, value in settings.items() if value is not None}
        return "".join(f"{key}={_literal(value)}\n" for key, value in given.items())

    @property
    def config_path(self) -> str:
        """Its xl.cfg, as dom0 sees it."""
        return f"/share/{self.name}.cfg"

    @property
    def log_path(self) -> str:
        """The device model's log in dom0."""
        return f"/var/log/xen/qemu-dm-{self.name}.log"

    def create(self, *options: str, timeout: float = 60.0) -> Result:
        """``xl create``; it must succeed. xl's monitor stays, as always, in the background."""
        (self.host.share / f"{self.name}.cfg").write_text(self.config)
        self.host.guests.append(self)
        result = self.host.xl("create", *options, self.config_path, timeout=timeout)
        self.follow()
        return result

    def restore(self, path: str, *options: str, timeout: float = 60.0) -> Result:
        """``xl restore``; the guest goes on under a new domid."""
        result = self.host.xl("restore", *options, path, timeout=timeout)
        self.follow()
        return result

    def save(self, path: str, *options: str, timeout: float = 60.0) -> Result:
        """``xl save``; not to the share, where a page of a guest cannot be written from."""
        return self.host.xl("save", *options, self.name, path, timeout=timeout)

    def destroy(self) -> Result:
        """``xl destroy``; it must succeed."""
        return self.host.xl("destroy", self.name)

    def follow(self) -> int:
        """Look up the present domid of the name, and the device model's process."""
        domid = int(self.host.xl("domid", self.name).stdout)
        if domid != self.domid:
            if self.domid >= 0:
                self._earlier.append(self.domid)
            self.domid, self._seen = domid, 0
        self.pids.append(self.pid)
        return domid

    @property
    def pid(self) -> int:
        """The device model's process id, as the toolstack has it."""
        path = f"/local/domain/{self.domid}/image/device-model-pid"
        return int(self.host.run(["xenstore-read", path]).stdout)

    def lines(self) -> list[str]:
        """What it has printed under its present domid."""
        return self.host.log.lines(self.domid)

    def wait_for(self, pattern: str, timeout: float = 30.0) -> re.Match[str]:
        """Wait for the next line with ``pattern``; gives the match.

        Lines up to the one that the last call found are passed over. Fails at once when the guest
        prints a line that begins with FAIL.
        """
        expression = re.compile(pattern)
        deadline = time.monotonic() + timeout
        while True:
            for line in self.lines()[self._seen :]:
                self._seen += 1
                match = expression.search(line)
                if match is not None:
                    return match
                assert not line.startswith(("FAIL", "GUEST FAIL")), line
            assert time.monotonic() < deadline, f"no {pattern!r} from {self.name} in {timeout} s"
            time.sleep(_LOOK)

    def wait_pass(self, timeout: float = 60.0) -> None:
        """Wait until the guest says that all its checks were right."""
        self.wait_for(r"^GUEST PASS$", timeout)

    def wait_gone(self, timeout: float = 30.0) -> None:
        """Wait until the domain does not exist any more, by watching xenstore."""
        node = f"/local/domain/{self.domid}"
        # The first event is the watch's own start. The domain may go just before it, unnoticed.
        watch = f"timeout 3 xenstore-watch -n 2 {node} >/dev/null"
        wait = f"while xenstore-exists {node}; do {watch}; done"
        self.host.run(wait, timeout=timeout)

    def serial(self) -> Command:
        """Follow its serial port by ``xl console -t serial``; to be killed by who started it."""
        console = f"EXEC:'xl console -t serial {self.name}',pty,setsid,ctty,raw,echo=0"
        return self.host.lab.start(f'exec socat -u "{console}" STDOUT')

    def log(self) -> str:
        """The device model's log so far."""
        return self.host.run(["cat", self.log_path], check=False).output

    def evidence(self) -> Iterator[tuple[str, str]]:
        """Its lines under all its domids, and the device model's logs."""
        with contextlib.suppress(HostError, AssertionError):
            for domid in [*self._earlier, self.domid]:
                yield f"{self.name} as domain {domid}", "\n".join(self.host.log.lines(domid)[-60:])
            logs = f"tail -n 80 /var/log/xen/*-dm-{self.name}.log* /var/log/xen/xl-{self.name}.log*"
            yield f"logs of {self.name}", self.host.run(logs, check=False).output

    def end(self) -> None:
        """Destroy it if it is still there; also what a reboot has made of it."""
        with contextlib.suppress(HostError, AssertionError):
            self.host.xl("destroy", self.name, check=False)


def _literal(value: object) -> str:
    """A value as xl.cfg has it: numbers, quoted strings, lists of those."""
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_literal(entry) for entry in value) + "]"
    return str(value) if isinstance(value, int) else '"' + str(value) + '"'
