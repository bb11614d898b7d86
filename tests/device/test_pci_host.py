"""The host bridge: the configuration address latch, reset control, and its registers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.pci_host import PciHost
from dm.device.platform import PORT
from dm.machine.fakes import TestBench

from .support import restored


@pytest.fixture
def bench() -> TestBench:
    return TestBench(PciHost())


def test_the_function_says_that_it_is_an_i440fx(bench: TestBench) -> None:
    assert bench.config_read(0, 0x00) == 0x12378086
    assert bench.config_read(0, 0x08) == 0x06000002
    assert bench.config_read(0, 0x2C) == 0x11001AF4


def test_linux_finds_configuration_mechanism_1(bench: TestBench) -> None:
    bench.write(0xCFB, 0x01)
    before = bench.read(0xCF8, 4)
    bench.write(0xCF8, 0x80000000, 4)
    assert bench.read(0xCF8, 4) == 0x80000000
    bench.write(0xCF8, before, 4)
    assert bench.read(0xCF8, 4) == before


def test_linux_does_not_find_configuration_mechanism_2(bench: TestBench) -> None:
    for port in (0xCFB, 0xCF8, 0xCFA):
        bench.write(port, 0)
    assert (bench.read(0xCF8), bench.read(0xCFA)) != (0, 0)


@pytest.mark.parametrize(
    ("port", "size"), [(0xCF8, 1), (0xCFA, 1), (0xCFB, 1), (0xCF8, 2), (0xCF9, 2), (0xCFA, 2)]
)
def test_a_narrow_access_does_not_reach_the_latch(bench: TestBench, port: int, size: int) -> None:
    bench.write(0xCF8, 0x80001234, 4)
    bench.write(port, 0, size)
    assert bench.read(port, size) == (1 << 8 * size) - 1
    assert bench.read(0xCF8, 4) == 0x80001234


def test_a_wide_access_at_the_reset_port_reaches_neither_register(bench: TestBench) -> None:
    bench.write(0xCF8, 0x80001234, 4)
    bench.write(0xCF9, 0xFFFFFFFF, 4)
    assert bench.read(0xCF8, 4) == 0x80001234
    assert bench.platform.shutdowns == []


@given(st.integers(0, 0xFFFFFFFF))
def test_the_latch_keeps_every_bit(value: int) -> None:
    bench = TestBench(PciHost())
    bench.write(0xCF8, value, 4)
    assert bench.read(0xCF8, 4) == value


def test_the_latch_is_reached_by_one_lookup(bench: TestBench) -> None:
    assert 0xCF8 in bench.machine.spaces.writes[PORT, 4]
    assert 0xCF8 in bench.machine.spaces.reads[PORT, 4]
    assert 0xCF9 in bench.machine.spaces.writes[PORT, 1]


def test_data_that_xen_did_not_decode_is_decoded_by_the_latch(bench: TestBench) -> None:
    bench.write(0xCF8, 0x80000070, 4)
    assert bench.read(0xCFC, 4) == bench.config_read(0, 0x70)
    bench.write(0xCFC, 0x11223344, 4)
    assert bench.config_read(0, 0x70) == bench.read(0xCFC, 4)
    assert bench.config_read(0, 0x70) & 0xFF == 0x44
    bench.write(0xCFE, 0x3A)
    assert bench.config_read(0, 0x72, 1) == bench.read(0xCFE) == 0x3A
    assert bench.read(0xCFE, 2) == bench.config_read(0, 0x72, 2)


@pytest.mark.parametrize("latch", [0x00000000, 0x80000800, 0x80010000, 0xFF000000])
def test_the_data_ports_read_as_ones_without_a_function(bench: TestBench, latch: int) -> None:
    bench.write(0xCF8, latch, 4)
    bench.write(0xCFC, 0, 4)
    assert bench.read(0xCFC, 4) == (bench.config_read(0, 0) if latch >> 24 == 0xFF else 0xFFFFFFFF)


def test_the_reset_port_keeps_the_reset_type_and_leaves_the_latch_alone(bench: TestBench) -> None:
    bench.write(0xCF8, 0x80001234, 4)
    bench.write(0xCF9, 0xFB)
    assert bench.read(0xCF9) == 0x02
    assert bench.read(0xCF8, 4) == 0x80001234
    assert bench.platform.shutdowns == []


@pytest.mark.parametrize("value", [0x04, 0x06, 0x0E])
def test_the_reset_port_reboots_the_guest(bench: TestBench, value: int) -> None:
    bench.write(0xCF9, 0x02)
    bench.write(0xCF9, value)
    assert bench.platform.shutdowns == ["reboot"]
    assert bench.read(0xCF9) & 0x04 == 0


def test_pam_and_smram_are_plain_registers(bench: TestBench) -> None:
    assert bench.config_read(0, 0x72, 1) == 0x02
    for register in (*range(0x59, 0x60), 0x72):
        bench.config_write(0, register, 0x3A, 1)
        assert bench.config_read(0, register, 1) == 0x3A
    assert bench.config_read(0, 0x5C) == 0x3A3A3A3A


def test_the_latch_survives_a_restore(bench: TestBench) -> None:
    bench.write(0xCF8, 0x80001234, 4)
    bench.write(0xCF9, 0x02)
    other = restored(bench, PciHost())
    assert other.read(0xCF8, 4) == 0x80001234
    assert other.read(0xCF9) == 0x02


def test_a_reset_clears_the_latch(bench: TestBench) -> None:
    bench.write(0xCF8, 0x80001234, 4)
    bench.config_write(0, 0x72, 0x0A, 1)
    bench.machine.reset()
    assert bench.read(0xCF8, 4) == 0
    assert bench.config_read(0, 0x72, 1) == 0x02
