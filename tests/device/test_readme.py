"""The device in the README does what the README says of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from dm.machine.fakes import TestBench

README = Path(__file__).parents[2] / "README.md"
BAR, PERIOD, STATUS = 0xE0000000, 0x0, 0x4
DEVFN = 4 << 3
MILLISECOND = 1_000_000


@pytest.fixture
def bench() -> TestBench:
    block = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert block is not None
    names: dict[str, Any] = {"__name__": "ticker"}
    exec(compile(block[1], str(README), "exec"), names)
    made = TestBench(names["Ticker"](addr="4"))
    made.config_write(DEVFN, 0x10, BAR)
    made.config_write(DEVFN, 0x04, 0x0006, 2)
    return made


def test_it_counts_down_and_interrupts_by_its_pin(bench: TestBench) -> None:
    bench.store(BAR + PERIOD, 20)
    bench.advance(19 * MILLISECOND)
    assert (bench.load(BAR + STATUS), bench.platform.intx.get((4, 0), 0)) == (0, 0)
    bench.advance(MILLISECOND)
    assert (bench.load(BAR + STATUS), bench.platform.intx[4, 0]) == (1, 1)
    bench.store(BAR + STATUS, 1)
    assert (bench.load(BAR + STATUS), bench.platform.intx[4, 0]) == (0, 0)


def test_it_interrupts_by_a_message_once_the_guest_has_enabled_it(bench: TestBench) -> None:
    bench.config_write(DEVFN, 0x44, 0xFEE00000)
    bench.config_write(DEVFN, 0x4C, 0x4321, 2)
    bench.config_write(DEVFN, 0x42, 0x0001, 2)
    bench.store(BAR + PERIOD, 1)
    bench.advance(MILLISECOND)
    assert bench.platform.msis == [(0xFEE00000, 0x4321)]
    assert bench.platform.intx.get((4, 0), 0) == 0
