"""The program that QEMU's qtest clients launch in QEMU's place: both sides of a machine at once.

This process is the stand-alone hypervisor, with the chips that Xen keeps for itself; a device model
beside it has the rest of the command line, and serves QMP. No vCPU runs: all accesses are the
client's, and time is virtual.

Facts: QEMU 7.2, tests/qtest/libqtest.c (qtest_init_without_qmp_handshake) for how a target is
launched and ended, hw/i386/pc_piix.c for where RAM ends.
"""

from __future__ import annotations

import datetime
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from types import FrameType
from typing import TYPE_CHECKING, TextIO

from dm.control.argv import Options, parse
from dm.control.argv_chardev import from_short
from dm.errors import ConfigError, HostError
from protocol import layouts
from tools.hypervisor.chips.board import Board
from tools.hypervisor.clock import VirtualClock
from tools.hypervisor.engines.qtest import QtestEngine, QtestServer
from tools.hypervisor.errors import DomainEnded
from tools.hypervisor.hypervisor import Hypervisor

if TYPE_CHECKING:
    from dm.host.chardev import ChardevSpec
    from tools.hypervisor.domain import Domain

__all__ = ["QtestTarget", "main"]

OWN_OPTIONS = ("qtest", "qtest-log", "accel")
"""With one argument each; the device model does not get them."""
LOW_RAM_END = 0xE000_0000
"""The machine's PCI hole begins here, as QEMU's does; RAM that is left goes above 4 GiB."""
VGA_HOLE = (0xA0000, 0xC0000)
PATIENCE = 30.0
"""Seconds until the device model must say `running`, or end after a signal."""
SECOND = 1_000_000_000


class QtestTarget:
    """One run. ``words``: the argument vector as for QEMU, without its first element."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words
        self._child: subprocess.Popen[bytes] | None = None
        self._child_status: int | None = None
        self._changed = threading.Event()
        self._closing = False

    def run(self) -> int:
        """Serve the client until it goes; gives the exit status.

        Raises ConfigError for what the user can put right, HostError for what this host refuses.
        """
        own, rest = _split(self._words)
        try:
            options = parse(rest)
            epoch = _epoch(options.rtc.get("base", "utc"))
            connection = _connected(own.get("qtest"))
        except ConfigError:
            _release_client(rest, own.get("qtest"))
            raise
        folder = tempfile.mkdtemp(prefix="ioreqd-qtest-")
        hypervisor = Hypervisor(os.path.join(folder, "xen"))
        try:
            with connection:
                domain = self._make_domain(hypervisor, options, epoch)
                self._start_child(hypervisor, domain, options, rest, connection)
                if not self._await_running(hypervisor, domain):
                    _release_client(rest, None)
                    return self._child_status or 1
                return self._serve(domain, connection, own.get("qtest-log"))
        finally:
            self._closing = True
            self._end_child()
            hypervisor.close()
            shutil.rmtree(folder, ignore_errors=True)

    def _make_domain(self, hypervisor: Hypervisor, options: Options, epoch: int) -> Domain:
        domain = hypervisor.create_domain(
            vcpus=options.cpus,
            max_vcpus=options.maxcpus,
            ram=_ram(options.memory_mb << 20),
            clock=VirtualClock(),
        )
        if options.machine.get("type", "pc") != "none":
            _reset_on_reboot(domain, Board(domain, epoch=epoch))
        hypervisor.start()
        return domain

    def _serve(self, domain: Domain, connection: socket.socket, log: str | None) -> int:
        try:
            with _opened(log) as file:
                QtestServer(QtestEngine(domain), connection, file).serve()
        except DomainEnded as error:
            if domain.crash_message is not None:
                raise HostError(f"the domain crashed: {error}") from None
        if self._child_status:
            raise HostError(f"the device model ended with status {self._child_status}")
        return 0

    def _start_child(
        self,
        hypervisor: Hypervisor,
        domain: Domain,
        options: Options,
        rest: list[str],
        connection: socket.socket,
    ) -> None:
        machine = f"type={options.machine.get('type', 'pc')},max-ram-below-4g={LOW_RAM_END:#x}"
        words = [sys.executable, "-m", "dm.control.main", *rest, "-machine", machine]
        if not {"serial", "nodefaults"} & {name for name, _ in options.given}:
            words += ["-serial", "null"]
        words += ["-accel", f"local,path={hypervisor.path},domid={domain.domid},reboot=reset"]
        # The client may have passed descriptors for devices; this process's own are not inherited.
        self._child = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            close_fds=False,
            env={**os.environ, "PYTHONSAFEPATH": "1"},
        )

        def wait(child: subprocess.Popen[bytes]) -> None:
            self._child_status = child.wait()
            self._changed.set()
            if not self._closing:
                domain.destroy()
                _shut(connection)

        threading.Thread(target=wait, args=(self._child,), daemon=True).start()

    def _await_running(self, hypervisor: Hypervisor, domain: Domain) -> bool:
        """Whether the device model came up; it has said on its standard error why not."""
        path = f"/local/domain/0/device-model/{domain.domid}/state"

        def look(_: str) -> None:
            if hypervisor.store.read(path) == "running":
                self._changed.set()

        stop = hypervisor.store.watch(path, look)
        try:
            if not self._changed.wait(PATIENCE):
                raise HostError(f"the device model is not ready after {PATIENCE:.0f} s")
        finally:
            stop()
        return self._child_status is None

    def _end_child(self) -> None:
        child = self._child
        if child is None:
            return
        child.terminate()
        try:
            child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _split(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The options that are this program's own, and the words for the device model.

    ``-S`` goes to nobody: a qtest client's accesses are answered while QEMU's machine is stopped.
    """
    own: dict[str, str] = {}
    rest: list[str] = []
    remaining = iter(words)
    for word in remaining:
        name = word.lstrip("-") if word.startswith("-") else ""
        if name in OWN_OPTIONS:
            own[name] = next(remaining, "")
        elif word not in ("-S", "--S"):
            rest.append(word)
    return own, rest


def _connected(text: str | None) -> socket.socket:
    """The client's end of ``-qtest``. ConfigError: it cannot be had."""
    if text is None:
        raise ConfigError("-qtest is missing; this program serves QEMU's qtest clients")
    spec = from_short("-qtest", "qtest", text, [])
    if spec is None or spec.backend != "socket" or spec.on("server"):
        raise ConfigError(f"-qtest {text}: a socket to connect to is needed, as in unix:PATH")
    return _connection(spec)


def _connection(spec: ChardevSpec) -> socket.socket:
    from dm.host.sockets import connect

    try:
        found = socket.socket(fileno=connect(spec).detach())
    except OSError as error:
        raise ConfigError(f"{spec.origin}: {error.strerror or error}") from None
    found.settimeout(None)
    return found


def _release_client(rest: list[str], qtest: str | None) -> None:
    """Connect to where a client still waits for a program that will not come, and leave.

    A client waits for a minute for connections that are not made.
    """
    from dm.control.argv_chardev import from_chardev

    specs = []
    for option, text in (("-qtest", qtest or "none"), *pairwise(rest)):
        try:
            if option == "-qtest":
                specs.append(from_short(option, "qtest", text, []))
            elif option.lstrip("-") == "chardev":
                specs.append(from_chardev(text, []))
        except ConfigError:
            continue
    for spec in specs:
        if spec is not None and spec.backend == "socket" and not spec.on("server"):
            try:
                _connection(spec).close()
            except ConfigError:
                continue


def _ram(size: int) -> list[tuple[int, int]]:
    """Where RAM of ``size`` bytes is: not where VGA and PCI devices are."""
    first, last = VGA_HOLE
    low = max(min(size, LOW_RAM_END), last + layouts.IOREQ_PAGE_SIZE)
    regions = [(0, first), (last, low - last)]
    if size > low:
        regions.append((1 << 32, size - low))
    return regions


def _epoch(base: str) -> int:
    """What ``-rtc base=`` makes the clock begin with, in nanoseconds since 1970; ConfigError."""
    now = time.time_ns()
    if base == "utc":
        return now
    if base == "localtime":
        return now + time.localtime().tm_gmtoff * SECOND
    try:
        begin = datetime.datetime.fromisoformat(base).replace(tzinfo=datetime.UTC)
    except ValueError:
        wanted = "utc, localtime or a date as 2006-06-17T16:01:21"
        raise ConfigError(f"-rtc base={base}: {wanted}") from None
    return int(begin.timestamp()) * SECOND


def _reset_on_reboot(domain: Domain, board: Board) -> None:
    """Have a reset of the platform reset the chips instead of ending the domain.

    The clock's registers go on, as those of a real one do.
    """
    fresh = board.save()

    def reset() -> None:
        with domain.lock:
            shift = domain.clock.now() - fresh["now"]
            for name in ("pic", "pit", "ioapic"):
                getattr(board, name).load(fresh[name], shift)
            for lapic, state in zip(board.lapics, fresh["lapics"], strict=True):
                lapic.load(state, shift)
            board.after_load()
            domain.interrupts.sink = board

    domain.on_reboot = reset


def _opened(log: str | None) -> AbstractContextManager[TextIO | None]:
    """The file that the exchange is written to, None for nowhere."""
    if log in (None, "/dev/null", "none"):
        return nullcontext()
    try:
        return open(str(log), "w", buffering=1, encoding="latin-1")
    except OSError as error:
        raise ConfigError(f"-qtest-log {log}: {error.strerror}") from None


def _shut(connection: socket.socket) -> None:
    """Have whoever reads from ``connection`` see its end."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


def main() -> int:
    """Run the target until it is told to end; gives the exit status."""
    signal.signal(signal.SIGTERM, _end)
    try:
        return QtestTarget(sys.argv[1:]).run()
    except ConfigError as error:
        status = 2
        message = str(error)
    except HostError as error:
        status = 1
        message = str(error)
    sys.stderr.write(f"ioreqd-system-x86_64: {message}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
