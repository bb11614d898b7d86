"""Fixtures of the local tier: the `ioreqd` command, which must leave nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .running import Running


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start `ioreqd` with the words given: ``launch("run", …)``; see `Running`.

    After the test, whatever has ended must have left no file and no process.
    """
    started: list[Running] = []

    def start(*words: str, **settings: Any) -> Running:
        started.append(Running(tmp_path, words, **settings))
        return started[-1]

    yield start
    ended = all(one.process.poll() is not None for one in started)
    leftovers = [line for one in started for line in one.leftovers()]
    for one in started:
        one.kill()
    assert ended, "still running: " + "\n".join(one.stdout + one.stderr for one in started)
    assert leftovers == []
