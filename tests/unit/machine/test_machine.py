"""A machine's life: declared, sealed, running, stopped, reset, inherited."""

from __future__ import annotations

import logging

import pytest

from dm import Bank, ConfigError, Device, HostError, IsaLine, PortWindow, Register, Timer
from dm.machine.fakes import FakeMemory, FakePlatform, TestBench
from dm.machine.machine import Machine

BASE = 0x100


class Ports(Bank, size=4, width=8):
    level = Register.at(0, reset=0)
    data = Register.at(1, reset=0x5A)


class Sample(Device):
    ports = PortWindow(Ports, at=BASE)
    alarm = Timer()
    irq = IsaLine(9)

    @alarm.expired
    def _fire(self) -> None:
        self.ports.level.value = 1

    @irq.level
    def _level(self) -> bool:
        return bool(self.ports.level.value)


def declared() -> tuple[Machine, FakePlatform]:
    platform = FakePlatform()
    machine = Machine("test", platform, FakeMemory(), lambda: 0)
    machine.add(Sample("sample"))
    return machine, platform


class TestSealing:
    def test_nothing_can_be_added_afterwards(self) -> None:
        machine, _ = declared()
        machine.seal()
        with pytest.raises(ConfigError, match="is sealed"):
            machine.add(Sample("late"))

    def test_before_it_there_is_no_state(self) -> None:
        machine, _ = declared()
        with pytest.raises(RuntimeError, match="not sealed"):
            _ = machine.buffer

    def test_the_platform_is_asked_for_nothing_before_connect(self) -> None:
        machine, platform = declared()
        machine.seal()
        assert (platform.claimed[0], platform.isa) == ([], {})
        machine.connect()
        assert (platform.claimed[0], platform.isa) == ([(BASE, BASE + 3)], {9: 0})

    def test_state_lives_in_the_buffer_that_was_given(self) -> None:
        machine, _ = declared()
        buffer = bytearray(machine.state_size())
        machine.seal(memoryview(buffer))
        machine.connect()
        machine.bus.write(0, BASE + 1, 1, 0xA5)
        assert 0xA5 in buffer
        assert [(d.name, at, size) for d, at, size in machine.regions()] == [
            ("sample", 0, len(buffer))
        ]


class TestRunning:
    def test_a_reset_restores_state_timers_and_lines(self) -> None:
        bench = TestBench(Sample("sample"))
        sample = bench.machine.devices[0]
        assert isinstance(sample, Sample)
        before = bytes(bench.machine.buffer)
        bench.write(BASE, 1)
        bench.write(BASE + 1, 0)
        sample.alarm.start_in(5)
        bench.machine.reset()
        assert bench.machine.buffer == before
        assert bench.platform.isa == {9: 0}
        assert bench.machine.timers.next_deadline() is None

    def test_no_timer_is_due_while_it_stands_still(self) -> None:
        bench = TestBench(Sample("sample"))
        sample = bench.machine.devices[0]
        assert isinstance(sample, Sample)
        sample.alarm.start_in(5)
        bench.machine.stop()
        bench.advance(100)
        assert bench.platform.isa == {9: 0}
        bench.machine.start()
        bench.advance(5)
        assert bench.platform.isa == {9: 1}

    def test_a_successor_goes_on_from_its_predecessors_buffer(self) -> None:
        first = TestBench(Sample("sample"))
        sample = first.machine.devices[0]
        assert isinstance(sample, Sample)
        sample.alarm.start_in(500)
        first.write(BASE + 1, 0x77)
        second = TestBench(Sample("sample"))
        second.machine.inherit(bytes(first.machine.buffer), 100)
        assert second.read(BASE + 1) == 0x77
        second.advance(399)
        assert second.platform.isa[9] == 0
        second.advance(1)
        assert second.platform.isa[9] == 1

    def test_lines_can_be_lowered_whatever_state_says(self) -> None:
        bench = TestBench(Sample("sample"))
        bench.write(BASE, 1)
        bench.machine.lower_lines()
        assert bench.platform.isa == {9: 0}


class TestErrors:
    def test_a_line_that_cannot_be_driven_is_counted_and_ends_nothing(self) -> None:
        machine, platform = declared()

        def refuse(irq: int, level: int) -> None:
            raise HostError("set_isa_irq_level: no")

        platform.set_isa_irq = refuse  # type: ignore[method-assign]
        machine.seal()
        machine.connect()
        machine.after_load()
        assert machine.errors == 2
        machine.lower_lines()
        assert platform.claimed[0] == [(BASE, BASE + 3)]

    def test_exceptions_are_counted_and_each_place_is_logged_with_one_traceback(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        machine, _ = declared()
        for _ in range(50):
            try:
                raise ZeroDivisionError("a bug")
            except ZeroDivisionError as error:
                machine.contain(error, "somewhere")
        records = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert machine.errors == 50
        assert 1 <= len(records) <= 10
        assert records[0].getMessage() == "somewhere: a bug"
        assert sum(bool(record.exc_info) for record in records) == 1

    def test_a_chatty_guest_is_limited_for_each_message(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        bench = TestBench(Sample("sample"))
        device = bench.machine.devices[0]
        for number in range(1000):
            device.warn("odd value %d", number)
        device.warn("something else")
        assert len(caplog.records) <= 11
        assert caplog.records[-1].getMessage() == "something else"
        assert caplog.records[-1].name == "ioreqd.sample"
