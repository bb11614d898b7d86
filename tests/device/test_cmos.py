"""CMOS memory: the index and data ports, what firmware finds in it, and QEMU's answers."""

from __future__ import annotations

import random

import pytest

from devices.cmos import Cmos
from dm.errors import ConfigError
from dm.machine.fakes import TestBench
from tests.device.qtest import Qtest, StartQemu

INDEX, DATA = 0x70, 0x71
FIRST, LAST = 0x0E, 0x7F
"""The indices that Xen forwards."""


def cell(bench: TestBench, index: int) -> int:
    bench.write(INDEX, index)
    return bench.read(DATA)


def test_a_byte_is_kept_at_its_index() -> None:
    bench = TestBench(Cmos())
    for index in range(FIRST, LAST + 1):
        bench.write(INDEX, index)
        bench.write(DATA, index ^ 0xA5)
    assert [cell(bench, index) for index in range(FIRST, LAST + 1)] == [
        index ^ 0xA5 for index in range(FIRST, LAST + 1)
    ]


def test_bit_7_of_the_index_is_the_nmi_mask_and_selects_nothing() -> None:
    bench = TestBench(Cmos())
    bench.write(INDEX, 0x8F)
    bench.write(DATA, 0x42)
    assert cell(bench, 0x0F) == 0x42


def test_the_index_port_reads_as_ones() -> None:
    bench = TestBench(Cmos())
    bench.write(INDEX, 0x0F)
    assert bench.read(INDEX) == 0xFF


def test_memory_sizes_are_in_the_units_that_firmware_expects() -> None:
    bench = TestBench(Cmos(memory_mib=1024, high_memory_mib=2048, cpus=4))
    words = {at: cell(bench, at) | cell(bench, at + 1) << 8 for at in (0x15, 0x17, 0x30, 0x34)}
    assert words == {0x15: 640, 0x17: 0xFFFF, 0x30: 0xFFFF, 0x34: (1024 - 16) * 16}
    assert cell(bench, 0x5B) | cell(bench, 0x5C) << 8 | cell(bench, 0x5D) << 16 == 2048 * 16
    assert cell(bench, 0x5F) == 3


@pytest.mark.parametrize(
    ("boot", "order", "flags"), [("cda", 0x32, 0x10), ("n", 0x04, 0), ("", 0, 0), ("dc", 0x23, 0)]
)
def test_the_boot_order_is_in_three_nibbles(boot: str, order: int, flags: int) -> None:
    bench = TestBench(Cmos(boot=boot))
    assert (cell(bench, 0x3D), cell(bench, 0x38)) == (order, flags)


@pytest.mark.parametrize("boot", ["x", "cdan"])
def test_a_boot_order_that_cannot_be_is_refused(boot: str) -> None:
    with pytest.raises(ConfigError, match="boot order"):
        TestBench(Cmos(boot=boot))


def test_waking_from_s3_is_told_to_the_firmware() -> None:
    bench = TestBench(Cmos())
    assert cell(bench, 0x0F) == 0
    bench.machine.devices[0].on_wake()
    assert cell(bench, 0x0F) == 0xFE


DIFFERENCES = {
    0x32: "the century, which QEMU's clock keeps; the clock here is Xen's",
    0x37: "the same byte at the place where the PS/2 has it",
}
"""Indices whose answers differ, and why."""


@pytest.mark.parametrize("seed", range(2))
def test_every_answer_is_qemus(seed: int, qemu: StartQemu) -> None:
    oracle: Qtest = qemu()
    bench = TestBench(Cmos())
    chance = random.Random(seed)
    indices = [index for index in range(FIRST, LAST + 1) if index not in DIFFERENCES]
    for index in indices:
        for port, value in ((INDEX, index), (DATA, 0)):
            bench.write(port, value)
            oracle.outb(port, value)
    for step in range(2000):
        index = chance.choice(indices) | chance.choice((0, 0x80))
        bench.write(INDEX, index)
        oracle.outb(INDEX, index)
        if chance.random() < 0.5:
            value = chance.getrandbits(8)
            bench.write(DATA, value)
            oracle.outb(DATA, value)
        else:
            port = chance.choice((INDEX, DATA, DATA))
            assert bench.read(port) == oracle.inb(port), f"step {step}, index {index:#x}"
