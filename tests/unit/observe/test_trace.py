"""The text trace: a line for each thing, fields by name, equal lines for equal accesses."""

from __future__ import annotations

from pathlib import Path

import pytest

from devices.edu import Edu
from dm import ConfigError
from dm.machine.fakes import FakeCharacter, TestBench
from dm.observe.filter import Filter
from dm.observe.output import Output
from dm.observe.trace import TextTrace

from .specimens import BAR, BASE, Card, Gadget, Kept, ObservedBench


class Traced:
    """A bench, and the lines that its trace gained since they were read last."""

    def __init__(self, folder: Path, *, timed: bool = False, wanted: Filter | None = None) -> None:
        self.path = folder / "trace"
        self.gadget, self.card = Gadget("gadget"), Card("card", addr="3")
        trace = TextTrace(Output("trace", str(self.path)), wanted or Filter(), timed=timed)
        self.bench = ObservedBench(self.gadget, self.card, sinks=[trace])
        self._seen = 0
        self.lines()

    def lines(self) -> list[str]:
        text = self.path.read_text()
        new, self._seen = text[self._seen :], len(text)
        return new.splitlines()


def test_an_access_is_a_line_with_device_register_width_value_and_fields(tmp_path: Path) -> None:
    traced = Traced(tmp_path)
    traced.bench.write(BASE, 0x0130, 2)
    traced.bench.read(BASE, 2)
    assert traced.lines() == [
        "gadget ports.control write16 0x0130 enable=0 mode=turbo pending=1",
        "gadget ports.control read16 0x0030 enable=0 mode=turbo pending=0",
    ]


def test_time_stands_in_front_when_asked_for(tmp_path: Path) -> None:
    traced = Traced(tmp_path, timed=True)
    traced.bench.advance(1_234_567_890)
    traced.bench.read(BASE + 8)
    assert traced.lines() == ["1.234567890 gadget ports.version read8 0x21"]


def test_parts_arrays_and_several_registers_are_named(tmp_path: Path) -> None:
    traced = Traced(tmp_path)
    traced.bench.write(BASE + 1, 0x01)
    traced.bench.read(BASE + 5)
    traced.bench.write(BASE + 6, 0x0201, 2)
    traced.bench.config_read(0x18, 0)
    assert traced.lines() == [
        "gadget ports.control+1 write8 0x01 pending=1",
        "gadget ports.table[1] read8 0x00",
        "gadget ports.table[2],table[3] write16 0x0201 table[2]=1 table[3]=2",
        "card config.vendor_id,device_id read32 0x56781234 vendor_id=0x1234 device_id=0x5678",
    ]


def test_what_nobody_declared_or_claims_is_named(tmp_path: Path) -> None:
    traced = Traced(tmp_path)
    traced.bench.read(BASE + 13)
    traced.bench.read(BASE, 4)
    traced.bench.write(0x80, 0x55)
    traced.bench.load(0xFEE0_0000)
    traced.bench.config_read(0x28, 0, 2)
    assert traced.lines() == [
        "gadget ports.+0xd read8 0xff (not declared)",
        "gadget ports.control read32 0xffffffff (no access of this size)",
        "nobody port 0x80 write8 0x55",
        "nobody memory 0xfee00000 read32 0xffffffff",
        "nobody 00:05.0+0x0 read16 0xffff",
    ]


def test_strings_and_blocks_are_one_line(tmp_path: Path) -> None:
    traced = Traced(tmp_path)
    traced.bench.enable_card(0x18)
    traced.lines()
    traced.bench.machine.bus.write_string(0, BASE + 4, 1, b"abc")
    traced.bench.machine.bus.read_block(1, BAR + 16, 4, 8, 4)
    traced.bench.machine.bus.write_block(1, BAR + 20, 4, -4, bytes(range(8)))
    assert traced.lines() == [
        "gadget ports.table[0] write8 string x3 61 62 63",
        "card registers.memory read32 block x8 " + "00 " * 16 + "… (32 bytes, crc32 190a55ad)",
        "card registers.memory write32 block x2 down 00 01 02 03 04 05 06 07",
    ]


def test_timers_and_interrupts_are_lines_of_their_own_after_what_caused_them(
    tmp_path: Path,
) -> None:
    traced = Traced(tmp_path)
    traced.bench.write(BASE, 1, 2)
    traced.bench.advance(5000)
    traced.bench.write(BASE, 0x100, 2)
    assert traced.lines() == [
        "gadget ports.control write16 0x0001 enable=1 mode=idle pending=0",
        "gadget timer alarm fires",
        "gadget ISA IRQ 5 level 1",
        "gadget ports.control write16 0x0100 enable=0 mode=idle pending=1",
        "gadget ISA IRQ 5 level 0",
    ]


def test_dma_intx_and_msi_are_lines(tmp_path: Path) -> None:
    traced = Traced(tmp_path)
    bench = traced.bench
    bench.enable_card(0x18)
    bench.memory.write(0x1000, b"data")
    bench.store(BAR + 4, 0x1000)
    bench.store(BAR + 8, 4)
    traced.lines()
    bench.store(BAR + 12, 1)
    assert traced.lines() == [
        "card registers.go write32 0x00000001",
        "card DMA read 0x1000 4 bytes 64 61 74 61",
        "card DMA write 0x1004 4 bytes 64 61 74 61",
        "card INTA of slot 3 level 1",
    ]
    bench.store(BAR, 0)
    bench.config_write(0x18, 0x44, 0xFEE0_0000)
    bench.config_write(0x18, 0x4C, 0x41, 2)
    bench.config_write(0x18, 0x42, 0x81, 2)
    traced.lines()
    bench.store(BAR, 1)
    assert traced.lines() == [
        "card registers.status write32 0x00000001",
        "card MSI 0xfee00000 data 0x41",
    ]


def test_errors_and_late_answers_are_told(tmp_path: Path) -> None:
    traced = Traced(tmp_path)
    with pytest.raises(ZeroDivisionError):
        traced.bench.read(BASE + 9)
    with pytest.raises(Exception, match="answers later"):
        traced.bench.read(BASE + 10)
    traced.gadget.waiting.complete(7)
    assert traced.lines() == [
        "gadget ports.fault read8 !ZeroDivisionError: a bug",
        "gadget ports.later read8 is answered later",
        "gadget ports.later answers 0x7",
    ]


def test_characters_are_told_in_both_directions(tmp_path: Path) -> None:
    traced = Traced(tmp_path)
    character = FakeCharacter()
    traced.gadget.console.attach(character)
    traced.bench.write(BASE + 11, 0x41)
    character.feed(b"hi")
    assert traced.lines() == [
        "gadget ports.stream write8 0x41",
        "gadget console sends 41",
        "gadget console receives 68 69",
    ]
    assert character.sent == b"A"


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Filter(device="card"), ["card config.command"]),
        (
            Filter(register="control"),
            ["gadget ports.control", "gadget ISA", "gadget ports.control"],
        ),
        (Filter(register="ports.control", direction="read"), ["gadget ports.control"]),
        (Filter(register="table"), ["gadget ports.table[2]"]),
        (Filter(register="table[2]"), ["gadget ports.table[2]"]),
        (Filter(register="+0xd"), ["gadget ports.+0xd"]),
        (
            Filter(device="gadget", direction="write"),
            ["gadget ports.control", "gadget ISA", "gadget ports.table[2]"],
        ),
    ],
)
def test_filters_choose_by_device_register_and_direction(
    tmp_path: Path, wanted: Filter, expected: list[str]
) -> None:
    traced = Traced(tmp_path, wanted=wanted)
    traced.gadget.ports.control.pending = 1
    traced.gadget.settle()
    traced.lines()
    traced.bench.write(BASE, 0x100, 2)
    traced.bench.read(BASE, 2)
    traced.bench.write(BASE + 6, 1)
    traced.bench.read(BASE + 13)
    traced.bench.config_read(0x18, 4, 2)
    found = traced.lines()
    assert len(found) == len(expected)
    assert all(line.startswith(start) for line, start in zip(found, expected, strict=True)), found


def test_a_filter_by_a_direction_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="read or write"):
        Filter(direction="sideways")


def test_an_observed_machine_answers_as_a_plain_one(tmp_path: Path) -> None:
    plain, seen = TestBench(Edu("edu", addr="3")), ObservedBench(Edu("edu", addr="3"), sinks=[])
    for bench in (plain, seen):
        bench.config_write(0x18, 0x10, BAR)
        bench.config_write(0x18, 4, 6, 2)
        bench.store(BAR + 8, 5)
        bench.store(BAR + 0x20, 0x80)
        bench.advance(10**9)
    for offset in range(0, 0x98, 4):
        assert plain.load(BAR + offset) == seen.load(BAR + offset)
    assert plain.platform.intx == seen.platform.intx
    assert plain.machine.buffer == seen.machine.buffer


def test_an_observed_machine_enters_nothing_into_dispatch_tables() -> None:
    bench = ObservedBench(Gadget("gadget"), sinks=[])
    bench.read(BASE)
    bench.read(BASE + 4, 2)
    assert not any(bench.machine.spaces.reads.values())
    assert not any(bench.machine.spaces.writes.values())


def test_access_events_say_how_long_the_device_took() -> None:
    kept = Kept()
    bench = ObservedBench(Gadget("gadget"), sinks=[kept])
    bench.read(BASE + 8)
    assert kept.accesses[-1].took > 0


def test_a_file_that_cannot_be_made_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"-observe trace=.*/no/file: No such file"):
        Output("trace", str(tmp_path / "no/file"))


def test_a_full_disk_ends_the_trace_and_not_the_machine(
    caplog: pytest.LogCaptureFixture,
) -> None:
    trace = TextTrace(Output("trace", "/dev/full"), Filter(), timed=False)
    bench = ObservedBench(Gadget("gadget"), sinks=[trace])
    assert [bench.read(BASE + 8) for _ in range(3)] == [0x21] * 3
    assert len(caplog.records) == 1
    assert "No space left" in caplog.text
