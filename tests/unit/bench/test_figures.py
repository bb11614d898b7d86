"""Figures: medians, their ratio, the spread, and what the tables say."""

from __future__ import annotations

import pytest

from tools.bench.figures import Figure, Table, render


def test_the_ratio_is_that_of_the_medians() -> None:
    figure = Figure("x", "µs", [10, 100, 20], [5, 10, 1000])
    assert figure.ratio == 0.5


def test_the_spread_pairs_values_of_the_same_round() -> None:
    figure = Figure("x", "µs", [10, 20], [5, 40])
    assert figure.spread == (0.5, 2.0)


@pytest.mark.parametrize(
    ("ours", "expected", "good"), [(5, 0.5, True), (6, 0.5, False), (6, None, None)]
)
def test_a_figure_is_good_up_to_the_expected_ratio(
    ours: float, expected: float | None, good: bool | None
) -> None:
    assert Figure("x", "µs", [10], [ours], expected).good is good


@pytest.mark.parametrize(("base", "ours"), [([], [1.0]), ([1.0], []), ([0.0], [1.0])])
def test_a_side_without_a_value_gives_no_ratio_and_no_verdict(
    base: list[float], ours: list[float]
) -> None:
    figure = Figure("x", "µs", base, ours, 1.0)
    assert (figure.ratio, figure.good) == (None, None)


TABLE = Table(
    "Title",
    "theirs",
    "ours",
    [Figure("fast", "µs", [200.0], [100.0], 0.6), Figure("slow", "s", [1.0], [3.0], 1.0)],
    ["A note."],
)


def test_a_table_shows_values_ratio_and_verdict() -> None:
    lines = render([TABLE]).splitlines()
    assert lines[0] == "Title"
    assert " ".join(lines[3].split()) == "fast 200 µs 100 µs 0.50 0.50 to 0.50 ≤ 0.60 yes"
    assert " ".join(lines[4].split()) == "slow 1.00 s 3.00 s 3.00 3.00 to 3.00 ≤ 1.00 NO"
    assert "A note." in lines


def test_markdown_has_as_many_cells_in_every_row() -> None:
    rows = [line for line in render([TABLE], markdown=True).splitlines() if line[:1] == "|"]
    assert len(rows) == 4
    assert {row.count("|") for row in rows} == {8}
    assert set(rows[1]) <= set("|-:")
