"""A register that lies over a bank's memory answers for its bytes in accesses of every shape."""

from __future__ import annotations

import pytest

from dm import RO, Bank, BankMemory, Device, MmioWindow, Register
from dm.device.platform import MEMORY
from dm.machine.fakes import TestBench

BASE = 0x1000


class Area(Bank, size=32, width=8):
    counter = Register.at(9)
    fixed = Register.at(14, width=16, access=RO, reset=0xBEEF)
    memory = BankMemory(0, 32)


class Board(Device):
    area = MmioWindow(Area, at=BASE)

    @Area.counter.on_read
    def _count(self) -> int:
        self.area.counter.value = self.area.counter.value + 1 & 0xFF
        return self.area.counter.value


@pytest.fixture(name="bench")
def _bench() -> TestBench:
    return TestBench(Board("board"))


def test_a_wide_read_has_the_registers_byte(bench: TestBench) -> None:
    assert bench.load(BASE + 8, 4) == 0x0000_0100
    assert bench.load(BASE + 8, 8) == 0xBEEF_0000_0000_0200


def test_a_wide_write_goes_through_the_register(bench: TestBench) -> None:
    bench.store(BASE + 8, 0x1122_3344_5566_7788, 8)
    board = bench.machine.devices[0]
    assert isinstance(board, Board)
    assert board.area.counter.value == 0x77
    assert board.area.fixed.value == 0xBEEF
    assert bytes(board.area.memory[8:14]).hex() == "880066554433"


@pytest.mark.parametrize("step", [4, -4])
def test_a_block_asks_the_register(bench: TestBench, step: int) -> None:
    first = BASE if step > 0 else BASE + 12
    bench.machine.bus.write_block(MEMORY, first, 4, step, b"\x11" * 16)
    block = bench.machine.bus.read_block(MEMORY, first, 4, 4, step)
    assert block.hex() == "1111111111111111" + "1112" + "11111111" + "efbe"


@pytest.mark.parametrize(
    ("offset", "length", "whole"),
    [(0, 9, True), (0, 10, False), (9, 1, False), (10, 4, True), (16, 16, True), (16, 17, False)],
)
def test_only_memory_without_registers_moves_in_one_piece(
    bench: TestBench, offset: int, length: int, whole: bool
) -> None:
    board = bench.machine.devices[0]
    assert isinstance(board, Board)
    assert board.area.is_memory(offset, length) is whole
