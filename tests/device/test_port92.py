"""System control port A."""

from __future__ import annotations

import pytest

from devices.port92 import Port92
from dm.device.platform import PORT
from dm.machine.fakes import TestBench

from .support import restored


@pytest.fixture
def bench() -> TestBench:
    return TestBench(Port92())


def test_seabios_opens_a20_by_read_modify_write(bench: TestBench) -> None:
    bench.write(0x92, bench.read(0x92) | 0x02)
    assert bench.read(0x92) & 0x02
    assert bench.platform.shutdowns == []


def test_every_bit_but_the_reset_is_kept(bench: TestBench) -> None:
    for value in range(0, 256, 2):
        bench.write(0x92, value)
        assert bench.read(0x92) == value
    assert bench.platform.shutdowns == []


def test_writing_bit_0_as_one_reboots_the_guest(bench: TestBench) -> None:
    bench.write(0x92, 0x03)
    assert bench.platform.shutdowns == ["reboot"]


def test_bit_0_reads_as_zero_so_that_writing_back_resets_nothing(bench: TestBench) -> None:
    bench.write(0x92, 0x03)
    assert bench.read(0x92) == 0x02
    bench.write(0x92, bench.read(0x92))
    assert bench.platform.shutdowns == ["reboot"]


def test_the_port_is_reached_by_one_lookup(bench: TestBench) -> None:
    assert 0x92 in bench.machine.spaces.reads[PORT, 1]
    assert 0x92 in bench.machine.spaces.writes[PORT, 1]


def test_a_restore_keeps_a20_and_reboots_nobody(bench: TestBench) -> None:
    bench.write(0x92, 0x02)
    other = restored(bench, Port92())
    assert other.read(0x92) == 0x02
    assert other.platform.shutdowns == []
