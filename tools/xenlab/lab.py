"""A booted laboratory: one emulated Xen host, and many commands in its dom0."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from dm.errors import ConfigError
from tools.xenlab import agent
from tools.xenlab.command import Command, LabError, OnOutput, Result
from tools.xenlab.emulator import Emulator, Machine
from tools.xenlab.image import Progress, build
from tools.xenlab.needs import require_tools
from tools.xenlab.release import DEFAULT_XEN, find_release
from tools.xenlab.wheel import install_wheels

__all__ = ["Lab", "run"]

_BOOT_TIMEOUT = 180.0
_LOG_TIMEOUT = 30.0
_TAIL = 12
_POLL = 0.05


class Lab:
    """An emulated Xen host. As a context manager it boots once and runs many commands in dom0::

        with Lab(xen="4.17", install=[wheel]) as lab:
            lab.run("xl info").check()

    ``cpus``, ``dom0_vcpus`` and ``memory`` (MiB) describe the machine. ``share`` is the folder that
    dom0 has as /share, read-write, and where commands start; without it there is a temporary one,
    removed at the end. ``install`` lists pure Python wheels to install in dom0's /usr/local.
    ``progress`` gets a line per step of building and booting. The folder .lab of the share holds
    xen.log (Xen, hvmloader, what guests write to port 0xe9) and, after the end, log/ (dom0's
    /var/log/xen).
    """

    def __init__(
        self,
        *,
        xen: str = DEFAULT_XEN,
        cpus: int = 1,
        dom0_vcpus: int = 1,
        memory: int = 1536,
        share: Path | None = None,
        install: Sequence[Path] = (),
        boot_timeout: float = _BOOT_TIMEOUT,
        progress: Progress = lambda line: None,
    ) -> None:
        self._release = find_release(xen)
        self._machine = Machine(cpus, dom0_vcpus, memory)
        self._machine.check()
        if share is not None and not share.is_dir():
            raise ConfigError(f"--share {share}: not a folder")
        self._given_share = share
        self._install = [Path(wheel) for wheel in install]
        self._boot_timeout = boot_timeout
        self._progress = progress
        self._emulator: Emulator | None = None
        self._lock = threading.Lock()
        self._commands: dict[int, Command] = {}
        self._next = 1
        self._ready = threading.Event()
        self._dead: str | None = None
        self._share: Path | None = None

    @property
    def share(self) -> Path:
        """The folder on this machine that is /share in dom0."""
        if self._share is None:
            raise LabError("the laboratory is not booted")
        return self._share

    @property
    def logs(self) -> Path:
        """The folder of the laboratory's own files: xen.log, qemu.log and, after the end, log/."""
        return self.share / ".lab"

    def __enter__(self) -> Lab:
        """Build what is missing and boot; see ``boot``."""
        self.boot()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the machine; an interrupt does not wait for dom0's logs."""
        self.close(collect=not isinstance(error, KeyboardInterrupt | SystemExit | LabError))

    def boot(self) -> None:
        """Build what is missing, start the machine and wait until dom0 is up.

        Raises ConfigError for what the user can mend and LabError, with the end of the logs, if
        dom0 does not come up.
        """
        image = build(self._release, self._progress)
        require_tools(["qemu-system-x86_64", "setpriv"])
        disk = install_wheels(image, self._install, self._progress)
        self._share = (
            self._given_share.resolve()
            if self._given_share is not None
            else Path(tempfile.mkdtemp(prefix="ioreqd-lab-"))
        )
        try:
            shutil.rmtree(self.logs, ignore_errors=True)
            self.logs.mkdir()
            self._emulator = Emulator(image.folder, self._machine, self._share, self.logs, disk)
            reader = threading.Thread(target=self._read, name="xenlab-agent", daemon=True)
            reader.start()
            in_time = self._ready.wait(self._boot_timeout)
            if self._dead is not None or not in_time:
                raise self._error(self._dead or f"no dom0 after {self._boot_timeout:.0f} s")
        except BaseException:
            self.close(collect=False)
            raise
        self._progress(f"dom0 of Xen {self._release.xen} is up")

    def close(self, *, collect: bool = True) -> None:
        """Stop the machine. With ``collect``, dom0's /var/log/xen is copied to .lab/log first."""
        if self._emulator is not None:
            if collect and self._dead is None:
                with contextlib.suppress(LabError):
                    self.collect_logs()
            self._emulator.stop()
            self._emulator = None
        if self._share is not None and self._given_share is None:
            shutil.rmtree(self._share, ignore_errors=True)

    def collect_logs(self) -> None:
        """Copy dom0's /var/log/xen, as it is now, to .lab/log."""
        self.run("mkdir -p .lab/log && cp -r /var/log/xen/. .lab/log/", timeout=_LOG_TIMEOUT)

    def start(self, command: str | Sequence[str]) -> Command:
        """Start a command in dom0 as root, in /share, and return at once.

        A string is text for bash, a sequence is one program with its arguments. Several commands
        may run at the same time. Raises LabError if the laboratory has ended.
        """
        text = command if isinstance(command, str) else shlex.join(command)
        share = self.share
        with self._lock:
            if self._dead is not None:
                raise self._error(self._dead)
            started = Command(self._next, self._send, share)
            self._commands[self._next] = started
            self._next += 1
        self._send(agent.pack(agent.START, started.ident, text.encode()))
        return started

    def run(
        self,
        command: str | Sequence[str],
        *,
        timeout: float = 300.0,
        on_output: OnOutput | None = None,
    ) -> Result:
        """Run a command in dom0 to its end: ``start``, then ``Command.wait``."""
        return self.start(command).wait(timeout, on_output)

    def xen_log(self) -> str:
        """Return what Xen, hvmloader and the guests' port 0xe9 have written so far."""
        try:
            text = (self.logs / "xen.log").read_bytes().decode(errors="replace")
        except FileNotFoundError:
            return ""
        return text.replace("\r", "")

    def wait_log(self, pattern: str, timeout: float, *, start: int = 0) -> re.Match[str]:
        """Wait until xen.log, from character ``start`` on, contains ``pattern``; return the match.

        It reads the file on this machine, so dom0 spends nothing on the wait. Raises TimeoutError
        after ``timeout`` seconds.
        """
        expression = re.compile(pattern)
        deadline = time.monotonic() + timeout
        while True:
            match = expression.search(self.xen_log(), start)
            if match is not None:
                return match
            if self._dead is not None:
                raise self._error(self._dead)
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {pattern!r} in xen.log after {timeout:.0f} s")
            time.sleep(_POLL)

    def _send(self, frame: bytes) -> None:
        emulator = self._emulator
        try:
            if emulator is None:
                raise LabError("the laboratory is not booted")
            with self._lock:
                emulator.port.sendall(frame)
        except OSError:
            raise self._error("the emulator ended") from None

    def _read(self) -> None:
        """Hand the agent's frames to their commands until the port closes."""
        assert self._emulator is not None
        splitter = agent.Splitter()
        reason = "the emulator ended"
        try:
            while data := self._emulator.port.recv(1 << 16):
                for kind, ident, payload in splitter.feed(data):
                    self._dispatch(kind, ident, payload)
        except OSError:
            pass
        except agent.FrameError as error:
            reason = f"dom0's agent: {error}"
        with self._lock:
            self._dead = reason
            commands = list(self._commands.values())
        for command in commands:
            command.fail(str(self._error(reason)))
        self._ready.set()

    def _dispatch(self, kind: int, ident: int, payload: bytes) -> None:
        if kind == agent.READY:
            self._ready.set()
            return
        with self._lock:
            command = self._commands.get(ident)
            if kind == agent.EXIT:
                self._commands.pop(ident, None)
        if command is None:
            raise agent.FrameError(f"a frame for command {ident}, which does not run")
        command.feed(kind, payload)

    def _error(self, reason: str) -> LabError:
        """Return the error that says ``reason`` and shows the end of the logs."""
        lines = [f"the laboratory failed: {reason}"]
        for name in ("qemu.log", "xen.log"):
            with contextlib.suppress(OSError, LabError):
                text = (self.logs / name).read_text(errors="replace")
                written = [line for line in text.splitlines() if line]
                lines += [f"{name}: {line}" for line in written[-_TAIL:]]
        return LabError("\n".join(lines))


def run(
    command: str | Sequence[str],
    *,
    xen: str = DEFAULT_XEN,
    cpus: int = 1,
    dom0_vcpus: int = 1,
    memory: int = 1536,
    share: Path | None = None,
    install: Sequence[Path] = (),
    timeout: float = 300.0,
    on_output: OnOutput | None = None,
    progress: Progress = lambda line: None,
) -> Result:
    """Boot a laboratory, run one command in its dom0 and stop it.

    The parameters are those of ``Lab`` and of ``Lab.run``.
    """
    with Lab(
        xen=xen,
        cpus=cpus,
        dom0_vcpus=dom0_vcpus,
        memory=memory,
        share=share,
        install=install,
        progress=progress,
    ) as lab:
        return lab.run(command, timeout=timeout, on_output=on_output)
