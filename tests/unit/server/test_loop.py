"""The event loop over virtual time and a poll object of the test's."""

from __future__ import annotations

import os
from collections.abc import Callable
from select import EPOLLIN, EPOLLOUT

from hypothesis import given
from hypothesis import strategies as st

from dm.server.loop import LONGEST_SLEEP, Loop

from .machinery import Clock, FakePoller


def made() -> tuple[Loop, FakePoller, Clock]:
    clock = Clock()
    poller = FakePoller(clock)
    return Loop(poller, clock), poller, clock


def test_without_anything_due_it_waits_for_ever() -> None:
    loop, _, _ = made()
    assert loop.timeout() == -1


def test_the_earliest_of_calls_and_timers_decides_the_timeout() -> None:
    loop, _, clock = made()
    loop.call_at(clock.time + 3_000_000, list)
    assert loop.timeout() == 0.003
    loop.next_deadline = lambda: clock.time + 1_000_000
    assert loop.timeout() == 0.001
    loop.next_deadline = lambda: clock.time + 5_000_000
    assert loop.timeout() == 0.003


def test_what_is_overdue_does_not_wait() -> None:
    loop, _, clock = made()
    loop.call_at(clock.time - 1, list)
    assert loop.timeout() == 0


@given(st.integers(0, 1 << 70))
def test_a_wait_is_one_that_epoll_takes(deadline: int) -> None:
    loop = Loop(now=lambda: 0)
    loop.call_at(deadline, list)
    assert 0 <= loop.timeout() <= LONGEST_SLEEP < 2**31 / 1000
    loop.close()


def test_calls_are_made_in_the_order_of_their_deadlines() -> None:
    loop, _, clock = made()
    made_calls: list[str] = []
    loop.call_at(clock.time + 20, lambda: made_calls.append("second"))
    loop.call_at(clock.time + 10, lambda: made_calls.append("first"))
    loop.call_at(clock.time + 1000, lambda: made_calls.append("later"))
    clock.time += 30
    loop.run_once(0)
    assert made_calls == ["first", "second"]
    loop.run_once(loop.timeout())
    assert made_calls == ["first", "second", "later"]
    assert loop.timeout() == -1


def test_a_cancelled_call_is_not_made_and_not_waited_for() -> None:
    loop, _, clock = made()
    made_calls: list[int] = []
    call = loop.call_at(clock.time + 10, lambda: made_calls.append(1))
    call.cancel()
    assert loop.timeout() == -1
    clock.time += 20
    loop.run_once(0)
    assert made_calls == []


def test_a_call_may_cancel_one_that_is_due_as_well() -> None:
    loop, _, clock = made()
    made_calls: list[int] = []
    later = loop.call_at(clock.time + 2, lambda: made_calls.append(2))
    loop.call_at(clock.time + 1, later.cancel)
    clock.time += 5
    loop.run_once(0)
    assert made_calls == []


def test_a_call_may_ask_for_another_which_waits_for_the_next_turn() -> None:
    loop, _, clock = made()
    made_calls: list[int] = []

    def again() -> None:
        made_calls.append(clock.time)
        loop.call_at(clock.time, again)

    loop.call_at(clock.time, again)
    for turns in range(1, 4):
        loop.run_once(0)
        assert len(made_calls) == turns


def test_ready_descriptors_get_their_callbacks_and_others_do_not() -> None:
    loop, poller, _ = made()
    seen: list[tuple[str, int]] = []
    loop.add(5, EPOLLIN, lambda events: seen.append(("five", events)))
    loop.add(6, EPOLLIN, lambda events: seen.append(("six", events)))
    poller.ready[6] = lambda: True
    loop.run_once(0)
    assert seen == [("six", EPOLLIN)]
    loop.modify(6, EPOLLOUT)
    assert poller.interest[6] == EPOLLOUT


def test_a_descriptor_removed_by_an_earlier_callback_of_the_same_turn_is_left_alone() -> None:
    loop, poller, _ = made()
    seen: list[int] = []

    def remove_both(events: int) -> None:
        seen.append(5)
        loop.remove(6)

    loop.add(5, EPOLLIN, remove_both)
    loop.add(6, EPOLLIN, lambda events: seen.append(6))
    poller.ready = {5: lambda: True, 6: lambda: True}
    loop.run_once(0)
    assert seen == [5]


def test_it_works_with_the_kernels_epoll() -> None:
    loop = Loop()
    reading, writing = os.pipe()
    seen: list[bytes] = []
    read: Callable[[int], object] = lambda events: seen.append(os.read(reading, 10))  # noqa: E731
    loop.add(reading, EPOLLIN, read)
    loop.run_once(0)
    os.write(writing, b"x")
    loop.run_once(-1)
    loop.remove(reading)
    loop.close()
    os.close(reading)
    os.close(writing)
    assert seen == [b"x"]
