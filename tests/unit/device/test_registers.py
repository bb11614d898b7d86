"""Registers: what each access kind does, in whole and in part, and mistakes in declaring them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dm import (
    KEPT,
    RC,
    RO,
    RW,
    W1C,
    WO,
    Access,
    Bank,
    Bit,
    DeclarationError,
    Device,
    Field,
    IsaLine,
    PortWindow,
    Register,
    Transient,
)
from dm.machine.fakes import TestBench

BASE = 0x200


class Mixed(Register, width=32, reset=0x00FF00A5):
    """One field of every kind; bits 31..24 and 15..12 are reserved."""

    plain = Field(3, 0)
    fixed = Field(7, 4, access=RO)
    sticky = Field(11, 8, access=W1C)
    command = Field(19, 16, access=WO)
    event = Field(23, 20, access=RC)


class Ports(Bank, size=32, width=8, gap=0xEE):
    mixed = Mixed.at(0)
    plain = Register.at(4, width=16, reset=0x1234)
    fixed = Register.at(6, access=RO, reset=0x77)
    secret = Register.at(7, access=WO)
    kept = Register.at(8, access=KEPT)
    once = Register.at(9, access=RC, reset=0x0F)
    sticky = Register.at(10, access=W1C, reset=0xFF)
    limited = Register.at(11, writable=0x3C)
    table = Register.array(12, 3, stride=2, width=8, reset=5)
    long = Register.at(24, width=64)


class Sample(Device):
    ports = PortWindow(Ports, at=BASE)
    log = Transient()

    def on_reset(self) -> None:
        self.log = []

    @Ports.mixed.on_write
    def _mixed(self, new: int, old: int) -> None:
        self.log.append((new, old))

    @Ports.secret.on_write
    def _secret(self, new: int, old: int) -> None:
        self.log.append((new, old))

    @Ports.table.on_write
    def _table(self, index: int, new: int, old: int) -> None:
        self.log.append((index, new, old))


def made() -> tuple[TestBench, Sample]:
    device = Sample()
    return TestBench(device), device


class TestAccessKinds:
    def test_a_write_reaches_each_bit_by_its_own_rule(self) -> None:
        bench, device = made()
        device.ports.mixed.sticky = 0xF
        bench.write(BASE, 0xFFFF5A3C, 4)
        # plain C, fixed A kept, sticky F & ~A, reserved at their reset value, command not kept.
        assert device.ports.mixed.value == 0x00FF05AC
        assert device.log == [(0x00FF05AC | 0x000F0000, 0x00FF0FA5)]

    def test_write_only_bits_reach_the_handler_as_written_and_read_as_zero(self) -> None:
        bench, device = made()
        device.ports.mixed.value = 0
        bench.write(BASE, 0x00050000, 4)
        assert device.log == [(0x00050000, 0)]
        assert bench.read(BASE, 4) == 0
        bench.write(BASE + 7, 0x5A)
        assert device.log[1:] == [(0x5A, 0)]

    def test_reading_clears_read_to_clear_bits_only(self) -> None:
        bench, _ = made()
        assert bench.read(BASE, 4) == 0x00F000A5
        assert bench.read(BASE, 4) == 0x000000A5
        assert [bench.read(BASE + 9), bench.read(BASE + 9)] == [0x0F, 0]

    def test_a_write_does_not_clear_read_to_clear_bits(self) -> None:
        bench, _ = made()
        bench.write(BASE + 9, 0xFF)
        assert bench.read(BASE + 9) == 0x0F

    def test_writing_one_clears_and_writing_zero_does_not(self) -> None:
        bench, _ = made()
        bench.write(BASE + 10, 0x0A)
        assert bench.read(BASE + 10) == 0xF5
        bench.write(BASE + 10, 0)
        assert bench.read(BASE + 10) == 0xF5

    def test_read_only_stays(self) -> None:
        bench, _ = made()
        bench.write(BASE + 6, 0)
        assert bench.read(BASE + 6) == 0x77

    def test_kept_is_stored_and_reads_as_a_gap(self) -> None:
        bench, device = made()
        bench.write(BASE + 8, 0x42)
        assert device.ports.kept.value == 0x42
        assert bench.read(BASE + 8) == 0xEE

    def test_a_write_only_register_reads_as_a_gap(self) -> None:
        bench, _ = made()
        assert bench.read(BASE + 7) == 0xEE

    def test_a_writable_mask_replaces_what_the_access_says(self) -> None:
        bench, _ = made()
        bench.write(BASE + 11, 0xFF)
        assert bench.read(BASE + 11) == 0x3C

    def test_an_access_kind_says_its_name(self) -> None:
        assert [repr(kind) for kind in (RW, RO, WO, W1C, RC)] == ["RW", "RO", "WO", "W1C", "RC"]
        assert repr(Access("LOCK", stores=True)) == "LOCK"


class TestPartialAccesses:
    def test_a_part_of_a_register_is_written_with_the_rest_left_alone(self) -> None:
        bench, _ = made()
        bench.write(BASE + 5, 0xAB)
        assert bench.read(BASE + 4, 2) == 0xAB34
        assert [bench.read(BASE + 4), bench.read(BASE + 5)] == [0x34, 0xAB]

    def test_a_part_passes_and_clears_only_its_own_bits(self) -> None:
        bench, device = made()
        device.ports.mixed.sticky = 0xF
        bench.write(BASE + 2, 0xFF)
        assert device.log == [(0x00FF0FA5, 0x00FF0FA5)]
        bench.write(BASE + 1, 0x05)
        assert device.ports.mixed.sticky == 0xA

    def test_a_partial_read_clears_once_for_the_whole_register(self) -> None:
        bench, device = made()
        assert bench.read(BASE + 2) == 0xF0
        assert device.ports.mixed.event == 0

    def test_an_access_over_two_registers_touches_each_once(self) -> None:
        bench, device = made()
        bench.write(BASE + 3, 0x99887766, 4)
        assert bench.read(BASE + 4, 2) == 0x8877
        assert len(device.log) == 1

    def test_gaps_between_elements_of_an_array_are_gaps(self) -> None:
        bench, _ = made()
        assert [bench.read(BASE + 12 + i) for i in range(6)] == [5, 0xEE, 5, 0xEE, 5, 0xEE]

    def test_a_handler_of_an_array_gets_the_index_first(self) -> None:
        bench, device = made()
        bench.write(BASE + 14, 9)
        assert device.log == [(1, 9, 5)]
        assert [element.value for element in device.ports.table] == [5, 9, 5]

    @given(st.integers(0, 40), st.sampled_from((1, 2, 4, 8)), st.integers(0, (1 << 64) - 1))
    def test_an_access_is_the_sum_of_its_bytes(self, offset: int, size: int, value: int) -> None:
        whole, parts = TestBench(Sample()), TestBench(Sample())
        whole.write(BASE + offset, value, size)
        for byte in range(size):
            parts.write(BASE + offset + byte, value >> 8 * byte & 0xFF)
        assert whole.machine.buffer == parts.machine.buffer


class TestLiveRegisters:
    def test_fields_read_and_write_the_stored_value(self) -> None:
        _, device = made()
        device.ports.mixed.plain = 9
        assert device.ports.mixed.value == 0x00FF00A9
        assert device.ports.mixed.fixed == 0xA

    @pytest.mark.parametrize("value", [16, -1])
    def test_a_value_that_does_not_fit_its_field_is_refused(self, value: int) -> None:
        _, device = made()
        with pytest.raises(ValueError, match="does not fit"):
            device.ports.mixed.plain = value

    def test_a_field_that_does_not_exist_is_refused(self) -> None:
        _, device = made()
        with pytest.raises(AttributeError, match="has no field 'plian'"):
            device.ports.mixed.plian = 1

    def test_a_field_of_the_class_extracts_from_integers(self) -> None:
        assert Mixed.fixed.of(0xA5) == 0xA

    def test_the_representation_names_value_and_fields(self) -> None:
        _, device = made()
        assert repr(device.ports.mixed) == (
            "<Mixed 0xff00a5 plain=0x5 fixed=0xa sticky=0x0 command=0xf event=0xf>"
        )

    def test_reset_brings_every_register_back(self) -> None:
        bench, _ = made()
        before = bytes(bench.machine.buffer)
        for offset in range(32):
            bench.write(BASE + offset, 0x5A)
        bench.machine.reset()
        assert bench.machine.buffer == before


def bank(**body: object) -> type[Bank]:
    """A bank of 16 bytes with such members."""
    made: type[Bank] = type("Made", (Bank,), body, size=16, width=8)
    return made


class TestMistakes:
    @pytest.mark.parametrize(("high", "low"), [(0, 1), (64, 0), (3, -1)])
    def test_a_field_of_impossible_bits(self, high: int, low: int) -> None:
        with pytest.raises(DeclarationError, match="cannot have bits"):
            Field(high, low)

    def test_fields_that_overlap(self) -> None:
        with pytest.raises(DeclarationError, match="overlaps another field"):
            type("Bad", (Register,), {"a": Field(3, 0), "b": Bit(3)})

    def test_a_field_that_has_a_name_of_the_kits(self) -> None:
        with pytest.raises(DeclarationError, match="the kit's own"):
            type("Bad", (Register,), {"value": Field(3, 0)})

    def test_a_field_beyond_the_registers_width(self) -> None:
        class Wide(Register):
            top = Bit(8)

        with pytest.raises(DeclarationError, match="wider than 8 bits"):
            bank(register=Wide.at(0))

    def test_a_reset_value_beyond_the_width(self) -> None:
        with pytest.raises(DeclarationError, match="wider than 8 bits"):
            bank(register=Register.at(0, reset=0x100))

    def test_writable_bits_beyond_the_width(self) -> None:
        with pytest.raises(DeclarationError, match="wider than 8 bits"):
            bank(register=Register.at(0, writable=0x1FF))

    @pytest.mark.parametrize("width", [0, 7, 24, 128])
    def test_a_width_that_no_access_has(self, width: int) -> None:
        with pytest.raises(DeclarationError, match=f"{width} bits wide"):
            bank(register=Register.at(0, width=width))

    @pytest.mark.parametrize("offset", [-1, 16, 13])
    def test_a_register_outside_its_bank(self, offset: int) -> None:
        with pytest.raises(DeclarationError, match="outside the bank"):
            bank(register=Register.at(offset, width=32))

    def test_registers_that_overlap(self) -> None:
        with pytest.raises(DeclarationError, match="overlaps"):
            bank(one=Register.at(0, width=16), two=Register.at(1))

    def test_an_array_that_overlaps_itself(self) -> None:
        with pytest.raises(DeclarationError, match="overlaps"):
            bank(table=Register.array(0, 3, stride=1, width=16))

    def test_an_array_without_elements_or_beyond_the_bank(self) -> None:
        with pytest.raises(DeclarationError, match="at least one"):
            Register.array(0, 0)
        with pytest.raises(DeclarationError, match="outside the bank"):
            bank(table=Register.array(0, 17))

    def test_two_registers_of_one_place_may_share_it_by_direction(self) -> None:
        bank(status=Register.at(0, access=RO), command=Register.at(0, access=WO))
        with pytest.raises(DeclarationError, match="overlaps"):
            bank(status=Register.at(0, access=RO), other=Register.at(0, access=RO))


def test_a_computed_value_is_asked_for_and_settles_no_line() -> None:
    class Ports(Bank, size=2, width=8):
        stored = Register.at(0)
        twice = Register.at(1, access=RO)

    class Doubling(Device):
        ports = PortWindow(Ports, at=0x100)
        line = IsaLine(5)

        @line.level
        def _level(self) -> bool:
            return self.ports.stored.value == 4

        @Ports.twice.computed
        def _twice(self) -> int:
            return 2 * self.ports.stored.value

    bench = TestBench(Doubling())
    bench.write(0x100, 3)
    assert bench.read(0x101) == 6
    reads = bench.machine.spaces.reads[0, 1]
    assert reads[0x101][1] is None
    bench.write(0x100, 4)
    assert (bench.read(0x101), bench.platform.isa[5]) == (8, 1)
