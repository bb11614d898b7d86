"""Guest time."""

from __future__ import annotations

from dm.machine.timers import GuestClock


class Host:
    now = 1_000_000

    def __call__(self) -> int:
        return self.now


def test_guest_time_begins_at_zero_and_stands_still() -> None:
    host = Host()
    clock = GuestClock(host)
    host.now += 500
    assert (clock.now(), clock.running) == (0, False)


def test_it_runs_with_the_hosts_while_started() -> None:
    host = Host()
    clock = GuestClock(host)
    clock.start()
    host.now += 500
    clock.start()
    host.now += 100
    assert (clock.now(), clock.running) == (600, True)


def test_it_goes_on_where_it_was_stopped() -> None:
    host = Host()
    clock = GuestClock(host)
    clock.start()
    host.now += 500
    clock.stop()
    clock.stop()
    host.now += 10_000
    assert clock.now() == 500
    clock.start()
    host.now += 7
    assert clock.now() == 507


def test_it_can_be_set_while_it_stands_and_while_it_runs() -> None:
    host = Host()
    clock = GuestClock(host)
    clock.set(9_000)
    assert clock.now() == 9_000
    clock.start()
    host.now += 5
    clock.set(100)
    host.now += 5
    assert clock.now() == 105


def test_who_keeps_the_time_for_a_successor_is_told_of_every_change() -> None:
    host = Host()
    clock = GuestClock(host)
    told: list[tuple[int, int]] = []
    clock.changed = lambda elapsed, started: told.append((elapsed, started))
    clock.start()
    host.now += 50
    clock.stop()
    clock.set(7)
    assert told == [(0, 1_000_000), (50, 0), (7, 0)]
