"""The clock chip in virtual time: date, alarm, periodic and update interrupts."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.standalone.chips_support import EPOCH, SECOND, Pc
from tools.hypervisor.chips.calendar import civil, next_match, seconds_of
from tools.hypervisor.chips.rtc import UPDATE

SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR = 0, 2, 4, 6, 7, 8, 9
A, B, C, D = 10, 11, 12, 13
PF, AF, UF, IRQF = 0x40, 0x20, 0x10, 0x80
UIP = 0x80
BCD_24, BINARY_24, BCD_12, BINARY_12 = 0x02, 0x06, 0x00, 0x04


@pytest.fixture
def pc() -> Pc:
    return Pc()


def get(pc: Pc, index: int) -> int:
    pc.outb(0x70, index)
    return pc.in_(0x71)


def put(pc: Pc, index: int, value: int) -> None:
    pc.outb(0x70, index)
    pc.outb(0x71, value)


def date(pc: Pc) -> tuple[int, ...]:
    return tuple(get(pc, index) for index in (YEAR, MONTH, DAY, HOURS, MINUTES, SECONDS))


def set_time(pc: Pc, mode: int, hour: int, minute: int, second: int) -> None:
    """As QEMU's own test of its clock does: with the divider in reset."""
    put(pc, B, mode)
    put(pc, A, 0x76)
    for index, value in ((HOURS, hour), (MINUTES, minute), (SECONDS, second)):
        put(pc, index, value)
    put(pc, A, 0x26)


def rises(pc: Pc) -> list[int]:
    """The instants of the rises of IRQ 8 from now on."""
    seen: list[int] = []
    pc.lines.listeners.append(
        lambda gsi, level: seen.append(pc.clock.now()) if gsi == 8 and level else None
    )
    return seen


def test_the_clock_starts_at_its_epoch_and_goes_on_over_a_leap_day(pc: Pc) -> None:
    assert date(pc) == (0x00, 0x02, 0x28, 0x23, 0x59, 0x59)
    assert get(pc, WEEKDAY) == 1
    pc.pass_time(SECOND)
    assert date(pc) == (0x00, 0x02, 0x29, 0x00, 0x00, 0x00)
    pc.pass_time(86400 * SECOND)
    assert date(pc) == (0x00, 0x03, 0x01, 0x00, 0x00, 0x00)
    assert get(pc, WEEKDAY) == 3


@pytest.mark.parametrize(
    ("mode", "before", "after"),
    [
        (BCD_12, (0x81, 0x59, 0x59), (0x82, 0x00, 0x00)),
        (BCD_12, (0x12, 0x59, 0x59), (0x01, 0x00, 0x00)),
        (BCD_12, (0x92, 0x59, 0x59), (0x81, 0x00, 0x00)),
        (BCD_12, (0x11, 0x59, 0x59), (0x92, 0x00, 0x00)),
        (BCD_12, (0x91, 0x59, 0x59), (0x12, 0x00, 0x00)),
        (BINARY_12, (0x8B, 59, 59), (0x0C, 0, 0)),
        (BINARY_12, (0x0B, 59, 59), (0x8C, 0, 0)),
        (BCD_24, (0x09, 0x59, 0x59), (0x10, 0x00, 0x00)),
        (BINARY_24, (23, 59, 59), (0, 0, 0)),
    ],
)
def test_hours_pass_in_every_format(
    mode: int, before: tuple[int, int, int], after: tuple[int, int, int], pc: Pc
) -> None:
    set_time(pc, mode, *before)
    pc.pass_time(SECOND)
    assert date(pc)[3:] == after


def test_set_stops_the_date_and_its_release_starts_it(pc: Pc) -> None:
    put(pc, B, 0x80 | BCD_24)
    for index, value in ((YEAR, 0x11), (MONTH, 0x02), (DAY, 0x02), (HOURS, 0x02)):
        put(pc, index, value)
    put(pc, MINUTES, 0x04)
    put(pc, SECONDS, 0x58)
    pc.pass_time(10 * SECOND)
    assert date(pc) == (0x11, 0x02, 0x02, 0x02, 0x04, 0x58)
    put(pc, B, BCD_24)
    assert date(pc) == (0x11, 0x02, 0x02, 0x02, 0x04, 0x58)
    pc.pass_time(SECOND)
    assert date(pc) == (0x11, 0x02, 0x02, 0x02, 0x04, 0x59)


def test_the_first_update_ends_500_ms_after_a_divider_reset(pc: Pc) -> None:
    set_time(pc, BCD_24, 0x02, 0x04, 0x58)
    pc.pass_time(SECOND // 2 - UPDATE - 1)
    assert (get(pc, A) & UIP, get(pc, SECONDS)) == (0, 0x58)
    pc.pass_time(1)
    assert get(pc, A) & UIP
    pc.pass_time(UPDATE)
    assert (get(pc, A) & UIP, get(pc, SECONDS)) == (0, 0x59)


def test_no_update_is_announced_while_the_date_stands_still(pc: Pc) -> None:
    pc.pass_time(SECOND - UPDATE)
    assert get(pc, A) & UIP
    put(pc, B, 0x82)
    assert not get(pc, A) & UIP


def test_writing_one_part_sets_it_alone_and_tells_by_how_much(pc: Pc) -> None:
    put(pc, HOURS, 0x20)
    assert date(pc)[3:] == (0x20, 0x59, 0x59)
    assert pc.domain.offsets == [-3 * 3600]


@pytest.mark.parametrize("value", range(0, 256, 5))
def test_any_date_can_be_written(value: int, pc: Pc) -> None:
    for index in (SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR):
        put(pc, index, value)
        put(pc, B, value & 0x06)
        pc.pass_time(SECOND)
    assert all(0 <= part < 256 for part in date(pc))
    Pc().board.load(pc.board.save())


def test_the_update_interrupt_comes_each_second_that_is_read(pc: Pc) -> None:
    seen = rises(pc)
    put(pc, B, BCD_24 | UF)
    pc.pass_time(SECOND)
    assert (seen, pc.lines.level(8)) == ([SECOND], 1)
    pc.pass_time(SECOND)
    assert len(seen) == 1
    assert get(pc, C) & (IRQF | UF) == IRQF | UF
    assert pc.lines.level(8) == 0
    pc.pass_time(SECOND)
    assert seen == [SECOND, 3 * SECOND]


def test_an_alarm_comes_at_its_time_of_day(pc: Pc) -> None:
    seen = rises(pc)
    for index, value in ((5, 0x00), (3, 0x01), (1, 0x30), (B, BCD_24 | AF)):
        put(pc, index, value)
    pc.pass_time(3 * 86400 * SECOND)
    assert seen == [91 * SECOND]
    assert get(pc, C) & (IRQF | AF) == IRQF | AF
    assert get(pc, C) == 0
    pc.pass_time(86400 * SECOND)
    assert len(seen) == 2


def test_an_alarm_of_any_hour_and_minute_comes_each_minute(pc: Pc) -> None:
    for index, value in ((5, 0xC0), (3, 0xFF), (1, 0x02), (B, BCD_24 | AF)):
        put(pc, index, value)
    pc.pass_time(3 * SECOND)
    assert get(pc, C) & AF
    pc.pass_time(59 * SECOND)
    assert not get(pc, C) & AF
    pc.pass_time(SECOND)
    assert get(pc, C) & AF


def test_an_alarm_tells_morning_from_afternoon(pc: Pc) -> None:
    for index, value in ((3, 0xC0), (1, 0xC0), (B, BINARY_12), (5, 2)):
        put(pc, index, value)
    set_time(pc, BINARY_12, 3, 0, 0)
    get(pc, C)
    pc.pass_time(11 * 3600 * SECOND)
    assert (get(pc, HOURS), get(pc, C) & AF) == (0x82, 0)
    put(pc, 5, 0x82)
    pc.pass_time(SECOND)
    assert get(pc, C) & AF


@pytest.mark.parametrize(("rate", "hertz"), [(6, 1024), (15, 2), (13, 8), (3, 8192), (1, 256)])
def test_periodic_interrupts_come_at_their_rate_though_nobody_acknowledges(
    rate: int, hertz: int, pc: Pc
) -> None:
    seen = rises(pc)
    put(pc, A, 0x20 | rate)
    put(pc, B, BCD_24 | PF)
    pc.pass_time(SECOND)
    assert len(seen) in (hertz - 1, hertz)


def test_a_rate_that_changes_counts_from_the_last_tick(pc: Pc) -> None:
    seen = rises(pc)
    put(pc, A, 13)
    put(pc, B, BCD_24 | PF)
    for rate in (13, 15, 13, 15):
        put(pc, A, rate)
        before = len(seen)
        while len(seen) == before:
            pc.clock.advance_to(pc.clock.deadline)
    steps = [b - a for a, b in itertools.pairwise(seen)]
    assert steps == [SECOND // 2, SECOND // 8, SECOND // 2]


def test_flags_are_set_without_interrupts_being_enabled(pc: Pc) -> None:
    put(pc, 5, 0x12)
    pc.pass_time(2 * SECOND)
    assert get(pc, C) == PF | UF
    assert (get(pc, C), pc.lines.level(8)) == (0, 0)
    assert pc.clock.next_deadline() is None


def test_an_interrupt_that_is_enabled_after_its_event_comes_at_once(pc: Pc) -> None:
    pc.pass_time(2 * SECOND)
    put(pc, B, BCD_24 | UF)
    assert pc.lines.level(8) == 1


def test_registers_c_and_d_cannot_be_written(pc: Pc) -> None:
    put(pc, C, 0xFF)
    put(pc, D, 0x00)
    assert (get(pc, C), get(pc, D)) == (0, 0x80)


def test_the_emulator_gets_every_index_from_0x0e_on(pc: Pc) -> None:
    for index, mine in ((0x0D, True), (0x0E, False), (0x8F, False), (0x8B, True)):
        assert pc.port(0x70, 1).write(0x70, 1, index) is mine
        assert (pc.port(0x71, 1).read(0x71, 1) is not None) is mine
        assert pc.port(0x71, 1).write(0x71, 1, 0x02) is mine


def test_wide_accesses_are_swallowed(pc: Pc) -> None:
    pc.outb(0x70, 0x0B)
    pc.out(0x70, 0x0E0E, size=2)
    assert (pc.in_(0x70, 2), get(pc, B)) == (0xFFFF, 0x02)


START = datetime(2000, 1, 1, tzinfo=UTC)


@given(st.integers(0, 150 * 366 * 86400))
def test_dates_are_pythons(seconds: int) -> None:
    at = START + timedelta(seconds=seconds)
    unix = int(START.timestamp()) + seconds
    parts = (at.year, at.month, at.day, at.hour, at.minute, at.second)
    year, month, day, weekday, *rest = civil(unix)
    assert (year, month, day, *rest) == parts
    assert weekday == (at.weekday() + 1) % 7
    assert seconds_of(*parts) == unix


PART = st.none() | st.integers(0, 62)


@given(st.integers(0, 3 * 86400), PART, PART, PART)
def test_an_alarm_is_the_first_match_that_a_search_finds(
    after: int, hour: int | None, minute: int | None, second: int | None
) -> None:
    def matches(at: int) -> bool:
        parts = (at // 3600 % 24, at // 60 % 60, at % 60)
        return all(
            want in (None, got) for want, got in zip((hour, minute, second), parts, strict=True)
        )

    found = next_match(after, hour, minute, second)
    if found is None:
        assert (hour or 0) > 23 or (minute or 0) > 59 or (second or 0) > 59
        return
    assert matches(found)
    assert after < found <= after + 86400
    assert not any(matches(at) for at in range(max(after + 1, found - 4000), found))


def test_the_epoch_is_what_the_tests_think() -> None:
    assert civil(EPOCH // SECOND) == (2000, 2, 28, 1, 23, 59, 59)
