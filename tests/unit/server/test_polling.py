"""The poll window: it grows when sleeping was too early and closes when watching was in vain."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dm.server.polling import LARGEST, SMALLEST, WAKE_UP_FACTOR, PollWindow


def test_it_begins_closed() -> None:
    assert PollWindow(8).length == 0


def test_with_one_cpu_it_never_opens() -> None:
    for limit in (None, 1_000_000):
        window = PollWindow(1, limit)
        window.measured(10)
        for _ in range(10):
            window.woke(1)
        assert (window.length, window.limit) == (0, 0)


def test_a_limit_of_zero_keeps_it_closed() -> None:
    window = PollWindow(4, 0)
    window.woke(0)
    assert window.length == 0


def test_a_short_sleep_opens_it_and_more_of_them_widen_it_up_to_the_limit() -> None:
    window = PollWindow(2, 200_000)
    window.woke(1_000)
    assert window.length == SMALLEST
    window.woke(30_000)
    assert window.length == 60_000
    window.woke(1)
    window.woke(1)
    assert window.length == 200_000


def test_a_sleep_longer_than_the_limit_does_not_open_it() -> None:
    window = PollWindow(2, 200_000)
    window.woke(200_000)
    window.woke(10**12)
    assert window.length == 0


def test_each_miss_halves_it_until_it_is_closed() -> None:
    window = PollWindow(2, 64_000)
    window.woke(32_000)
    lengths = []
    while window.length:
        window.missed()
        lengths.append(window.length)
    assert lengths == [32_000, 16_000, 0]


def test_what_a_system_call_costs_sets_the_limit() -> None:
    window = PollWindow(2)
    assert window.limit == LARGEST
    window.measured(1_000)
    assert window.limit == 1_000 * WAKE_UP_FACTOR
    window.measured(500)
    assert window.limit == 500 * WAKE_UP_FACTOR


def test_one_slow_call_hardly_moves_the_limit() -> None:
    window = PollWindow(2)
    window.measured(1_000)
    window.measured(65_000)
    assert window.limit == 2_000 * WAKE_UP_FACTOR


def test_a_given_limit_is_not_measured_away() -> None:
    window = PollWindow(2, 77_000)
    window.measured(1)
    assert window.limit == 77_000


def test_where_system_calls_are_dear_watching_goes_on_for_longer() -> None:
    window = PollWindow(2)
    window.measured(1_000)
    assert window.stretch == 50_000
    window = PollWindow(2)
    window.measured(10**6)
    assert window.stretch == LARGEST


def test_hits_and_misses_are_counted() -> None:
    window = PollWindow(2, 100_000)
    window.watched(2, 18)
    window.watched(3, 1)
    window.missed()
    assert (window.hits, window.misses, window.spent) == (5, 1, 19)


def test_with_one_cpu_it_yields_and_after_yielding_in_vain_more_and_more_rarely() -> None:
    window = PollWindow(1)
    tries = []
    for answer in range(2000):
        if window.may_yield():
            tries.append(answer)
            window.yielded(paid=False)
    gaps = [b - a for a, b in pairwise(tries)]
    assert gaps[:6] == [2, 4, 8, 16, 32, 64]
    assert set(gaps[6:]) == {64}
    window.yielded(paid=True)
    assert [window.may_yield() for _ in range(3)] == [True] * 3


def test_with_two_cpus_or_a_limit_of_zero_it_does_not_yield() -> None:
    assert not PollWindow(2).may_yield()
    assert not PollWindow(1, 0).may_yield()


@given(
    st.integers(1, 4),
    st.none() | st.integers(0, 10**7),
    st.lists(st.tuples(st.sampled_from(("woke", "missed", "measured")), st.integers(0, 10**10))),
)
def test_it_stays_within_its_limit(
    cpus: int, limit: int | None, deeds: list[tuple[str, int]]
) -> None:
    window = PollWindow(cpus, limit)
    for deed, nanoseconds in deeds:
        if deed == "missed":
            window.missed()
        else:
            getattr(window, deed)(nanoseconds)
        assert 0 <= window.length <= window.limit <= max(LARGEST, limit or 0)
        assert cpus > 1 or window.limit == 0
