"""On one CPU the server yields after an answer, for as long as that pays."""

from __future__ import annotations

import pytest

from dm.server.polling import MOST_SKIPPED, PollWindow
from dm.server.service import LOOK_AROUND_ALONE
from tests.unit.server.test_service import Stage


@pytest.mark.parametrize(
    ("cpus", "limit", "yields"),
    [(1, None, True), (1, 1000, True), (1, 0, False), (2, None, False)],
)
def test_only_with_one_cpu_and_polling_allowed_may_it_yield(
    cpus: int, limit: int | None, yields: bool
) -> None:
    assert PollWindow(cpus, limit).may_yield() is yields


def test_yielding_in_vain_makes_it_rarer_and_one_success_makes_up_for_it() -> None:
    window = PollWindow(1)
    tries = 0
    for _ in range(1000):
        if window.may_yield():
            tries += 1
            window.yielded(paid=False)
    assert tries < 6 + 1000 // MOST_SKIPPED
    while not window.may_yield():
        pass
    window.yielded(paid=True)
    assert window.may_yield()
    assert window.may_yield()


class Alone(Stage):
    """A service on one CPU; ``returns`` are the requests that wait when each yield is over."""

    def __init__(self) -> None:
        super().__init__()
        self.yields = 0
        self.left = 0
        self.possible = True
        self.xen.__dict__["yield_cpu"] = self._yield
        self.window.yields = True

    def _yield(self) -> bool:
        self.yields += 1
        self.clock.time += 100_000
        if self.left and self.possible:
            self.left -= 1
            assert self.domain.answer(self.xens) is not None
            self.write(self.left)
        return self.possible


def test_requests_that_follow_each_other_cost_no_sleep() -> None:
    stage = Alone()
    stage.left = 10
    stage.write(99)
    stage.service.turn()
    assert stage.values == [99, *range(9, -1, -1)]
    assert stage.window.hits == 10


def test_a_guest_that_does_not_come_back_is_waited_for_asleep() -> None:
    stage = Alone()
    stage.write(1)
    stage.service.turn()
    assert (stage.values, stage.yields) == ([1], 1)
    stage.domain.answer(stage.xens)
    stage.write(2)
    stage.service.turn()
    assert (stage.values, stage.yields) == ([1, 2], 1)


def test_what_is_refused_once_is_not_tried_again() -> None:
    stage = Alone()
    stage.possible = False
    for value in (1, 2):
        stage.write(value)
        stage.service.turn()
        stage.domain.answer(stage.xens)
    assert stage.yields == 1


def test_other_descriptors_get_their_turn_meanwhile() -> None:
    stage = Alone()
    stage.left = 10_000
    seen: list[int] = []
    stage.poller.ready[4000] = lambda: not seen
    stage.loop.add(4000, 1, lambda events: seen.append(stage.clock.time))
    start = stage.clock.time
    stage.write(1)
    stage.service.turn()
    assert seen
    assert seen[0] - start < 2 * LOOK_AROUND_ALONE
    assert stage.clock.time - start < 10 * LOOK_AROUND_ALONE
