"""Guest time: what is called when, in which order, and that nothing piles up."""

from __future__ import annotations

import threading
import time

from tools.hypervisor.clock import NEVER, RealClock, VirtualClock


def test_timers_fire_in_the_order_of_their_deadlines_each_at_its_own_time() -> None:
    clock = VirtualClock()
    seen: list[tuple[str, int]] = []
    for name, deadline in (("late", 30), ("early", 10), ("middle", 20), ("beyond", 41)):
        clock.call_at(deadline, lambda name=name: seen.append((name, clock.now())))  # type: ignore[misc]
    clock.advance_to(40)
    assert seen == [("early", 10), ("middle", 20), ("late", 30)]
    assert (clock.now(), clock.next_deadline()) == (40, 41)


def test_timers_of_one_deadline_fire_in_the_order_of_their_arming() -> None:
    clock = VirtualClock()
    seen: list[int] = []
    for number in range(5):
        clock.call_at(7, lambda number=number: seen.append(number))  # type: ignore[misc]
    clock.advance_to(7)
    assert seen == [0, 1, 2, 3, 4]


def test_a_timer_that_a_timer_arms_fires_on_the_way() -> None:
    clock = VirtualClock()
    seen: list[int] = []

    def again() -> None:
        seen.append(clock.now())
        clock.call_at(clock.now() + 10, again)

    clock.call_at(10, again)
    clock.advance_to(45)
    assert seen == [10, 20, 30, 40]


def test_a_deadline_in_the_past_fires_at_once_and_time_does_not_go_back() -> None:
    clock = VirtualClock(100)
    seen: list[int] = []
    clock.call_at(5, lambda: seen.append(clock.now()))
    clock.run_due()
    clock.advance_to(50)
    assert (seen, clock.now()) == ([100], 100)


def test_a_cancelled_timer_never_fires_and_is_no_deadline() -> None:
    clock = VirtualClock()
    first = clock.call_at(10, lambda: seen.append(1))
    seen: list[int] = []
    clock.call_at(20, lambda: seen.append(2))
    first.cancel()
    first.cancel()
    assert clock.next_deadline() == 20
    clock.advance_to(100)
    assert seen == [2]
    assert (clock.deadline, clock.next_deadline()) == (NEVER, None)


def test_a_guest_that_re_arms_for_ever_fills_no_memory() -> None:
    clock = VirtualClock()
    seen: list[int] = []
    for deadline in (1, 900_000):
        clock.call_at(deadline, lambda: seen.append(clock.now()))
    for deadline in range(10_000):
        clock.call_at(1_000 + deadline, lambda: None).cancel()
    assert len(clock._heap) < 200
    clock.advance_to(1_000_000)
    assert seen == [1, 900_000]


def test_the_real_clocks_thread_is_woken_by_a_nearer_deadline() -> None:
    clock, lock, done = RealClock(), threading.RLock(), threading.Event()

    def on_due() -> None:
        with lock:
            clock.run_due()

    clock.call_at(clock.now() + 3600 * 10**9, lambda: None)
    clock.start(on_due)
    try:
        with lock:
            clock.call_at(clock.now(), done.set)
        assert done.wait(30)
    finally:
        clock.stop()


def test_an_owner_that_runs_nothing_is_not_asked_without_end() -> None:
    clock, done, asked = RealClock(), threading.Event(), 0

    def refuse() -> None:
        nonlocal asked
        asked += 1
        if asked == 6:
            done.set()

    clock.call_at(0, lambda: None)
    began = time.monotonic()
    clock.start(refuse)
    try:
        assert done.wait(30)
        assert time.monotonic() - began >= 0.045
    finally:
        clock.stop()


def test_the_real_clock_goes_on_from_where_it_is_told() -> None:
    clock = RealClock(10**15)
    assert 10**15 <= clock.now() < 10**15 + 10**12
