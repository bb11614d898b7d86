"""Stop on error: a debugger at a terminal, a traceback elsewhere, and the guest goes on."""

from __future__ import annotations

import builtins
import io
import os
import pty
import termios
from collections.abc import Iterator
from typing import TextIO

import pytest

from dm import Bank, Device, HostError, MmioWindow, PortWindow, Register
from dm.observe.debugger import Debugger
from dm.observe.machine import ObservedMachine
from dm.server.server import IoreqServer
from tests.unit.server.fake_xen import INPROCESS, READ, Domain, FakeXen

PORTS = 0x300


class Ports(Bank, size=4, width=8):
    fault = Register.at(0)
    fine = Register.at(1, reset=0x12)


class Faulty(Device):
    ports = PortWindow(Ports, at=PORTS)
    window = MmioWindow(Ports, at=0xF000_0000)

    @Ports.fault.on_read
    def _fault(self) -> int:
        distance = 0
        return 7 // distance


class Rig:
    """A faulty device behind an ioreq server, stopped on errors."""

    def __init__(self, source: TextIO) -> None:
        self.said = io.StringIO()
        self.domain = Domain()
        self.xen = FakeXen(self.domain)
        debugger = Debugger(source, self.said)
        self.machine = ObservedMachine(
            "test", self.xen, self.xen.memory, lambda: 0, [], debugger.failed
        )
        self.machine.add(Faulty("faulty"))
        self.machine.seal()
        self.server = IoreqServer(self.xen, self.machine, lambda seconds: None)
        self.server.open()
        self.machine.connect()
        self.machine.start()

    def read(self, address: int) -> int | None:
        owner = self.domain.servers[self.server.id]
        assert self.domain.send(owner, 0, kind=0, flags=READ, address=address, count=1, size=1)
        self.server.serve(0)
        return self.domain.answer(owner, 0)


@pytest.fixture
def terminal() -> Iterator[tuple[int, TextIO]]:
    master, slave = pty.openpty()
    with open(slave, encoding="utf-8", closefd=True) as source:
        yield master, source
    os.close(master)


def test_elsewhere_a_traceback_with_the_request_is_printed_and_all_goes_on() -> None:
    rig = Rig(io.StringIO())
    assert rig.read(PORTS) == 0xFF
    said = rig.said.getvalue()
    assert "return 7 // distance" in said
    assert "ZeroDivisionError" in said
    assert "request: <faulty ports.fault, read8 at port 0x300>" in said
    assert rig.read(PORTS + 1) == 0x12
    assert rig.machine.errors == 1


def test_at_a_terminal_a_debugger_stands_at_the_failing_frame(
    terminal: tuple[int, TextIO],
) -> None:
    master, source = terminal
    rig = Rig(source)
    os.write(master, b"p distance, 6 * 7\np request.register, hex(request.address)\ncontinue\n")
    assert rig.read(PORTS) == 0xFF
    said = rig.said.getvalue()
    assert "(0, 42)" in said
    assert "('ports.fault', '0x300')" in said
    assert rig.read(PORTS + 1) == 0x12


def test_the_guest_waits_until_the_debugger_is_left(terminal: tuple[int, TextIO]) -> None:
    master, source = terminal
    rig = Rig(source)
    states = []

    def said(text: str) -> int:
        states.append(rig.domain.servers[rig.server.id].state(0))
        return len(text)

    rig.said.write = said  # type: ignore[method-assign]
    os.write(master, b"q\n")
    rig.read(PORTS)
    assert states
    assert set(states) == {INPROCESS}


def test_the_terminal_is_as_before_afterwards(terminal: tuple[int, TextIO]) -> None:
    master, source = terminal
    fd = source.fileno()
    mode = termios.tcgetattr(fd)
    mode[3] &= ~(termios.ICANON | termios.ECHO)
    termios.tcsetattr(fd, termios.TCSANOW, mode)
    mode = termios.tcgetattr(fd)
    os.set_blocking(fd, False)
    rig = Rig(source)
    os.write(master, b"continue\n")
    rig.read(PORTS)
    assert termios.tcgetattr(fd) == mode
    assert not os.get_blocking(fd)
    assert not hasattr(builtins, "request")


def test_a_failure_of_the_hosts_is_not_a_devices() -> None:
    rig = Rig(io.StringIO())
    rig.machine.contain(HostError("no"), "claim")
    assert not rig.said.getvalue()
    assert rig.machine.errors == 1
