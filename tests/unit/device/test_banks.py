"""Banks and windows: conditions, memory, strings, derived places, and mistakes in these."""

from __future__ import annotations

import pytest

from dm import (
    KEPT,
    RO,
    Bank,
    BankMemory,
    Bit,
    ConfigError,
    DeclarationError,
    Device,
    Field,
    MmioBar,
    MmioWindow,
    Option,
    PortBar,
    PortWindow,
    PrivateWindow,
    Register,
    Transient,
    Word,
)
from dm.device.platform import MEMORY, PORT
from dm.machine.fakes import TestBench

BASE = 0x200


class Select(Register, width=8):
    second = Bit(0)
    page = Field(2, 1)


class Ports(Bank, size=8, width=8, gap=0xEE):
    select = Select.at(0)
    first = Register.at(1, reset=0x11, when=select.has(Select.second, 0))
    second = Register.at(1, reset=0x22, when=select.has(Select.second))
    third = Register.at(2, width=16, reset=0x4433, when=select.has(Select.page, 3))


class Switched(Device):
    ports = PortWindow(Ports, at=BASE)


class TestConditions:
    def test_the_condition_chooses_who_answers(self) -> None:
        bench = TestBench(Switched())
        assert bench.read(BASE + 1) == 0x11
        bench.write(BASE + 1, 0x12)
        bench.write(BASE, 1)
        assert bench.read(BASE + 1) == 0x22
        bench.write(BASE + 1, 0x23)
        bench.write(BASE, 0)
        assert bench.read(BASE + 1) == 0x12

    def test_while_no_condition_holds_there_is_a_gap(self) -> None:
        bench = TestBench(Switched())
        assert bench.read(BASE + 2, 2) == 0xEEEE
        bench.write(BASE + 2, 0x9999, 2)
        bench.write(BASE, 6)
        assert bench.read(BASE + 2, 2) == 0x4433
        assert bench.read(BASE + 1, 4) == 0xEE443311

    def test_mistakes_in_conditions_are_errors(self) -> None:
        class Other(Bank, size=1, width=8):
            select = Select.at(0)

        with pytest.raises(DeclarationError, match="not of this bank"):

            class Foreign(Bank, size=2, width=8):
                register = Register.at(0, when=Other.select.has(Select.second))

        with pytest.raises(DeclarationError, match="not of this bank"):

            class Unknown(Bank, size=2, width=8):
                plain = Register.at(1)
                register = Register.at(0, when=plain.has(Select.second))

        with pytest.raises(DeclarationError, match="is never 0x4"):

            class Never(Bank, size=2, width=8):
                select = Select.at(0)
                register = Register.at(1, when=select.has(Select.page, 4))


class Area(Bank, size=64, width=32, sizes=(1, 2, 4)):
    control = Register.at(0)
    memory = BankMemory(8, 32)
    rom = BankMemory(40, 8, writable=False)


class Carrier(Device):
    area = MmioWindow(Area, at=0xF000_0000)


class TestMemory:
    def test_plain_bytes_are_kept(self) -> None:
        bench = TestBench(Carrier())
        bench.store(0xF000_0009, 0xAABBCCDD)
        assert bench.load(0xF000_0008) == 0xBBCCDD00

    def test_a_read_only_part_stays(self) -> None:
        bench = TestBench(Carrier())
        bench.store(0xF000_0024, 0xFFFFFFFF)
        bench.store(0xF000_0028, 0xFFFFFFFF)
        assert bench.load(0xF000_0024) == 0xFFFFFFFF
        assert bench.load(0xF000_0028) == 0

    def test_an_element_size_that_the_bank_does_not_answer_moves_nothing(self) -> None:
        bench = TestBench(Carrier())
        bench.machine.bus.write(MEMORY, 0xF000_0008, 8, 1)
        assert bench.load(0xF000_0008) == 0
        assert bench.load(0xF000_0008, 8) == (1 << 64) - 1
        block = bench.machine.bus.read_block(MEMORY, 0xF000_0008, 8, 2, 8)
        assert block == b"\xff" * 16
        bench.machine.bus.write_block(MEMORY, 0xF000_0008, 8, 8, b"\x11" * 16)
        assert bench.load(0xF000_0008) == 0

    @pytest.mark.parametrize(("offset", "length"), [(-1, 4), (60, 5), (0, 0), (0, -1)])
    def test_memory_outside_its_bank_is_an_error(self, offset: int, length: int) -> None:
        with pytest.raises(DeclarationError, match="outside the bank"):

            class Wrong(Bank, size=64):
                memory = BankMemory(offset, length)


class Streams(Bank, size=8, width=8, sizes=(1, 2)):
    data = Register.at(0, width=16)
    byte = Register.at(2)


class Streaming(Device):
    ports = PortWindow(Streams, at=BASE)
    log = Transient()

    def on_reset(self) -> None:
        self.log = []

    @Streams.data.on_read_block
    def _read(self, size: int, count: int) -> bytes:
        self.log.append((size, count))
        return bytes(range(size * count))

    @Streams.data.on_write_block
    def _write(self, size: int, data: bytes) -> None:
        self.log.append((size, data))


class TestStrings:
    def test_a_block_handler_gets_the_whole_string(self) -> None:
        device = Streaming()
        bus = TestBench(device).machine.bus
        assert bus.read_string(PORT, BASE, 2, 3) == bytes(range(6))
        bus.write_string(PORT, BASE, 2, b"abcd")
        assert device.log == [(2, 3), (2, b"abcd")]

    def test_a_string_inside_the_register_is_not_the_block_handlers(self) -> None:
        device = Streaming()
        bus = TestBench(device).machine.bus
        bus.write(PORT, BASE, 2, 0xBEEF)
        assert bus.read_string(PORT, BASE + 1, 1, 3) == b"\xbe\xbe\xbe"
        bus.write_string(PORT, BASE + 1, 1, b"xy")
        assert bus.read(PORT, BASE, 2) == 0x79EF
        assert device.log == []

    def test_a_string_of_a_size_that_the_bank_does_not_answer_is_a_gap(self) -> None:
        device = Streaming()
        bus = TestBench(device).machine.bus
        assert bus.read_string(PORT, BASE, 4, 2) == b"\xff" * 8
        bus.write_string(PORT, BASE, 4, b"12345678")
        assert device.log == []

    def test_without_a_handler_each_element_is_an_access(self) -> None:
        bus = TestBench(Streaming()).machine.bus
        bus.write_string(PORT, BASE + 2, 1, b"abc")
        assert bus.read_string(PORT, BASE + 2, 1, 2) == b"cc"

    def test_a_block_of_the_wrong_length_is_an_error(self) -> None:
        class Short(Device):
            ports = PortWindow(Streams, at=BASE)

            @Streams.data.on_read_block
            def _read(self, size: int, count: int) -> bytes:
                return b""

        with pytest.raises(ValueError, match="block of 0 bytes"):
            TestBench(Short()).machine.bus.read_string(PORT, BASE, 2, 3)


class Place(Register, width=16):
    enable = Bit(0)
    base = Field(15, 4)


class PlacePorts(Bank, size=2, width=16):
    place = Place.at(0)


class Movable(Bank, size=16, width=8):
    data = Register.at(0)


class Moving(Device):
    control = PortWindow(PlacePorts, at=BASE)
    window = PortWindow(Movable)

    @PlacePorts.place.on_write
    def _moved(self, new: int, old: int) -> None:
        self.remap()

    @window.address
    def _where(self) -> int | None:
        place = self.control.place
        return place.base << 4 if place.enable else None


class TestPlaces:
    def test_a_derived_place_follows_state(self) -> None:
        bench = TestBench(Moving())
        assert bench.platform.claimed[PORT] == [(BASE, BASE + 1)]
        bench.write(BASE, 0x0501, 2)
        bench.write(0x500, 0x42)
        bench.write(BASE, 0x0601, 2)
        assert (bench.read(0x600), bench.read(0x500)) == (0x42, 0xFF)
        assert bench.platform.claimed[PORT] == [(BASE, BASE + 1), (0x600, 0x60F)]
        bench.write(BASE, 0x0600, 2)
        assert bench.platform.claimed[PORT] == [(BASE, BASE + 1)]

    def test_a_derived_place_is_found_again_after_reset(self) -> None:
        bench = TestBench(Moving())
        bench.write(BASE, 0x0501, 2)
        bench.machine.reset()
        assert bench.platform.claimed[PORT] == [(BASE, BASE + 1)]

    def test_a_place_may_be_an_option(self) -> None:
        class Placed(Device):
            base = Option(int, 0x300, "first port")
            ports = PortWindow(Movable, at=base)

        assert TestBench(Placed(base=0x340)).platform.claimed[PORT] == [(0x340, 0x34F)]

    def test_a_place_that_cannot_be_told_moves_nothing(self) -> None:
        class Broken(Device):
            mode = Word(8)
            one = PortWindow(Movable)
            two = PortWindow(Movable)

            @one.address
            def _one(self) -> int:
                return 0x500 if self.mode else 0x400

            @two.address
            def _two(self) -> int:
                if self.mode:
                    raise ZeroDivisionError
                return 0x600

        device = Broken()
        bench = TestBench(device)
        device.mode = 1
        with pytest.raises(ZeroDivisionError):
            device.remap()
        bench.write(0x400, 5)
        assert bench.read(0x400) == 5
        assert bench.read(0x500) == 0xFF

    def test_a_private_window_is_nowhere(self) -> None:
        class Hidden(Device):
            inside = PrivateWindow(Movable)

        device = Hidden()
        bench = TestBench(device)
        assert bench.platform.claimed == {0: [], 1: [], 2: []}
        device.inside.write(0, 1, 7)
        assert device.inside.data.value == 7


class TestMistakes:
    def test_a_bank_without_a_size_cannot_be_mapped(self) -> None:
        class Sizeless(Bank):
            data = Register.at(0)

        with pytest.raises(DeclarationError, match="has no size"):
            PortWindow(Sizeless)

    @pytest.mark.parametrize("index", [-1, 6])
    def test_a_bar_number_that_does_not_exist(self, index: int) -> None:
        with pytest.raises(DeclarationError, match="no BAR"):
            PortBar(Movable, index)

    def test_a_bar_whose_size_is_not_a_power_of_two(self) -> None:
        class Odd(Bank, size=24):
            data = Register.at(0)

        with pytest.raises(DeclarationError, match="power of two"):
            MmioBar(Odd, 0)

    def test_bars_too_small_too_large_or_too_wide(self) -> None:
        class Small(Bank, size=2, width=8):
            data = Register.at(0)

        class Large(Bank, size=512, width=8):
            data = Register.at(0)

        with pytest.raises(DeclarationError, match="4 to 256"):
            PortBar(Small, 0)
        with pytest.raises(DeclarationError, match="4 to 256"):
            PortBar(Large, 0)
        with pytest.raises(DeclarationError, match="cannot be memory BAR"):
            MmioBar(Small, 0)
        with pytest.raises(DeclarationError, match="cannot be memory BAR"):
            MmioBar(Large, 5, bits=64)
        with pytest.raises(DeclarationError, match="cannot be memory BAR"):
            MmioBar(Large, 0, bits=16)

    @pytest.mark.parametrize("gap", [-1, 256])
    def test_a_gap_that_is_not_a_byte(self, gap: int) -> None:
        with pytest.raises(DeclarationError, match="not a byte"):

            class Wrong(Bank, size=4, gap=gap):
                pass

    def test_a_register_that_has_a_name_of_the_kits(self) -> None:
        with pytest.raises(DeclarationError, match="the kit's own"):

            class Wrong(Bank, size=4):
                write = Register.at(0)  # type: ignore[assignment]

    def test_a_bank_is_not_constructed(self) -> None:
        with pytest.raises(TypeError, match="bound by the machine"):
            Ports()

    def test_a_register_of_a_bank_class_offers_no_value(self) -> None:
        with pytest.raises(AttributeError):
            _ = Ports.select.value  # type: ignore[attr-defined]

    def test_overlapping_fixed_windows_are_the_users_mistake(self) -> None:
        with pytest.raises(ConfigError, match="b and a both want 0x200"):
            TestBench(Switched("a"), Switched("b"))

    def test_windows_that_touch_do_not_overlap(self) -> None:
        class Next(Device):
            ports = PortWindow(Movable, at=BASE + 8)

        bench = TestBench(Switched("a"), Next("b"))
        assert bench.platform.claimed[PORT] == [(BASE, BASE + 23)]


def test_read_only_registers_leave_the_write_side_to_another() -> None:
    class Sides(Bank, size=1, width=8):
        status = Register.at(0, access=RO, reset=0x5A)
        command = Register.at(0, access=KEPT)

    class Two(Device):
        ports = PortWindow(Sides, at=BASE)

    device = Two()
    bench = TestBench(device)
    bench.write(BASE, 0x99)
    assert bench.read(BASE) == 0x5A
    assert device.ports.command.value == 0x99
