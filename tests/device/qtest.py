"""QEMU as an oracle: a client for the qtest protocol of a stopped qemu-system-x86_64.

No vCPU runs and guest time stands still: every access is the client's. A differential test sends
one sequence of accesses to QEMU's device and to ours and compares the answers.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import IO, Any, NamedTuple

import pytest

from tests.closing import Closing

BINARY = "qemu-system-x86_64"
PORT_COMMANDS = {1: "b", 2: "w", 4: "l"}
MEMORY_COMMANDS = {1: "b", 2: "w", 4: "l", 8: "q"}

BATCH_BYTES = 60_000
"""Bytes of requests that may be under way at once; a pipe holds 65,536."""

StartQemu = Callable[..., "Qtest"]


class Answer(NamedTuple):
    """What follows ``OK``, and the changes of intercepted inputs, (number, level), before it."""

    text: str
    changes: list[tuple[int, int]]


class Qtest(Closing):
    """A QEMU of machine type pc with ``arguments``, talked to over its qtest interface.

    ``pass_fds``: descriptors that QEMU inherits (``-chardev socket,fd=N``). ``irqs`` holds the
    levels seen on the intercepted interrupt inputs, ``changes`` every change in order (but those
    of `batch`, which are with its answers).
    """

    def __init__(self, *arguments: str, pass_fds: Sequence[int] = ()) -> None:
        binary = shutil.which(BINARY)
        if binary is None:
            pytest.skip(f"{BINARY} is not installed")
        command = [
            binary,
            "-machine",
            "pc",
            "-accel",
            "tcg",
            "-S",
            "-nodefaults",
            "-no-user-config",
        ]
        command += ["-m", "16", "-display", "none", "-qtest", "stdio", "-qtest-log", "/dev/null"]
        self._process = subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=pass_fds,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input: IO[bytes] = self._process.stdin
        self._output: IO[bytes] = self._process.stdout
        self.irqs: dict[int, int] = {}
        self.changes: list[tuple[int, int]] = []

    def command(self, text: str) -> str:
        """Send one request; what follows ``OK`` in the answer."""
        answer = self.batch([text])[0]
        self.changes += answer.changes
        return answer.text

    def batch(self, lines: Sequence[str]) -> list[Answer]:
        """Send all of ``lines`` in one write; the answer to each, in order.

        More than `BATCH_BYTES` are refused, for then both sides may wait for each other.
        """
        data = "\n".join(lines).encode() + b"\n"
        assert len(lines) == 1 or len(data) <= BATCH_BYTES, "too much at once"
        self._input.write(data)
        self._input.flush()
        return [self._answer(line) for line in lines]

    def _answer(self, request: str) -> Answer:
        changes: list[tuple[int, int]] = []
        while True:
            words = self._output.readline().decode().split(None, 1)
            if words and words[0] == "OK":
                return Answer(words[1].strip() if len(words) > 1 else "", changes)
            if not words or words[0] != "IRQ":
                raise AssertionError(f"{request!r} was answered with {words}")
            change, number = words[1].split()
            changes.append((int(number), int(change == "raise")))
            self.irqs[int(number)] = int(change == "raise")

    def in_(self, port: int, size: int = 1) -> int:
        """IN of ``size`` bytes."""
        return int(self.command(f"in{PORT_COMMANDS[size]} {port:#x}"), 0)

    def out(self, port: int, value: int, size: int = 1) -> None:
        """OUT of ``size`` bytes."""
        self.command(f"out{PORT_COMMANDS[size]} {port:#x} {value:#x}")

    def inb(self, port: int) -> int:
        return self.in_(port, 1)

    def inw(self, port: int) -> int:
        return self.in_(port, 2)

    def inl(self, port: int) -> int:
        return self.in_(port, 4)

    def outb(self, port: int, value: int) -> None:
        self.out(port, value, 1)

    def outw(self, port: int, value: int) -> None:
        self.out(port, value, 2)

    def outl(self, port: int, value: int) -> None:
        self.out(port, value, 4)

    def load(self, gpa: int, size: int = 4) -> int:
        """A load of ``size`` bytes."""
        return int(self.command(f"read{MEMORY_COMMANDS[size]} {gpa:#x}"), 0)

    def store(self, gpa: int, value: int, size: int = 4) -> None:
        """A store of ``size`` bytes."""
        self.command(f"write{MEMORY_COMMANDS[size]} {gpa:#x} {value:#x}")

    def readb(self, gpa: int) -> int:
        return self.load(gpa, 1)

    def readw(self, gpa: int) -> int:
        return self.load(gpa, 2)

    def readl(self, gpa: int) -> int:
        return self.load(gpa, 4)

    def readq(self, gpa: int) -> int:
        return self.load(gpa, 8)

    def writeb(self, gpa: int, value: int) -> None:
        self.store(gpa, value, 1)

    def writew(self, gpa: int, value: int) -> None:
        self.store(gpa, value, 2)

    def writel(self, gpa: int, value: int) -> None:
        self.store(gpa, value, 4)

    def writeq(self, gpa: int, value: int) -> None:
        self.store(gpa, value, 8)

    def read(self, gpa: int, length: int) -> bytes:
        """``length`` bytes of guest memory."""
        return bytes.fromhex(self.command(f"read {gpa:#x} {length:#x}")[2:])

    def write(self, gpa: int, data: bytes) -> None:
        """Store ``data`` in guest memory."""
        self.command(f"write {gpa:#x} {len(data):#x} 0x{data.hex()}")

    def irq_intercept(self) -> None:
        """See the interrupts that reach the I/O APIC (ISA interrupts by their number)."""
        self.command("irq_intercept_in ioapic")

    def config_read(self, devfn: int, register: int, size: int = 4) -> int:
        """Read PCI configuration space of ``devfn`` on bus 0."""
        self.outl(0xCF8, 1 << 31 | devfn << 8 | register & ~3)
        return self.in_(0xCFC + (register & 3), size)

    def config_write(self, devfn: int, register: int, value: int, size: int = 4) -> None:
        """Write PCI configuration space of ``devfn`` on bus 0."""
        self.outl(0xCF8, 1 << 31 | devfn << 8 | register & ~3)
        self.out(0xCFC + (register & 3), value, size)

    def close(self) -> None:
        """End QEMU and wait for it."""
        self._process.kill()
        self._input.close()
        self._output.close()
        self._process.wait()


class Monitor:
    """A QMP connection. ``events`` gathers what was reported, oldest first."""

    def __init__(self, connection: socket.socket) -> None:
        self._stream = connection.makefile("rw")
        self._stream.readline()
        self.events: list[dict[str, Any]] = []
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: object) -> Any:
        """What the command returns; AssertionError when it fails."""
        self._stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._stream.flush()
        while "return" not in (answer := json.loads(self._stream.readline())):
            assert "event" in answer, answer
            self.events.append(answer)
        return answer["return"]


StartMonitored = Callable[..., tuple[Qtest, Monitor]]


@pytest.fixture
def monitored(qemu: StartQemu) -> Iterator[StartMonitored]:
    """As `qemu`, but gives the `Qtest` and a `Monitor`."""
    with ExitStack() as ends:

        def start(*arguments: str) -> tuple[Qtest, Monitor]:
            ours, theirs = socket.socketpair()
            ends.enter_context(ours)
            with theirs:
                chardev = f"socket,id=monitor,fd={theirs.fileno()}"
                options = ("-chardev", chardev, "-mon", "chardev=monitor,mode=control")
                other = qemu(*options, *arguments, pass_fds=(theirs.fileno(),))
            return other, Monitor(ours)

        yield start


@pytest.fixture
def qemu() -> Iterator[StartQemu]:
    """``qemu(*arguments, pass_fds=())`` starts a `Qtest`, which ends with the test."""
    started: list[Qtest] = []

    def start(*arguments: str, pass_fds: Sequence[int] = ()) -> Qtest:
        started.append(Qtest(*arguments, pass_fds=pass_fds))
        return started[-1]

    yield start
    for each in started:
        each.close()
