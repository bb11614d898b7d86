"""The stand-alone figures: each is measured, against what it is to be compared with."""

from __future__ import annotations

import shutil

import pytest

from tools.bench import standalone


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing")
def test_each_figure_has_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("unicorn")
    for name, value in (("ROUNDS", 1), ("RUNS", 1), ("BATCHES", 1), ("ACCESSES", 500)):
        monkeypatch.setattr(standalone, name, value)
    told: list[str] = []
    table = standalone.measure(told.append)
    assert told == []
    assert [figure.expected for figure in table.figures] == [1.3, 4.0, 3.0, None, None, 1.0]
    assert all(figure.ratio is not None and figure.ratio > 0 for figure in table.figures)


def test_what_cannot_be_measured_is_told_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(standalone, "_accesses", lambda folder: [])
    monkeypatch.setattr(standalone, "_runs", lambda folder: [])
    told: list[str] = []
    assert standalone.measure(told.append).figures == []
    assert told == ["left out: the C echo needs gcc (Debian package gcc)"]
