"""What is written is what `protocol.recording` declares, and holds all that a replay needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dm import Deferral
from dm.machine.container import load, save
from dm.machine.fakes import FakeCharacter
from dm.machine.snapshot import parse
from dm.observe.output import Output
from dm.observe.record import Recorder
from protocol.recording import (
    RECORDING,
    RECORDING_NONE,
    RecordingFlag,
    RecordingForm,
    RecordingKind,
)

from .specimens import BAR, BASE, Card, Gadget, ObservedBench


class Recorded:
    """A bench whose recording is read by its declaration."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "run.ioreq"
        self.gadget, self.card = Gadget("gadget", base="0x300"), Card("card", addr="3")
        recorder = Recorder(Output("record", str(self.path)), {"card": "my.py:Card"})
        self.bench = ObservedBench(self.gadget, self.card, sinks=[recorder])
        self._seen = 0
        self.new()

    def parsed(self) -> Any:
        return RECORDING.parse(self.path.read_bytes())

    def new(self) -> list[Any]:
        records = self.parsed().records
        found, self._seen = records[self._seen :], len(records)
        return list(found)


def test_the_header_names_machine_devices_places_and_options(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path).parsed()
    assert recorded.header.kind == b"bench"
    gadget, card = recorded.devices
    assert (gadget.name, gadget.source, gadget.devfn) == (b"gadget", b"", RECORDING_NONE)
    assert gadget.class_name == f"{Gadget.__module__}:Gadget".encode()
    assert [(o.key, o.value) for o in gadget.options] == [(b"base", b"768")]
    assert (card.name, card.source, card.devfn) == (b"card", b"my.py:Card", 0x18)


def test_an_access_has_its_place_shape_data_and_time(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path)
    bench = recorded.bench
    bench.host_time = 77
    bench.write(BASE, 0x31, 2)
    bench.read(BASE + 8)
    bench.machine.bus.write_string(0, BASE + 4, 1, b"abc")
    write, read, string = recorded.new()
    assert (write.kind, write.time, write.device) == (RecordingKind.ACCESS, 77, 0)
    assert list(write.numbers) == [0, RecordingForm.ELEMENT, 0, 2, 1, 0, BASE, 0]
    assert write.data == b"\x31\x00"
    assert list(read.numbers) == [0, RecordingForm.ELEMENT, 1, 1, 1, 0, BASE + 8, 1]
    assert read.data == b"\x21"
    assert list(string.numbers)[1:6] == [RecordingForm.STRING, 0, 1, 3, 0]
    assert string.data == b"abc"


def test_dma_and_interrupts_are_inner_records_of_their_access(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path)
    bench = recorded.bench
    bench.enable_card(0x18)
    bench.memory.write(0x1000, b"data")
    bench.store(BAR + 4, 0x1000)
    bench.store(BAR + 8, 4)
    recorded.new()
    bench.store(BAR + 12, 1)
    access, read, write, line = recorded.new()
    assert not access.flags
    assert all(one.flags == RecordingFlag.INNER for one in (read, write, line))
    assert (read.kind, list(read.numbers), read.data) == (
        RecordingKind.DMA_READ,
        [0x1000, 4],
        b"data",
    )
    assert (write.kind, list(write.numbers), write.data) == (
        RecordingKind.DMA_WRITE,
        [0x1004, 4],
        b"data",
    )
    assert (line.kind, list(line.numbers)) == (RecordingKind.INTX, [3, 0, 1])


def test_failures_late_answers_and_unclaimed_accesses_are_marked(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path)
    with pytest.raises(ZeroDivisionError):
        recorded.bench.read(BASE + 9)
    with pytest.raises(Deferral):
        recorded.bench.read(BASE + 10)
    recorded.gadget.waiting.complete(7)
    recorded.bench.read(0x80)
    failed, deferred, answer, unclaimed = recorded.new()
    assert (failed.flags, failed.data) == (RecordingFlag.FAILED, b"")
    assert (deferred.flags, deferred.data) == (RecordingFlag.DEFERRED, b"")
    assert (answer.kind, list(answer.numbers)) == (RecordingKind.ANSWER, [deferred.numbers[7], 7])
    assert (unclaimed.flags, unclaimed.device) == (RecordingFlag.SHARED, RECORDING_NONE)


def test_host_input_and_output_are_recorded(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path)
    character = FakeCharacter()
    recorded.gadget.console.attach(character)
    character.feed(b"hi")
    recorded.bench.write(BASE + 11, 0x41)
    received, _, sent = recorded.new()
    assert (received.kind, received.name, received.data) == (RecordingKind.INPUT, b"console", b"hi")
    assert (sent.kind, list(sent.numbers), sent.data) == (RecordingKind.OUTPUT, [1], b"A")


def test_a_look_at_a_clock_that_moved_on_is_recorded(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path)
    recorded.bench.read(BASE + 14)
    assert len(recorded.new()) == 1
    times = iter([5, 6, 7])
    recorded.bench.machine.clock._host_now = lambda: next(times, 8)
    recorded.bench.read(BASE + 14)
    access, look = recorded.new()
    assert (access.time, look.kind, look.time) == (5, RecordingKind.NOW, 6)


def test_timers_resets_and_loaded_state_are_recorded(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path)
    machine = recorded.bench.machine
    recorded.bench.write(BASE, 1, 2)
    recorded.bench.advance(5000)
    kinds = [(one.kind, one.name, one.time) for one in recorded.new()]
    assert (RecordingKind.TIMER, b"alarm", 1000) in kinds
    machine.reset()
    assert recorded.new()[0].kind == RecordingKind.RESET
    machine.stop()
    data = save(machine)
    load(machine, data)
    state = recorded.new()[0]
    assert state.kind == RecordingKind.STATE
    assert list(parse(state.data).devices) == ["gadget", "card"]


def test_a_file_that_was_cut_off_anywhere_is_read_to_the_last_whole_record(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path)
    whole = recorded.path.read_bytes()
    recorded.bench.write(BASE, 0x31, 2)
    recorded.bench.read(BASE + 8)
    data = recorded.path.read_bytes()
    total = len(RECORDING.parse(data).records)
    for end in range(len(whole), len(data)):
        records = RECORDING.parse(data[:end]).records
        assert len(records) < total
        assert records == RECORDING.parse(data).records[: len(records)]
