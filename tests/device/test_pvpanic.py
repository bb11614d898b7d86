"""The pvpanic port."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from devices.pvpanic import CRASH_LOADED, PANICKED, Pvpanic
from dm.errors import ConfigError
from dm.machine.fakes import TestBench


def watched(**options: Any) -> tuple[TestBench, list[int]]:
    device = Pvpanic(**options)
    bench, seen = TestBench(device), list[int]()
    device.report = seen.append
    return bench, seen


def test_the_port_reads_as_the_events_that_exist() -> None:
    assert TestBench(Pvpanic()).read(0x505) == PANICKED | CRASH_LOADED


@pytest.mark.parametrize("event", [PANICKED, CRASH_LOADED, PANICKED | CRASH_LOADED])
def test_an_event_is_logged_and_reported(event: int, caplog: pytest.LogCaptureFixture) -> None:
    bench, seen = watched()
    with caplog.at_level(logging.WARNING):
        bench.write(0x505, event)
    assert seen == [event]
    assert len(caplog.records) == 1


def test_unknown_bits_are_not_reported() -> None:
    bench, seen = watched()
    bench.write(0x505, 0xFC)
    bench.write(0x505, 0xFD)
    assert seen == [PANICKED]


def test_a_panic_that_nobody_watches_is_no_error() -> None:
    bench = TestBench(Pvpanic())
    bench.write(0x505, PANICKED)
    assert bench.machine.errors == 0


def test_a_guest_that_panics_for_ever_does_not_fill_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench, seen = watched()
    with caplog.at_level(logging.WARNING):
        for _ in range(1000):
            bench.write(0x505, PANICKED)
    assert len(seen) == 1000
    assert len(caplog.records) < 20


def test_events_and_port_are_options() -> None:
    bench, _ = watched(ioport=0x600, events=1)
    assert bench.read(0x600) == 1


def test_an_event_that_does_not_exist_cannot_be_configured() -> None:
    with pytest.raises(ConfigError, match="events=0x10"):
        TestBench(Pvpanic(events=0x10))
