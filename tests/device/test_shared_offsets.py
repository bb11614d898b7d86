"""Registers that share an offset: who answers, on the exact tables as on the general path."""

from __future__ import annotations

from dm import RO, Bank, Bit, Device, PortWindow, Register
from dm.device.platform import PORT
from dm.machine.fakes import TestBench

BASE = 0x300


class Select(Register, width=8):
    second = Bit(0)
    third = Bit(1)


class Ports(Bank, size=4, width=8, gap=0xEE):
    select = Select.at(1)
    second = Register.at(0, reset=2, when=select.has(Select.second))
    third = Register.at(0, reset=3, access=RO, when=select.has(Select.third))
    stream = Register.at(2, width=16, access=RO, exact=True)


class Shared(Device):
    ports = PortWindow(Ports, at=BASE)

    @Ports.stream.on_read_block
    def _stream(self, size: int, count: int) -> bytes:
        return b"\x5a" * (size * count)


def test_the_register_whose_condition_holds_answers() -> None:
    bench = TestBench(Shared())
    bench.write(BASE + 1, 1)
    assert bench.read(BASE) == 2
    bench.write(BASE, 0x42)
    bench.write(BASE + 1, 2)
    assert bench.read(BASE) == 3
    bench.write(BASE, 0x99)
    bench.write(BASE + 1, 1)
    assert bench.read(BASE) == 0x42


def test_where_no_condition_holds_there_is_a_gap() -> None:
    bench = TestBench(Shared())
    bench.write(BASE, 0x42)
    assert bench.read(BASE) == 0xEE
    bench.write(BASE + 1, 1)
    assert bench.read(BASE) == 2


def test_conditional_registers_of_one_shape_are_in_the_exact_tables() -> None:
    spaces = TestBench(Shared()).machine.spaces
    assert BASE in spaces.reads[PORT, 1]
    assert BASE in spaces.writes[PORT, 1]


def test_an_exact_register_streams_in_its_own_size_only() -> None:
    bus = TestBench(Shared()).machine.bus
    assert bus.read_string(PORT, BASE + 2, 2, 3) == b"\x5a" * 6
    assert bus.read_string(PORT, BASE + 2, 1, 3) == b"\xee" * 3
