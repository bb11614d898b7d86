"""The scripted bus does what a guest would do, and tells a wrong test from a wrong device."""

from __future__ import annotations

import pytest

from dm.testing import ScriptedBus

from .specimens import Card, Echo

BAR = 0x1_E000_0000
PORTS = 0xC000


@pytest.fixture
def card() -> Card:
    return Card("card", addr="4")


@pytest.fixture
def mapped(card: Card) -> ScriptedBus:
    bus = ScriptedBus(card, Echo("echo"))
    assert bus.map_bar(card, 0, BAR) == BAR
    assert bus.map_bar(card, 2, PORTS) == PORTS
    return bus


@pytest.mark.parametrize("bits", [8, 16, 32, 64])
def test_mmio_of_every_width_goes_both_ways(mapped: ScriptedBus, bits: int) -> None:
    value = 0x8877665544332211 & (1 << bits) - 1
    getattr(mapped, f"write{bits}")(BAR + 8, value)
    assert getattr(mapped, f"read{bits}")(BAR + 8) == value
    assert mapped.read64(BAR + 8) == value


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_ports_of_every_width_go_both_ways(mapped: ScriptedBus, bits: int) -> None:
    value = 0x44332211 & (1 << bits) - 1
    getattr(mapped, f"out{bits}")(PORTS, value)
    assert getattr(mapped, f"in{bits}")(PORTS) == value
    assert mapped.in32(PORTS) == value


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_configuration_space_of_every_width_goes_both_ways(
    mapped: ScriptedBus, card: Card, bits: int
) -> None:
    value = 0x44332211 & (1 << bits) - 1
    getattr(mapped, f"config_write{bits}")(card, 0x48, value)
    assert getattr(mapped, f"config_read{bits}")(card.devfn, 0x48) == value


def test_a_value_that_does_not_fit_is_the_tests_mistake(mapped: ScriptedBus) -> None:
    with pytest.raises(ValueError, match="0x100 does not fit into 1 bytes"):
        mapped.write8(BAR, 0x100)
    with pytest.raises(ValueError, match="does not fit"):
        mapped.out16(PORTS, -1)


def test_strings_and_blocks_move_whole(mapped: ScriptedBus) -> None:
    mapped.write_block(BAR + 0x80, b"abcdefgh")
    assert mapped.read_block(BAR + 0x80, 8) == b"abcdefgh"
    mapped.outs(0x200, 1, b"hello")
    assert mapped.ins(0x200, 1, 2) == b"oo"


@pytest.mark.parametrize(("bar", "base"), [(1, BAR), (0, BAR + 4), (0, 0)])
def test_a_bar_is_only_placed_where_it_can_be(
    mapped: ScriptedBus, card: Card, bar: int, base: int
) -> None:
    with pytest.raises(ValueError, match="BAR"):
        mapped.map_bar(card, bar, base)


def test_unclaimed_addresses_read_as_ones(mapped: ScriptedBus) -> None:
    assert mapped.read32(0xE0000000) == 0xFFFFFFFF


def test_time_moves_only_by_advance(mapped: ScriptedBus, card: Card) -> None:
    mapped.write32(BAR, 1_500_000)
    mapped.advance(ms=1, us=499, ns=999)
    assert (mapped.now, mapped.intx(card)) == (1_499_999, 0)
    mapped.advance(ns=1)
    assert (mapped.now, mapped.intx(card)) == (1_500_000, 1)
    mapped.write32(BAR + 4, 1)
    assert mapped.intx(card) == 0
    mapped.advance(s=1)
    assert mapped.now == 1_001_500_000


def test_a_message_takes_the_place_of_the_pin(mapped: ScriptedBus, card: Card) -> None:
    mapped.enable_msi(card, data=0x41)
    mapped.write32(BAR, 1)
    mapped.advance(ns=1)
    assert mapped.msis == [(0xFEE00000, 0x41)]
    assert mapped.intx(card) == mapped.intx(card, 2) == 0


def test_what_a_timers_handler_raises_comes_out(mapped: ScriptedBus) -> None:
    mapped.write32(BAR, 13)
    with pytest.raises(ZeroDivisionError, match="thirteen"):
        mapped.advance(ns=13)


def test_a_timer_without_end_is_found(mapped: ScriptedBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dm.testing.scripted.FIRES_LIMIT", 100)
    mapped.write32(BAR, 0)
    with pytest.raises(AssertionError, match="100 times"):
        mapped.advance(ns=1)


def test_devices_reach_the_guests_memory(mapped: ScriptedBus) -> None:
    mapped.memory[0x1000:0x1004] = b"data"
    mapped.write64(BAR + 8, 0x1000)
    mapped.write32(BAR, 1)
    mapped.advance(ns=1)
    assert mapped.read_block(BAR + 0x80, 4) == b"data"


def test_guest_memory_is_bytes_and_words() -> None:
    memory = ScriptedBus(memory=0x100).memory
    memory.write32(0, 0x04030201)
    memory.write(4, b"\x05")
    assert (memory.read(0, 5), memory.read32(1)) == (b"\1\2\3\4\5", 0x05040302)
    assert memory[:2] == b"\1\2"
    assert len(memory[0xFE:]) == 2


@pytest.mark.parametrize("gpa", [slice(0xFF, 0x101), slice(-4, 0), slice(0, 8, 2)])
def test_guest_memory_that_is_not_there_is_the_tests_mistake(gpa: slice) -> None:
    memory = ScriptedBus(memory=0x100).memory
    with pytest.raises(IndexError):
        _ = memory[gpa]


def test_guest_memory_is_not_written_in_part() -> None:
    with pytest.raises(ValueError, match="do not fill"):
        ScriptedBus().memory[0:4] = b"abc"


def test_a_chardev_speaks_and_listens(mapped: ScriptedBus) -> None:
    mapped.out8(0x200, 0x41)
    chardev = mapped.chardev()
    assert (chardev.output, chardev.take(), chardev.take()) == (b"A", b"A", b"")
    assert mapped.irq(5) == 1
    mapped.out8(0x200, 0)
    assert mapped.irq(5) == 0
    chardev.feed(b"x")
    assert (mapped.in8(0x200), mapped.irq(5)) == (0x78, 1)
    assert mapped.chardev(mapped.devices[1], "serial") is chardev


def test_a_plug_that_is_not_there_is_named(mapped: ScriptedBus, card: Card) -> None:
    with pytest.raises(LookupError, match="console"):
        mapped.chardev(plug="console")
    with pytest.raises(LookupError, match="Character"):
        mapped.chardev(card)


def test_a_reset_and_a_reload_are_the_machines(mapped: ScriptedBus, card: Card) -> None:
    mapped.write32(BAR + 8, 0x1234)
    saved = mapped.save()
    mapped.reset()
    assert mapped.read32(BAR + 8) == 0xFFFFFFFF
    mapped.load(saved)
    assert mapped.read32(BAR + 8) == 0x1234
    mapped.write32(BAR, 10)
    mapped.advance(ns=10)
    assert mapped.intx(card) == 1
