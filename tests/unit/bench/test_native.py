"""The native figures: every case is served, and the table has what is demanded of it."""

from __future__ import annotations

from tools.bench import native, startup


def test_each_case_is_measured_against_the_bare_cost() -> None:
    table = native.measure(rounds=1)
    assert len(table.figures) == 10
    assert all(figure.ratio is not None and figure.ratio > 0 for figure in table.figures)
    limits = [figure.expected for figure in table.figures]
    assert limits == [native.LIMIT] * 8 + [native.FLAT] * 2


def test_a_request_costs_far_less_than_any_general_path_would() -> None:
    """A generous bound that no load of the machine breaks, but a lost fast path would."""
    best = min(max(f.ratio or 0 for f in native.measure(rounds=50).figures[:8]) for _ in range(3))
    assert best < 8


def test_imports_cost_more_than_none() -> None:
    table = startup.measure(rounds=1)
    memory = table.figures[1]
    assert memory.ours[0] > memory.base[0] > 1
