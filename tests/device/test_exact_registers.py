"""Registers that answer only accesses of exactly their offset and width."""

from __future__ import annotations

import pytest

from dm import RO, WO, Bank, DeclarationError, Device, PortWindow, Register
from dm.machine.fakes import TestBench


class Overlaid(Bank, size=4):
    whole = Register.at(0, width=32, reset=0x44332211)
    word = Register.at(2, width=16, reset=0xAAAA, exact=True)
    byte = Register.at(1, width=8, reset=0xBB, exact=True)
    read_side = Register.at(0, width=8, reset=0xCC, access=RO, exact=True)
    write_side = Register.at(0, width=8, access=WO, exact=True)


class Chip(Device):
    window = PortWindow(Overlaid, at=0x100)


@pytest.fixture
def bench() -> TestBench:
    return TestBench(Chip())


def test_an_exact_access_reaches_the_exact_register(bench: TestBench) -> None:
    assert bench.read(0x101, 1) == 0xBB
    assert bench.read(0x102, 2) == 0xAAAA
    bench.write(0x101, 0x01, 1)
    assert bench.read(0x101, 1) == 0x01
    assert bench.read(0x100, 4) == 0x44332211


def test_every_other_access_goes_by_as_if_it_were_not_there(bench: TestBench) -> None:
    assert bench.read(0x101, 2) == 0x3322
    assert bench.read(0x102, 1) == 0x33
    bench.write(0x101, 0x7788, 2)
    assert bench.read(0x100, 4) == 0x44778811
    assert bench.read(0x101, 1) == 0xBB
    assert bench.read(0x102, 2) == 0xAAAA


def test_the_two_directions_of_one_access_may_have_a_register_each(bench: TestBench) -> None:
    bench.write(0x100, 0xFF, 1)
    assert bench.read(0x100, 1) == 0xCC
    assert bench.read(0x100, 4) == 0x44332211


def test_two_registers_for_one_access_are_refused() -> None:
    with pytest.raises(DeclarationError, match="overlaps"):

        class Twice(Bank, size=4):
            first = Register.at(0, width=8, exact=True)
            second = Register.at(0, width=8, exact=True)

    with pytest.raises(DeclarationError, match="overlaps"):

        class Same(Bank, size=4):
            plain = Register.at(0, width=8)
            exact = Register.at(0, width=8, exact=True)


def test_an_exact_register_has_a_name_in_traces(bench: TestBench) -> None:
    class Alone(Bank, size=4):
        port = Register.at(2, width=8, exact=True)

    class Bare(Device):
        window = PortWindow(Alone, at=0x200)

    machine = TestBench(Bare()).machine
    assert machine.bus.describe(0, 0x202).endswith("window.port")
