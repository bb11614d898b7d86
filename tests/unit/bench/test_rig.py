"""The bench's device answers a page in one piece, and keeps what is written to the VGA window."""

from __future__ import annotations

from dm.device.platform import MEMORY, PORT
from dm.machine.fakes import TestBench
from tools.bench.rig import Rig


def test_a_page_is_read_from_the_data_port_at_once() -> None:
    rig = Rig("rig")
    bench = TestBench(rig)
    rig.block[:] = bytes(range(256)) * 16
    data = bench.machine.bus.read_string(PORT, 0x1F0, 4, 1024)
    assert data == bytes(range(256)) * 16


def test_a_longer_read_is_padded() -> None:
    bench = TestBench(Rig("rig"))
    assert bench.machine.bus.read_string(PORT, 0x1F0, 4, 2048) == bytes(8192)


def test_the_vga_window_is_memory() -> None:
    bench = TestBench(Rig("rig"))
    bench.store(0xBFFFC, 0x12345678)
    assert bench.load(0xBFFFC) == 0x12345678
    assert bench.platform.claimed[MEMORY] == [(0xA0000, 0xBFFFF)]
