"""Accesses of every shape on the bus, and what they leave behind: settled lines and counters."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from dm import RO, Bank, BankMemory, Device, IsaLine, MmioWindow, PortWindow, Register
from dm.device.platform import MEMORY, PCI, PORT
from dm.machine.fakes import TestBench

LOW, HIGH, AREA = 0x100, 0x104, 0x8000_0000


class Low(Bank, size=4, width=8):
    data = Register.array(0, 4)


class High(Bank, size=4, width=16, gap=0x77):
    level = Register.at(0)
    broken = Register.at(2)


class Area(Bank, size=0x40, width=32):
    control = Register.at(0)
    memory = BankMemory(0x10, 0x20)
    fixed = Register.at(0x30, access=RO, reset=0xF1F1F1F1)


class First(Device):
    ports = PortWindow(Low, at=LOW)
    area = MmioWindow(Area, at=AREA)


class Second(Device):
    ports = PortWindow(High, at=HIGH)
    irq = IsaLine(7)

    @High.broken.on_write
    def _break(self, new: int, old: int) -> None:
        self.ports.level.value = 1
        raise ZeroDivisionError

    @High.broken.on_read
    def _break_again(self) -> int:
        self.ports.level.value = 1
        raise ZeroDivisionError

    @irq.level
    def _level(self) -> bool:
        return bool(self.ports.level.value)


def made() -> tuple[TestBench, First, Second]:
    first, second = First("first"), Second("second")
    return TestBench(first, second), first, second


def test_an_access_over_two_windows_reaches_both() -> None:
    bench, first, second = made()
    bench.write(LOW + 2, 0x44332211, 4)
    assert [one.value for one in first.ports.data] == [0, 0, 0x11, 0x22]
    assert second.ports.level.value == 0x4433
    assert bench.read(LOW + 2, 4) == 0x44332211
    assert bench.platform.isa[7] == 1


def test_an_access_over_a_windows_end_reads_ones_there() -> None:
    bench, _, second = made()
    second.ports.level.value = 0
    assert bench.read(LOW - 1, 2) == 0x00FF
    bench.machine.bus.unclaimed = 0
    assert bench.load(AREA + 0x3E, 4) == 0xFFFFFFFF
    assert bench.machine.bus.unclaimed == 2


@pytest.mark.parametrize("space", [PORT, MEMORY, PCI])
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_where_nobody_is_reads_are_ones_and_writes_vanish(space: int, size: int) -> None:
    bench, _, _ = made()
    before = bytes(bench.machine.buffer)
    for address in (0, 0xFFFF, (1 << 64) - 1, 1 << 63):
        assert bench.machine.bus.read(space, address, size) == (1 << 8 * size) - 1
        bench.machine.bus.write(space, address, size, 0)
    assert bench.machine.buffer == before
    assert bench.machine.bus.unclaimed == 8 * size


@pytest.mark.parametrize("address", [HIGH + 2, HIGH + 1, HIGH - 2])
@pytest.mark.parametrize("writing", [True, False])
def test_lines_are_settled_even_when_a_device_raises(address: int, writing: bool) -> None:
    bench, _, second = made()
    size = 2 if address == HIGH + 2 else 4 if address == HIGH + 1 else 8
    access: Callable[[], object] = partial(bench.read, address, size)
    if writing:
        access = partial(bench.write, address, 0, size)
    with pytest.raises(ZeroDivisionError):
        access()
    assert bench.platform.isa[7] == 1
    assert bench.machine.bus.last is second


@pytest.mark.parametrize("count", [1, 5])
def test_strings_at_a_port_take_the_elements_in_order(count: int) -> None:
    bench, first, _ = made()
    bus = bench.machine.bus
    bus.write_string(PORT, LOW, 1, bytes(range(1, count + 1)))
    assert first.ports.data[0].value == count
    assert bus.read_string(PORT, LOW, 1, count) == bytes((count,)) * count
    bus.write_string(PORT, LOW + 3, 2, b"\x01\x02" * count)
    assert bus.read_string(PORT, LOW + 3, 2, count) == b"\x01\x02" * count
    assert bus.read_string(PORT, 0x10, 2, count) == b"\xff\xff" * count


@pytest.mark.parametrize("step", [4, -4])
@pytest.mark.parametrize("low", [AREA + 0x10, AREA + 0x0C, AREA + 0x28, AREA - 8, AREA + 0x34])
def test_a_block_is_its_elements(low: int, step: int) -> None:
    (one, _, _), (two, _, _) = made(), made()
    data = bytes(range(1, 17))
    first = low if step > 0 else low + 12
    one.machine.bus.write_block(MEMORY, first, 4, step, data)
    order = range(4) if step > 0 else range(3, -1, -1)
    for index in order:
        value = int.from_bytes(data[index * 4 : index * 4 + 4], "little")
        two.store(low + index * 4, value)
    assert one.machine.buffer == two.machine.buffer
    block = one.machine.bus.read_block(MEMORY, first, 4, 4, step)
    assert block == b"".join(two.load(low + 4 * i).to_bytes(4, "little") for i in range(4))


def test_an_access_has_a_name() -> None:
    bench, _, _ = made()
    bus = bench.machine.bus
    assert bus.describe(PORT, LOW + 2) == "first.ports.data"
    assert bus.describe(MEMORY, AREA + 0x11) == "first.area.memory"
    assert bus.describe(MEMORY, AREA + 8) == "first.area.+0x8"
    assert bus.describe(PORT, 0x10) == "nobody at 0x10"
