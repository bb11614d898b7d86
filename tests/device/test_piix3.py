"""The ISA bridge: its identity, and the routes that it passes on to Xen."""

from __future__ import annotations

import pytest

from devices.piix3 import Piix3
from dm.errors import HostError
from dm.machine.fakes import FakePlatform, TestBench

from .support import restored

DEVFN = 1 << 3


@pytest.fixture
def bench() -> TestBench:
    return TestBench(Piix3())


def test_hvmloader_finds_the_bridge_that_it_asserts(bench: TestBench) -> None:
    assert bench.config_read(DEVFN, 0x00) == 0x70008086
    assert bench.config_read(DEVFN, 0x0A, 2) == 0x0601


def test_the_slot_is_announced_as_multifunction(bench: TestBench) -> None:
    assert bench.config_read(DEVFN, 0x0E, 1) == 0x80


def test_the_routes_start_disconnected(bench: TestBench) -> None:
    assert bench.config_read(DEVFN, 0x60) == 0x80808080
    assert bench.platform.links == {0: 0, 1: 0, 2: 0, 3: 0}


def test_each_written_route_is_passed_on(bench: TestBench) -> None:
    for link, irq in enumerate((5, 10, 11, 5)):
        bench.config_write(DEVFN, 0x60 + link, irq, 1)
    assert bench.platform.links == {0: 5, 1: 10, 2: 11, 3: 5}
    assert bench.config_read(DEVFN, 0x60) == 0x050B0A05


def test_a_dword_write_sets_four_routes(bench: TestBench) -> None:
    bench.config_write(DEVFN, 0x60, 0x8B0A0905)
    assert bench.platform.links == {0: 5, 1: 9, 2: 10, 3: 0}


def test_a_word_write_sets_two_routes(bench: TestBench) -> None:
    bench.config_write(DEVFN, 0x61, 0x0B0A, 2)
    assert bench.platform.links == {0: 0, 1: 10, 2: 11, 3: 0}


def test_every_value_is_a_route_that_xen_accepts(bench: TestBench) -> None:
    for value in range(256):
        bench.config_write(DEVFN, 0x62, value, 1)
        assert bench.platform.links[2] == (0 if value & 0x80 else value & 0x0F)
        assert bench.config_read(DEVFN, 0x62, 1) == value


def test_a_reset_disconnects_the_routes_again(bench: TestBench) -> None:
    bench.config_write(DEVFN, 0x60, 0x05, 1)
    bench.machine.reset()
    assert bench.platform.links[0] == 0
    assert bench.config_read(DEVFN, 0x60, 1) == 0x80


def test_a_restore_passes_the_routes_on_again(bench: TestBench) -> None:
    bench.config_write(DEVFN, 0x60, 0x0B0A0B05)
    assert restored(bench, Piix3()).platform.links == {0: 5, 1: 11, 2: 10, 3: 11}


def test_a_platform_that_refuses_a_route_at_start_up_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(platform: FakePlatform, link: int, irq: int) -> None:
        raise HostError("set_link_route", 22)

    monkeypatch.setattr(FakePlatform, "set_link_route", refuse)
    bench = TestBench(Piix3())
    assert bench.machine.errors == 1
    assert bench.config_read(DEVFN, 0x00) == 0x70008086
