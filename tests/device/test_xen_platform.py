"""The Xen platform device: the fixed ports, the unplug protocol, the ROM lock, its BARs."""

from __future__ import annotations

import logging

import pytest

from devices.xen_platform import (
    UNPLUG_AUXILIARY_DISKS,
    UNPLUG_DISKS,
    UNPLUG_NICS,
    UNPLUG_NVME,
    XenPlatform,
)
from dm.device.platform import MEMORY, PORT
from dm.errors import HostError
from dm.machine.fakes import FakePlatform, TestBench

from .support import restored

DEVFN = 2 << 3
PORTS, PAGES = 0xC000, 0xF0000000


def watched() -> tuple[TestBench, list[int]]:
    device = XenPlatform(addr="2")
    bench, masks = TestBench(device), list[int]()
    device.unplug = masks.append
    bench.config_write(DEVFN, 0x10, PORTS)
    bench.config_write(DEVFN, 0x14, PAGES)
    bench.config_write(DEVFN, 0x04, 0x03, 2)
    return bench, masks


@pytest.fixture
def bench() -> TestBench:
    return watched()[0]


def test_the_function_says_that_it_is_xens(bench: TestBench) -> None:
    assert bench.config_read(DEVFN, 0x00) == 0x00015853
    assert bench.config_read(DEVFN, 0x08) == 0xFF800001
    assert bench.config_read(DEVFN, 0x2C) == 0x00015853
    assert bench.config_read(DEVFN, 0x3D, 1) == 1


def test_the_bars_have_the_sizes_that_guests_expect(bench: TestBench) -> None:
    bench.config_write(DEVFN, 0x04, 0, 2)
    bench.config_write(DEVFN, 0x10, 0xFFFFFFFF)
    bench.config_write(DEVFN, 0x14, 0xFFFFFFFF)
    assert bench.config_read(DEVFN, 0x10) == 0xFFFFFF01
    assert bench.config_read(DEVFN, 0x14) == 0xFF000008


def test_linux_announces_itself_and_unplugs() -> None:
    bench, masks = watched()
    assert bench.read(0x10, 2) == 0x49D2
    assert bench.read(0x12) == 1
    bench.write(0x12, 3, 2)
    bench.write(0x10, 0x00060100, 4)
    assert bench.read(0x10, 2) == 0x49D2
    bench.write(0x10, UNPLUG_DISKS | UNPLUG_NICS, 2)
    assert masks == [UNPLUG_DISKS | UNPLUG_NICS]


def test_what_the_driver_says_of_itself_is_kept() -> None:
    device = XenPlatform()
    bench = TestBench(device)
    bench.write(0x12, 3, 2)
    bench.write(0x10, 0x00060100, 4)
    assert device.fixed.driver_product.value == 3
    assert device.fixed.driver_build.value == 0x00060100


@pytest.mark.parametrize(
    ("port", "size", "answer"),
    [
        (0x10, 1, 0x00),
        (0x10, 2, 0x49D2),
        (0x10, 4, 0xFFFFFFFF),
        (0x11, 1, 0xFF),
        (0x11, 2, 0xFFFF),
        (0x12, 1, 0x01),
        (0x12, 2, 0xFFFF),
        (0x12, 4, 0xFFFFFFFF),
        (0x13, 1, 0xFF),
    ],
)
def test_each_width_at_each_port_has_a_meaning_of_its_own(
    bench: TestBench, port: int, size: int, answer: int
) -> None:
    assert bench.read(port, size) == answer


@pytest.mark.parametrize(
    ("port", "size"), [(0x10, 4), (0x11, 1), (0x11, 2), (0x12, 1), (0x12, 2), (0x12, 4), (0x13, 1)]
)
def test_only_a_word_at_0x10_unplugs(port: int, size: int) -> None:
    bench, masks = watched()
    bench.write(port, (1 << 8 * size) - 1, size)
    assert masks == []
    assert bench.platform.memory_types == []


def test_the_ports_behind_the_protocol_are_left_unclaimed() -> None:
    assert TestBench(XenPlatform()).platform.claimed[PORT] == [(0x10, 0x13)]


def test_all_unplugged_masks_are_remembered_across_a_restore() -> None:
    bench, _ = watched()
    bench.write(0x10, UNPLUG_DISKS, 2)
    bench.write(0x10, UNPLUG_NVME | UNPLUG_AUXILIARY_DISKS, 2)
    device = XenPlatform(addr="2")
    masks: list[int] = []
    device.unplug = masks.append
    restored(bench, device)
    assert masks == [UNPLUG_DISKS | UNPLUG_NVME | UNPLUG_AUXILIARY_DISKS]


def test_an_unplug_of_nothing_asks_nobody() -> None:
    bench, masks = watched()
    bench.write(0x10, 0, 2)
    assert masks == []


def test_the_rom_lock_makes_the_rom_area_read_only(bench: TestBench) -> None:
    bench.write(0x10, 0xFF)
    assert bench.platform.memory_types == [(0xC0, 0x40, False)]
    assert bench.read(0x10) == 1
    bench.write(0x10, 0x00)
    assert bench.platform.memory_types[-1] == (0xC0, 0x40, True)
    assert bench.read(0x10) == 0


def test_a_lock_that_xen_refuses_is_not_shown(
    bench: TestBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(platform: FakePlatform, first_gfn: int, count: int, *, writable: bool) -> None:
        raise HostError("set_mem_type", 22)

    monkeypatch.setattr(FakePlatform, "set_memory_type", refuse)
    for port in (0x10, PORTS):
        with pytest.raises(HostError):
            bench.write(port, 1)
        assert bench.read(0x10) == 0


def test_a_lock_is_made_again_after_a_restore(bench: TestBench) -> None:
    bench.write(0x10, 1)
    other = restored(bench, XenPlatform(addr="2"))
    assert other.platform.memory_types == [(0xC0, 0x40, False)]
    assert other.read(0x10) == 1


def test_a_reset_unlocks_the_rom_area(bench: TestBench) -> None:
    bench.write(0x10, 1)
    bench.machine.reset()
    assert bench.platform.memory_types[-1] == (0xC0, 0x40, True)
    assert bench.read(0x10) == 0


def test_a_start_without_a_lock_asks_nothing_of_xen() -> None:
    assert TestBench(XenPlatform()).platform.memory_types == []


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_a_line_of_the_guests_log_is_one_message(
    bench: TestBench, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for byte in b"xen-pv: ready\n":
            bench.write(0x12, byte)
    assert logged(caplog) == ["the guest says: xen-pv: ready"]


def test_the_guests_log_cannot_forge_lines_or_terminal_codes(
    bench: TestBench, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for byte in b"\x1b[2J\r\xff\n":
            bench.write(0x12, byte)
    assert logged(caplog) == [r"the guest says: \x1b[2J\r\xff"]


def test_a_line_without_an_end_is_cut_and_the_log_is_rate_limited(
    bench: TestBench, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(50_000):
            bench.write(0x12, 0x41)
    messages = logged(caplog)
    assert 1 <= len(messages) < 20
    assert all(len(message) < 600 for message in messages)


def test_bar_0_has_the_flags(bench: TestBench) -> None:
    bench.write(PORTS, 1)
    assert bench.platform.memory_types == [(0xC0, 0x40, False)]
    assert (bench.read(PORTS), bench.read(0x10)) == (1, 1)


def test_bar_0_reads_as_ones_elsewhere(bench: TestBench) -> None:
    assert bench.read(PORTS, 4) == 0xFFFFFF00
    assert bench.read(PORTS + 4, 4) == 0xFFFFFFFF
    assert bench.read(PORTS + 255) == 0xFF


@pytest.mark.parametrize(
    ("offset", "value", "mask"),
    [(4, 1, UNPLUG_DISKS | UNPLUG_NICS), (8, 1, UNPLUG_DISKS), (8, 2, UNPLUG_NICS)],
)
def test_bar_0_has_the_unplug_ports_of_xenlinux(offset: int, value: int, mask: int) -> None:
    bench, masks = watched()
    bench.write(PORTS + offset, value, 4)
    assert masks == [mask]


def test_other_values_at_bar_0s_unplug_ports_do_nothing_or_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench, masks = watched()
    with caplog.at_level(logging.WARNING):
        bench.write(PORTS + 4, 2)
        for byte in b"hi\n":
            bench.write(PORTS + 8, byte)
    assert masks == []
    assert logged(caplog) == ["the guest says: hi"]


def test_bar_1_reads_as_zero_and_takes_writes(bench: TestBench) -> None:
    bench.store(PAGES + 0x1000, 0xFFFFFFFF)
    assert bench.load(PAGES + 0x1000) == 0
    assert bench.load(PAGES + 0xFFFFF8, 8) == 0
    assert bench.platform.claimed[MEMORY] == [(PAGES, PAGES + 0xFFFFFF)]
