"""The order of a turn, the ring's timer, and when the process watches instead of sleeping."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from dm import Bank, Device, PortWindow, Register, Timer
from dm.machine.machine import Machine
from dm.server.loop import Loop
from dm.server.polling import SMALLEST, PollWindow
from dm.server.server import IoreqServer
from dm.server.service import ANSWERS, LONGEST_TURN, LOOK_AROUND, RING_DELAY, Service

from .board import PORTS, Mixed
from .fake_xen import READ, Domain, FakeServer, FakeXen
from .machinery import Clock, FakePoller

ALARM = 0x400


class AlarmPorts(Bank, size=4, width=32):
    delay = Register.at(0)


class Alarm(Device):
    """Writing a delay in nanoseconds starts a timer, which notes the time at which it fired."""

    ports = PortWindow(AlarmPorts, at=ALARM)
    timer = Timer()

    @AlarmPorts.delay.on_write
    def _start(self, new: int, old: int) -> None:
        self.timer.start_in(new)

    @timer.expired
    def _fire(self) -> None:
        self.ports.delay.value = 0xF17ED


class Stage:
    """A service on a virtual clock, with a guest that acts while the process sleeps."""

    def __init__(self, window: int | None = 0, vcpus: int = 2, tick: int = 100) -> None:
        self.clock = Clock(tick)
        self.poller = FakePoller(self.clock)
        self.loop = Loop(self.poller, self.clock)
        self.domain = Domain(vcpus)
        self.xen = FakeXen(self.domain)
        self.machine = Machine("test", self.xen, self.xen.memory, self.clock)
        self.mixed, self.alarm = Mixed("mixed"), Alarm("alarm")
        self.machine.add(self.mixed)
        self.machine.add(self.alarm)
        self.machine.seal()
        self.server = IoreqServer(self.xen, self.machine)
        self.window = PollWindow(2, window)
        self.service = Service(
            self.loop, self.xen, self.machine, self.server, self.window, self.clock
        )
        self.poller.ready[self.xen.event_fd] = lambda: self.xen.readable
        self.server.open()
        self.machine.connect()
        self.machine.start()
        # The first events, which every port has, and the first look at the ring.
        self.service.turn()
        self.clock.time += RING_DELAY
        self.service.turn()

    @property
    def xens(self) -> FakeServer:
        return self.domain.servers[self.server.id]

    def write(self, value: int, vcpu: int = 0) -> None:
        assert self.domain.send(self.xens, vcpu, address=PORTS, data=value)

    def later(self, delay: int, deed: Callable[[], object]) -> None:
        """Let the guest do something ``delay`` nanoseconds into the next sleep."""
        self.poller.while_asleep.append((delay, deed))

    @property
    def values(self) -> list[int]:
        return [value for _, value in self.mixed.log]


def test_a_request_wakes_the_process_and_is_answered() -> None:
    stage = Stage()
    stage.later(50_000, lambda: stage.write(7))
    stage.service.turn()
    assert stage.values == [7]
    assert stage.domain.answer(stage.xens) == 7


def test_ports_are_unmasked_before_the_process_sleeps_so_that_no_event_is_lost() -> None:
    stage = Stage()
    for value in range(1, 20):
        stage.later(1000, partial(stage.write, value, value % 2))
        stage.service.turn()
        assert stage.domain.answer(stage.xens, value % 2) == value
    assert stage.values == list(range(1, 20))


def test_an_event_between_serving_and_unmasking_is_announced_after_it() -> None:
    stage = Stage()
    stage.write(1)
    notify = stage.xen.notify

    def notify_and_ask_again(port: int) -> None:
        notify(port)
        if stage.domain.answer(stage.xens) == 1:
            stage.write(2)

    stage.xen.__dict__["notify"] = notify_and_ask_again
    stage.service.turn()
    assert stage.values == [1]
    stage.service.turn()
    assert stage.values == [1, 2]


class TestRing:
    def test_an_entry_alone_is_executed_after_the_delay_and_wakes_nobody_again(self) -> None:
        stage = Stage()
        start = stage.clock.time
        stage.domain.send_buffered(stage.xens, PORTS, 1, kind=0)
        stage.service.turn()
        assert stage.values == []
        stage.domain.send_buffered(stage.xens, PORTS, 2, kind=0)
        stage.service.turn()
        assert stage.values == [1, 2]
        assert RING_DELAY <= stage.clock.time - start < RING_DELAY * 1.1

    def test_while_it_fills_the_timer_goes_on_and_afterwards_the_port_announces(self) -> None:
        stage = Stage()
        for value in range(3):
            stage.domain.send_buffered(stage.xens, PORTS, value, kind=0)
            stage.service.turn()
        turns = 0
        while stage.loop.timeout() != -1:
            stage.service.turn()
            turns += 1
        # One look finds nothing, and one more follows the event that was pending meanwhile.
        assert turns <= 3
        assert stage.values == [0, 1, 2]
        assert not stage.server.ring_announced
        stage.domain.send_buffered(stage.xens, PORTS, 9, kind=0)
        assert stage.xen.readable

    def test_a_synchronous_request_brings_buffered_ones_with_it_first(self) -> None:
        stage = Stage()
        stage.domain.send_buffered(stage.xens, PORTS, 1, kind=0)
        stage.write(2)
        stage.service.turn()
        assert stage.values == [1, 2]

    def test_nothing_is_drained_while_paused(self) -> None:
        stage = Stage()
        stage.server.paused = True
        stage.domain.send_buffered(stage.xens, PORTS, 1, kind=0)
        stage.service.turn()
        stage.service.turn()
        assert stage.values == []
        stage.server.paused = False
        stage.service.resume()
        assert stage.values == [1]
        assert stage.loop.timeout() > 0


class TestTimers:
    def test_a_timer_wakes_the_process_at_its_time(self) -> None:
        stage = Stage()
        stage.domain.send(stage.xens, address=ALARM, size=4, data=5_000_000)
        stage.service.turn()
        start = stage.clock.time
        stage.service.turn()
        assert stage.alarm.ports.delay.value == 0xF17ED
        assert 0.9 * 5_000_000 < stage.clock.time - start < 1.1 * 5_000_000

    def test_requests_come_before_timers_that_are_due(self) -> None:
        stage = Stage()
        stage.domain.send(stage.xens, address=ALARM, size=4, data=1_000)
        stage.service.turn()
        stage.clock.time += 10_000
        stage.domain.answer(stage.xens)
        stage.domain.send(stage.xens, address=ALARM, size=4, flags=READ)
        stage.service.turn()
        assert stage.domain.answer(stage.xens) == 1_000
        assert stage.alarm.ports.delay.value == 0xF17ED

    def test_a_deadline_beyond_what_epoll_can_wait_for_ends_nothing(self) -> None:
        stage = Stage()
        stage.alarm.timer.start_at((1 << 64) - 1)
        assert 0 < stage.loop.timeout() <= 3600

    def test_no_timer_fires_while_the_machine_stands_still(self) -> None:
        stage = Stage()
        stage.alarm.timer.start_in(1_000)
        stage.machine.stop()
        assert stage.loop.timeout() == -1
        stage.clock.time += 10_000
        stage.service._run_timers()
        assert stage.alarm.timer.armed


class TestWatching:
    def test_it_opens_after_a_short_sleep_and_then_serves_without_sleeping(self) -> None:
        stage = Stage(window=200_000)
        stage.later(30_000, lambda: stage.write(1))
        stage.service.turn()
        assert stage.window.misses == 1
        assert stage.window.length >= SMALLEST
        stage.window.length = 100_000
        stage.domain.answer(stage.xens)
        notify, sent = stage.xen.notify, iter(range(3, 8))

        def notify_and_go_on(port: int) -> None:
            notify(port)
            stage.domain.answer(stage.xens)
            value = next(sent, None)
            if value is not None:
                stage.write(value)

        stage.xen.__dict__["notify"] = notify_and_go_on
        stage.write(2)
        polls = len(stage.poller.timeouts)
        stage.service.turn()
        assert stage.values == [1, 2, 3, 4, 5, 6, 7]
        assert stage.window.hits == 5
        assert len(stage.poller.timeouts) - polls <= 3

    def test_an_answer_costs_no_look_at_the_clock(self) -> None:
        stage = Stage(window=1_000_000)
        stage.window.length = 1_000_000
        notify, left = stage.xen.notify, iter(range(100))
        looks = []

        def notify_and_go_on(port: int) -> None:
            notify(port)
            stage.domain.answer(stage.xens)
            looks.append(stage.clock.time // stage.clock.tick)
            if next(left, None) is not None:
                stage.write(1)

        stage.xen.__dict__["notify"] = notify_and_go_on
        stage.write(1)
        stage.service.turn()
        assert len(looks) == 101
        assert looks[-1] - looks[1] <= 100 / ANSWERS + 1
        assert stage.window.hits == 100
        assert 0 < stage.window.spent < 2_000_000

    def test_it_does_not_watch_when_the_window_is_closed(self) -> None:
        stage = Stage(window=0)
        stage.write(1)
        stage.service.turn()
        assert (stage.window.hits, stage.window.misses) == (0, 0)

    def test_a_pause_ends_it(self) -> None:
        stage = Stage(window=200_000)
        stage.window.length = 200_000
        stage.write(1)
        notify = stage.xen.notify

        def notify_and_pause(port: int) -> None:
            notify(port)
            stage.server.paused = True

        stage.xen.__dict__["notify"] = notify_and_pause
        stage.service.turn()
        assert (stage.window.hits, stage.window.misses) == (0, 0)

    @pytest.mark.parametrize("busy", [1, 40])
    def test_a_guest_that_never_rests_does_not_keep_a_turn_from_ending(self, busy: int) -> None:
        stage = Stage(window=1_000_000, vcpus=busy, tick=500)
        stage.window.length = 1_000_000
        notify = stage.xen.notify

        def notify_and_ask_again(port: int) -> None:
            notify(port)
            vcpu = stage.xen.local[port].vcpu
            assert vcpu is not None
            stage.domain.answer(stage.xens, vcpu)
            stage.clock.time += 5_000
            stage.write(vcpu, vcpu)

        stage.xen.__dict__["notify"] = notify_and_ask_again
        for vcpu in range(busy):
            stage.write(vcpu, vcpu)
        start = stage.clock.time
        stage.service.turn()
        assert stage.clock.time - start < 2 * LONGEST_TURN
        counts = [stage.values.count(vcpu) for vcpu in range(busy)]
        assert min(counts) > 0.5 * max(counts) > 10
        assert -1 not in stage.poller.timeouts[3:]

    def test_other_descriptors_get_their_turn_while_it_watches(self) -> None:
        stage = Stage(window=1_000_000, tick=500)
        stage.window.length = 1_000_000
        notify = stage.xen.notify
        seen: list[int] = []

        def notify_and_ask_again(port: int) -> None:
            notify(port)
            stage.domain.answer(stage.xens)
            stage.clock.time += 5_000
            if not seen:
                stage.write(1)

        stage.xen.__dict__["notify"] = notify_and_ask_again
        stage.poller.ready[4000] = lambda: stage.clock.time > start + 100_000 and not seen
        stage.loop.add(4000, 1, lambda events: seen.append(stage.clock.time))
        start = stage.clock.time
        stage.write(1)
        stage.service.turn()
        assert seen
        assert seen[0] - start < 1.5 * LOOK_AROUND


class TestYielding:
    def prepared(self, requests: int) -> Stage:
        """A guest on the only CPU, which asks again while the process has yielded."""
        stage = Stage()
        stage.window = stage.service.window = PollWindow(1)
        left = iter(range(2, requests + 1))

        def run_the_guest() -> bool:
            stage.domain.answer(stage.xens)
            value = next(left, None)
            if value is not None:
                stage.write(value)
            return True

        stage.xen.__dict__["yield_cpu"] = run_the_guest
        stage.write(1)
        return stage

    def test_requests_that_come_back_at_once_cost_no_sleep(self) -> None:
        stage = self.prepared(20)
        polls = len(stage.poller.timeouts)
        stage.service.turn()
        assert stage.values == list(range(1, 21))
        assert stage.window.hits == 19
        assert len(stage.poller.timeouts) - polls <= 3
        assert -1 not in stage.poller.timeouts[polls + 1 :]

    def test_where_it_is_not_possible_it_is_not_tried_again(self) -> None:
        stage = self.prepared(1)
        tried: list[bool] = []

        def refuse() -> bool:
            tried.append(True)
            return False

        stage.xen.__dict__["yield_cpu"] = refuse
        for value in range(2, 6):
            stage.service.turn()
            stage.domain.answer(stage.xens)
            stage.write(value)
        assert tried == [True]

    def test_a_guest_that_never_rests_does_not_keep_a_turn_from_ending(self) -> None:
        stage = self.prepared(1_000_000)
        stage.clock.tick = 20_000
        start = stage.clock.time
        stage.service.turn()
        assert stage.clock.time - start < 2 * LONGEST_TURN


def test_an_exception_of_a_timer_does_not_end_the_turn() -> None:
    stage = Stage()
    stage.alarm.timer.handler = lambda: 1 // 0
    stage.alarm.timer.start_in(1_000)
    stage.service.turn()
    assert stage.machine.errors == 1
