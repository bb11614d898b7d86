"""Time that the hypervisor moves, from the page to the devices' timers."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from dm import Bank, Device, PortWindow, Register, Timer, Transient
from dm.control.argv import parse
from dm.control.process import DeviceModel
from dm.hypervisor.local.clock import LocalClock
from dm.hypervisor.local.hypervisor import LocalHypervisor
from dm.machine.fakes import FakeMemory, FakePlatform
from dm.machine.machine import Machine
from dm.machine.survivor import seal_over
from dm.server.polling import PollWindow
from dm.server.service import Service
from dm.server.virtual import VirtualLoop

from .peer import Peer

NEVER = (1 << 64) - 1
PAGE_FORMAT = "<QQQQ"


class AlarmPorts(Bank, size=4, width=32):
    delay = Register.at(0)


class Alarm(Device):
    """Writing a delay in nanoseconds starts a timer that notes when it fires."""

    ports = PortWindow(AlarmPorts, at=0x400)
    timer = Timer()
    again = Transient()
    fired = Transient()

    def on_reset(self) -> None:
        self.fired = []
        self.again = 0

    @AlarmPorts.delay.on_write
    def _start(self, new: int, old: int) -> None:
        self.timer.start_in(new)

    @timer.expired
    def _fire(self) -> None:
        self.fired.append(self.now())
        if self.again:
            self.again -= 1
            self.timer.start_in(0)


class Server:
    """What the clock asks of the ioreq server."""

    def __init__(self) -> None:
        self.paused = False
        self.drained = 0

    def drain(self) -> None:
        self.drained += 1


class Stage:
    """A machine on a clock that the test moves."""

    def __init__(self, path: Path) -> None:
        self.peer = Peer(path, virtual=True)
        self.hypervisor = LocalHypervisor(str(path))
        assert self.hypervisor.clock is not None
        self.clock: LocalClock = self.hypervisor.clock
        self.loop = VirtualLoop(self.clock)
        self.server = Server()
        self.machine = Machine("test", FakePlatform(), FakeMemory(4096), self.loop.now)
        self.alarm = Alarm("alarm")
        self.machine.add(self.alarm)
        self.machine.seal()
        self.machine.start()
        Service(
            self.loop,
            self.hypervisor,
            self.machine,
            self.server,  # type: ignore[arg-type] # as much of one as the clock asks for
            PollWindow(2, 0),
        )
        self.asked = 0

    def move(self, now: int) -> int:
        """Set the time and ask; gives the deadline that comes next."""
        self.asked += 1
        os.pwrite(self.peer.clock_page, struct.pack("<QQ", now, self.asked), 0)
        os.eventfd_write(self.peer.question, 1)
        self.loop.run_once(10)
        assert os.eventfd_read(self.peer.done) == 1
        page = struct.unpack(PAGE_FORMAT, os.pread(self.peer.clock_page, 32, 0))
        assert page[:3] == (now, self.asked, self.asked)
        deadline: int = page[3]
        return deadline

    def close(self) -> None:
        self.hypervisor.close()
        self.loop.close()
        self.peer.close()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path / "socket")
    yield made
    made.close()


def test_time_is_what_the_page_says(stage: Stage) -> None:
    assert stage.move(0) == NEVER
    assert stage.move(1234) == NEVER
    assert stage.loop.now() == stage.machine.clock.now() == 1234


def test_a_timer_fires_at_its_deadline_exactly(stage: Stage) -> None:
    stage.move(500)
    stage.alarm.timer.start_in(100_000_000)
    assert stage.move(500) == 100_000_500
    assert stage.move(100_000_499) == 100_000_500
    assert stage.alarm.fired == []
    assert stage.move(100_000_500) == NEVER
    assert stage.alarm.fired == [100_000_500]


def test_what_a_timer_starts_at_the_same_time_fires_at_the_same_time(stage: Stage) -> None:
    stage.alarm.again = 3
    stage.alarm.timer.start_in(10)
    assert stage.move(10) == NEVER
    assert stage.alarm.fired == [10] * 4


def test_a_timer_that_is_always_due_does_not_hold_time_up(stage: Stage) -> None:
    stage.alarm.again = 1 << 30
    stage.alarm.timer.start_in(10)
    assert stage.move(10) > 10
    assert len(stage.alarm.fired) < 100


def test_calls_of_the_loop_are_due_by_the_same_time(stage: Stage) -> None:
    made: list[int] = []
    stage.loop.call_at(70, lambda: made.append(stage.loop.now()))
    stage.loop.call_at(60, lambda: made.append(0)).cancel()
    assert stage.move(10) == 70
    assert stage.move(70) == NEVER
    assert made == [70]


def test_buffered_writes_come_before_timers_unless_it_is_paused(stage: Stage) -> None:
    stage.move(1)
    assert stage.server.drained == 1
    stage.server.paused = True
    stage.move(2)
    assert stage.server.drained == 1


def test_a_stopped_machine_has_no_deadlines(stage: Stage) -> None:
    stage.alarm.timer.start_in(10)
    stage.machine.stop()
    assert stage.move(100) == NEVER
    stage.machine.start()
    assert stage.move(100) == 110


def test_the_loop_never_sleeps_by_time(stage: Stage) -> None:
    assert stage.loop.timeout() == -1
    stage.loop.call_at(50, lambda: None)
    assert stage.loop.timeout() == -1
    stage.loop.call_at(0, lambda: None)
    assert stage.loop.timeout() == 0


def test_a_spurious_event_is_no_question(stage: Stage) -> None:
    os.eventfd_write(stage.peer.question, 1)
    stage.loop.run_once(10)
    stage.loop.run_once(0)
    with pytest.raises(BlockingIOError):
        os.eventfd_read(stage.peer.done)


@pytest.mark.parametrize("started", [0, 300])
def test_a_successor_goes_on_in_the_domains_time(tmp_path: Path, started: int) -> None:
    now = started

    def machine() -> Machine:
        made = Machine("test", FakePlatform(), FakeMemory(4096), lambda: now)
        made.add(Alarm("alarm"))
        return made

    path = str(tmp_path / "state")
    first = machine()
    seal_over(path, first, inherit=False, now=lambda: now)
    first.start()
    now = started + 1000
    second = machine()
    seal_over(path, second, inherit=True, now=lambda: now)
    assert second.clock.now() == 1000
    third = machine()
    now += 50
    seal_over(path, third, inherit=True, now=lambda: now)
    assert third.clock.now() == 1000


def test_a_device_model_on_virtual_time_answers_its_clock(tmp_path: Path) -> None:
    peer = Peer(tmp_path / "socket", virtual=True)
    hypervisor = LocalHypervisor(str(peer.path))
    assert hypervisor.clock is not None
    loop = VirtualLoop(hypervisor.clock)
    options = parse(["-accel", f"local,path={peer.path}", "-machine", "none"])
    model = DeviceModel(options, loop, hypervisor)
    os.pwrite(peer.clock_page, struct.pack("<QQ", 5, 1), 0)
    os.eventfd_write(peer.question, 1)
    model.server.paused = True
    loop.run_once(10)
    assert struct.unpack(PAGE_FORMAT, os.pread(peer.clock_page, 32, 0)) == (5, 1, 1, NEVER)
    hypervisor.close()
    loop.close()
    peer.close()
