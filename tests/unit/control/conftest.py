from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.control.fakes import Bench, Client
from tests.unit.loop import MiniLoop


@pytest.fixture
def loop() -> Iterator[MiniLoop]:
    one = MiniLoop()
    yield one
    one.close()


@pytest.fixture
def bench(loop: MiniLoop, tmp_path: Path) -> Iterator[Bench]:
    one = Bench(loop, tmp_path / "qmp")
    yield one
    one.close()


@pytest.fixture
def client(bench: Bench) -> Client:
    return bench.client()
