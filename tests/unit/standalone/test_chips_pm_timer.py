"""The PM timer, PM1a events and the SCI."""

from __future__ import annotations

import pytest

from tests.unit.standalone.chips_support import SECOND, Pc
from tools.hypervisor.chips.pm_timer import FREQUENCY

HALF = 1 << 31
FLIP = -(-HALF * SECOND // FREQUENCY)


@pytest.fixture
def pc() -> Pc:
    return Pc()


def test_the_timer_counts_32_bits_at_its_frequency(pc: Pc) -> None:
    pc.pass_time(SECOND)
    assert pc.in_(0xB008, 4) == FREQUENCY == 3_579_545
    pc.pass_time(2 * FLIP)
    assert pc.in_(0xB008, 4) < FREQUENCY + 2


def test_only_dword_reads_mean_anything(pc: Pc) -> None:
    pc.pass_time(SECOND)
    pc.out(0xB008, 0, size=4)
    assert (pc.in_(0xB008, 2), pc.in_(0xB00A, 1)) == (0xFFFF, 0xFF)
    assert pc.in_(0xB008, 4) == FREQUENCY


def test_each_flip_of_the_highest_bit_is_noted_until_it_is_cleared(pc: Pc) -> None:
    pc.pass_time(FLIP - 1)
    assert pc.in_(0xB000, 2) == 0
    pc.pass_time(1)
    assert pc.in_(0xB000, 2) == 1
    pc.out(0xB000, 1)
    assert pc.in_(0xB000, 2) == 0
    pc.pass_time(FLIP)
    assert pc.in_(0xB000, 2) == 1


def test_an_enabled_flip_asserts_the_sci_by_itself(pc: Pc) -> None:
    pc.out(0xB002, 1, size=2)
    pc.pass_time(FLIP)
    assert pc.lines.level(9) == 1
    pc.out(0xB000, 1, size=2)
    assert pc.lines.level(9) == 0
    pc.pass_time(FLIP)
    assert pc.lines.level(9) == 1
    pc.out(0xB002, 0, size=2)
    assert pc.lines.level(9) == 0


def test_nothing_waits_while_nothing_is_enabled(pc: Pc) -> None:
    assert pc.clock.next_deadline() is None


def test_buttons_are_events(pc: Pc) -> None:
    pc.out(0xB000, 0x0100 << 16, size=4)
    pc.board.timekeepers.pm_timer.press_sleep_button()
    assert (pc.in_(0xB001), pc.lines.level(9)) == (0x02, 0)
    pc.board.timekeepers.pm_timer.press_power_button()
    assert (pc.in_(0xB001), pc.lines.level(9)) == (0x03, 1)
    pc.out(0xB001, 0x01)
    assert (pc.in_(0xB000, 4), pc.lines.level(9)) == (0x01000200, 0)


def test_bytes_of_enable_are_written_alone(pc: Pc) -> None:
    pc.out(0xB002, 0xABCD, size=2)
    pc.out(0xB003, 0x12)
    assert pc.in_(0xB002, 2) == 0x12CD


def test_the_block_is_where_its_location_says(pc: Pc) -> None:
    assert pc.port(0x1F48, 4).read(0x1F48, 4) is None
    assert pc.port(0x1F40, 4).write(0x1F40, 4, 0) is False
    pc.board.timekeepers.pm_timer.location = 0
    assert pc.in_(0x1F48, 4) == 0
    assert pc.port(0xB000, 4).read(0xB000, 4) is None


@pytest.mark.parametrize("port", [0xB004, 0xB005, 0xB00C])
def test_control_and_the_rest_are_the_emulators(port: int, pc: Pc) -> None:
    assert pc.domain.intercepts.find(0, port, 1) is None
