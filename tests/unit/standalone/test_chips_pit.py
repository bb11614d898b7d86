"""The 8254 and port 0x61 in virtual time."""

from __future__ import annotations

import itertools

import pytest

from tests.unit.standalone.chips_support import SECOND, Pc
from tools.hypervisor.chips.pit import FREQUENCY, SHORTEST_PERIOD


@pytest.fixture
def pc() -> Pc:
    return Pc()


def program(pc: Pc, channel: int, mode: int, count: int, access: int = 3, bcd: int = 0) -> None:
    pc.outb(0x43, channel << 6 | access << 4 | mode << 1 | bcd)
    if access & 1:
        pc.outb(0x40 + channel, count & 0xFF)
    if access & 2:
        pc.outb(0x40 + channel, count >> 8)


def pass_ticks(pc: Pc, ticks: int) -> None:
    """Let that many clock periods pass, and half of one more."""
    pc.pass_time(-(-(2 * ticks + 1) * SECOND // (2 * FREQUENCY)))


def counter(pc: Pc, channel: int) -> int:
    pc.outb(0x43, channel << 6)
    return pc.in_(0x40 + channel) | pc.in_(0x40 + channel) << 8


def out2(pc: Pc) -> int:
    return pc.in_(0x61) >> 5 & 1


def edges(pc: Pc) -> list[int]:
    """The instants of the rises of IRQ 0 from now on."""
    seen: list[int] = []
    pc.lines.listeners.append(
        lambda gsi, level: seen.append(pc.clock.now()) if gsi == 2 and level else None
    )
    return seen


@pytest.mark.parametrize("mode", [2, 3, 6, 7])
def test_seabios_ticks_come_18_times_a_second(mode: int, pc: Pc) -> None:
    seen = edges(pc)
    program(pc, 0, mode, 0)
    pc.pass_time(10 * SECOND)
    assert len(seen) == 10 * FREQUENCY // 65536
    assert all(abs(at - n * 65536 * SECOND // FREQUENCY) <= 1 for n, at in enumerate(seen, 1))


def test_nothing_ticks_before_it_is_programmed_as_in_xen(pc: Pc) -> None:
    seen = edges(pc)
    pc.pass_time(SECOND)
    assert (seen, pc.clock.next_deadline()) == ([], None)


def test_a_control_word_stops_the_ticks_until_the_count_is_whole(pc: Pc) -> None:
    program(pc, 0, 2, 1000)
    seen = edges(pc)
    pc.outb(0x43, 0x34)
    pc.outb(0x40, 0)
    pc.pass_time(SECOND)
    assert seen == []
    pc.outb(0x40, 0x80)
    pc.pass_time(SECOND)
    assert len(seen) == FREQUENCY // 0x8000


def test_mode_0_interrupts_once_and_leaves_the_line_up(pc: Pc) -> None:
    seen = edges(pc)
    program(pc, 0, 0, 1193)
    pc.pass_time(SECOND)
    assert (len(seen), pc.lines.level(2)) == (1, 1)
    program(pc, 0, 0, 1193)
    assert pc.lines.level(2) == 0
    pc.pass_time(SECOND)
    assert len(seen) == 2


def test_mode_4_interrupts_once(pc: Pc) -> None:
    seen = edges(pc)
    program(pc, 0, 4, 1193)
    pc.pass_time(SECOND)
    assert len(seen) == 1


@pytest.mark.parametrize("mode", [1, 5])
def test_modes_that_wait_for_a_gate_never_interrupt_on_channel_0(mode: int, pc: Pc) -> None:
    seen = edges(pc)
    program(pc, 0, mode, 1193)
    pc.pass_time(SECOND)
    assert seen == []


@pytest.mark.parametrize("count", [1, 2, 3, 50, 118])
def test_a_divisor_that_is_too_small_does_not_make_the_host_spin(count: int, pc: Pc) -> None:
    seen = edges(pc)
    program(pc, 0, 2, count)
    pc.pass_time(SECOND)
    assert 0.5 * SECOND / SHORTEST_PERIOD < len(seen) <= SECOND / SHORTEST_PERIOD
    assert min(b - a for a, b in itertools.pairwise(seen)) >= SHORTEST_PERIOD


def test_ticks_that_the_host_missed_become_one_and_keep_their_phase(pc: Pc) -> None:
    seen = edges(pc)
    program(pc, 0, 2, 11932)
    pc.clock._now = 35_000_000
    pc.clock.run_due()
    assert len(seen) == 1
    pc.pass_time(5_100_000)
    assert len(seen) == 2


def test_a_counter_goes_down_from_its_count(pc: Pc) -> None:
    program(pc, 2, 2, 5000)
    pc.outb(0x61, 1)
    assert counter(pc, 2) == 5000
    pass_ticks(pc, 1234)
    assert counter(pc, 2) == 5000 - 1234
    pass_ticks(pc, 5000 - 1234)
    assert 4990 <= counter(pc, 2) <= 5000


def test_mode_0_counts_on_below_zero(pc: Pc) -> None:
    program(pc, 1, 0, 100)
    pass_ticks(pc, 103)
    assert counter(pc, 1) == 0xFFFD


def test_mode_3_counts_by_two_and_reloads_each_half(pc: Pc) -> None:
    program(pc, 1, 3, 1000)
    pass_ticks(pc, 100)
    assert counter(pc, 1) == 800
    pass_ticks(pc, 499)
    assert counter(pc, 1) in (800, 802)


def test_a_held_count_stays_while_time_passes_and_is_held_once(pc: Pc) -> None:
    program(pc, 1, 2, 0)
    pc.outb(0x43, 0x40)
    pass_ticks(pc, 300)
    pc.outb(0x43, 0x40)
    assert (pc.in_(0x41), pc.in_(0x41)) == (0x00, 0x00)
    assert counter(pc, 1) == 0x10000 - 300


def test_bytes_of_a_running_counter_alternate(pc: Pc) -> None:
    program(pc, 1, 0, 0x1234)
    assert [pc.in_(0x41) for _ in range(4)] == [0x34, 0x12, 0x34, 0x12]


@pytest.mark.parametrize(("access", "expected"), [(1, [0x34, 0x34]), (2, [0x12, 0x12])])
def test_one_byte_access_reads_and_writes_that_byte(
    access: int, expected: list[int], pc: Pc
) -> None:
    program(pc, 1, 0, 0x1234, access)
    assert [pc.in_(0x41) for _ in range(2)] == expected
    assert pc.board.pit.channels[1].count == (0x34 if access == 1 else 0x1200)


def test_read_back_holds_status_and_count_of_several_channels(pc: Pc) -> None:
    program(pc, 1, 2, 0x1234)
    program(pc, 2, 3, 0x5678, access=1)
    pc.outb(0x43, 0xC0 | 0x0C)
    assert [pc.in_(0x41) for _ in range(3)] == [0xB4, 0x34, 0x12]
    assert pc.in_(0x42) == 0x96


def test_bcd_counts_are_decimal(pc: Pc) -> None:
    program(pc, 1, 2, 0x1000, bcd=1)
    pass_ticks(pc, 1)
    assert counter(pc, 1) == 0x0999
    program(pc, 1, 2, 0x4321, bcd=1)
    assert (pc.board.pit.channels[1].count, counter(pc, 1)) == (4321, 0x4321)
    program(pc, 1, 2, 0, bcd=1)
    assert pc.board.pit.channels[1].count == 10000


def test_the_gate_holds_and_releases_mode_0(pc: Pc) -> None:
    pc.outb(0x61, 1)
    program(pc, 2, 0, 1000)
    pass_ticks(pc, 300)
    pc.outb(0x61, 0)
    held = counter(pc, 2)
    pass_ticks(pc, 5000)
    assert (counter(pc, 2), out2(pc)) == (held, 0)
    pc.outb(0x61, 1)
    pass_ticks(pc, 600)
    assert out2(pc) == 0
    pass_ticks(pc, 150)
    assert out2(pc) == 1


def test_a_rising_gate_starts_mode_1(pc: Pc) -> None:
    pc.outb(0x61, 0)
    program(pc, 2, 1, 1000)
    pass_ticks(pc, 5000)
    assert out2(pc) == 1
    pc.outb(0x61, 1)
    assert out2(pc) == 0
    pass_ticks(pc, 1000)
    assert out2(pc) == 1


def test_linux_calibrates_by_the_speaker_channel(pc: Pc) -> None:
    pc.outb(0x61, pc.in_(0x61) & ~2 | 1)
    program(pc, 2, 0, FREQUENCY // 20)
    waited = 0
    while not out2(pc):
        pc.pass_time(100_000)
        waited += 100_000
    assert abs(waited - SECOND // 20) <= 200_000


def test_port_61_has_gate_speaker_and_a_refresh_bit_that_toggles(pc: Pc) -> None:
    pc.outb(0x61, 0xFF)
    assert pc.in_(0x61) & 0x0F == 3
    before = pc.in_(0x61) & 0x10
    pc.pass_time(1 << 14)
    assert pc.in_(0x61) & 0x10 != before


def test_the_control_port_and_wide_accesses_read_as_ones(pc: Pc) -> None:
    assert (pc.in_(0x43), pc.in_(0x40, 2), pc.in_(0x40, 4)) == (0xFF, 0xFFFF, 0xFFFFFFFF)


@pytest.mark.parametrize("mode", [4, 5])
def test_a_strobe_is_low_for_one_clock_period(mode: int, pc: Pc) -> None:
    pc.outb(0x61, mode == 4)
    program(pc, 2, mode, 1000)
    pc.outb(0x61, 1)
    pass_ticks(pc, 999)
    assert out2(pc) == 1
    pass_ticks(pc, 0)
    assert out2(pc) == 0
    pass_ticks(pc, 1)
    assert out2(pc) == 1


def test_mode_2_is_low_for_one_clock_period_of_each_count(pc: Pc) -> None:
    pc.outb(0x61, 1)
    program(pc, 2, 2, 4)
    seen = []
    for _ in range(8):
        pc.pass_time(420)
        seen.append(out2(pc))
        pc.pass_time(418)
    assert seen == [1, 1, 1, 0, 1, 1, 1, 0]
    pc.outb(0x61, 0)
    assert out2(pc) == 1


def test_mode_3_is_high_for_the_longer_half_of_an_odd_count(pc: Pc) -> None:
    pc.outb(0x61, 1)
    program(pc, 2, 3, 5)
    seen = []
    for _ in range(10):
        pc.pass_time(420)
        seen.append((out2(pc), counter(pc, 2)))
        pc.pass_time(418)
    assert seen == [(1, 4), (1, 2), (1, 0), (0, 4), (0, 2)] * 2


def test_at_rest_nothing_is_gated_and_the_speaker_is_off(pc: Pc) -> None:
    assert pc.in_(0x61) & 0x03 == 0
    assert [channel.gate for channel in pc.board.pit.channels] == [1, 1, 0]
