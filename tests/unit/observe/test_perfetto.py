"""The trace for ui.perfetto.dev: valid whether it was ended or cut off, a track for each device."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dm.observe.filter import Filter
from dm.observe.output import Output
from dm.observe.perfetto import PerfettoTrace

from .specimens import BAR, BASE, Card, Gadget, ObservedBench

REQUIRED: dict[str, dict[str, type | tuple[type, ...]]] = {
    "M": {"pid": int, "tid": int, "name": str, "args": dict},
    "X": {"pid": int, "tid": int, "name": str, "ts": (int, float), "dur": (int, float)},
    "i": {"pid": int, "tid": int, "name": str, "ts": (int, float), "s": str},
    "C": {"pid": int, "tid": int, "name": str, "ts": (int, float), "args": dict},
}
"""The keys of each phase that is used, by the Trace Event Format."""


def check(events: list[dict[str, Any]]) -> None:
    for event in events:
        for key, kind in REQUIRED[event["ph"]].items():
            assert isinstance(event[key], kind), (key, event)
        if event["ph"] == "C":
            assert all(isinstance(value, int) for value in event["args"].values())
        if event["ph"] == "i":
            assert event["s"] in "gpt"


def exercise(path: Path, wanted: Filter | None = None) -> tuple[ObservedBench, PerfettoTrace]:
    trace = PerfettoTrace(Output("trace", str(path)), wanted or Filter())
    bench = ObservedBench(Gadget("gadget"), Card("card", addr="3"), sinks=[trace])
    bench.enable_card(0x18)
    bench.memory.write(0x1000, b"data")
    bench.store(BAR + 4, 0x1000)
    bench.store(BAR + 8, 4)
    bench.store(BAR + 12, 1)
    bench.write(BASE, 0x31, 2)
    bench.advance(10_000)
    with pytest.raises(ZeroDivisionError):
        bench.read(BASE + 9)
    return bench, trace


def load(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text())
    check(found)
    return found


def test_a_trace_that_was_ended_is_valid_json_of_the_format(tmp_path: Path) -> None:
    _, trace = exercise(tmp_path / "t.json")
    trace.close()
    found = load(tmp_path / "t.json")
    assert {event["ph"] for event in found} == {"M", "X", "i", "C"}


def test_a_trace_without_any_event_is_valid(tmp_path: Path) -> None:
    trace = PerfettoTrace(Output("trace", str(tmp_path / "t.json")), Filter())
    trace.close()
    assert load(tmp_path / "t.json") == []


def test_a_trace_that_was_cut_off_lacks_its_bracket_and_nothing_else(tmp_path: Path) -> None:
    exercise(tmp_path / "t.json")
    check(json.loads((tmp_path / "t.json").read_text() + "]"))


def test_each_device_has_a_track_and_its_accesses_are_slices_on_it(tmp_path: Path) -> None:
    _, trace = exercise(tmp_path / "t.json")
    trace.close()
    found = load(tmp_path / "t.json")
    tracks = {e["args"]["name"]: e["tid"] for e in found if e["name"] == "thread_name"}
    assert list(tracks) == ["machine", "gadget", "card"]
    assert len(set(tracks.values())) == 3
    slices = [e for e in found if e["ph"] == "X"]
    control = next(e for e in slices if e["name"] == "ports.control write")
    assert control["tid"] == tracks["gadget"]
    assert control["args"]["mode"] == "turbo"
    assert control["dur"] > 0
    assert next(e for e in slices if e["name"] == "registers.go write")["tid"] == tracks["card"]
    assert any(e["name"] == "timer alarm" for e in slices)


def test_slices_never_overlap_although_guest_time_stands_still(tmp_path: Path) -> None:
    _, trace = exercise(tmp_path / "t.json")
    trace.close()
    slices = [e for e in load(tmp_path / "t.json") if e["ph"] == "X"]
    for before, after in pairwise(slices):
        assert after["ts"] >= before["ts"] + before["dur"] - 1e-6


def test_lines_are_counters_and_dma_is_an_instant(tmp_path: Path) -> None:
    _, trace = exercise(tmp_path / "t.json")
    trace.close()
    found = load(tmp_path / "t.json")
    counters = [(e["name"], e["args"]["level"]) for e in found if e["ph"] == "C"]
    assert ("INTA of slot 3", 1) in counters
    assert ("ISA IRQ 5", 1) in counters
    assert any(e["ph"] == "i" and e["name"].startswith("DMA read 0x1000") for e in found)


def test_a_filter_leaves_other_devices_out(tmp_path: Path) -> None:
    _, trace = exercise(tmp_path / "t.json", Filter(device="card"))
    trace.close()
    found = load(tmp_path / "t.json")
    tracks = {e["args"]["name"]: e["tid"] for e in found if e["name"] == "thread_name"}
    assert {e["tid"] for e in found if e["ph"] != "M"} == {tracks["card"]}
