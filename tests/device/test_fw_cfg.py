"""fw_cfg under a scripted bus, read as SeaBIOS reads it."""

from __future__ import annotations

import random
import struct

import pytest

from devices.fw_cfg import LONGEST_FILL, FwCfg
from dm.errors import ConfigError
from dm.machine.fakes import TestBench
from tests.device.qtest import Qtest, StartQemu

SELECTOR, DATA, DMA = 0x510, 0x511, 0x514
ERROR, READ, SKIP, SELECT, WRITE = 1, 2, 4, 8, 16
DESCRIPTOR, TARGET = 0x1000, 0x2000


def read_item(bench: TestBench, key: int, length: int) -> bytes:
    bench.write(SELECTOR, key, 2)
    return bench.machine.bus.read_string(0, DATA, 1, length)


def read_directory(bench: TestBench) -> dict[str, tuple[int, int]]:
    """File name to (key, size)."""
    (count,) = struct.unpack(">I", read_item(bench, 0x19, 4))
    entries = bench.machine.bus.read_string(0, DATA, 1, 64 * count)
    found = {}
    for size, key, _, name in struct.iter_unpack(">IHH56s", entries):
        found[name.rstrip(b"\0").decode()] = (key, size)
    return found


def read_file(bench: TestBench, name: str) -> bytes:
    key, size = read_directory(bench)[name]
    return read_item(bench, key, size)


def dma(bench: TestBench, control: int, length: int, address: int, at: int = DESCRIPTOR) -> int:
    """Run a DMA as firmware does; gives the control word afterwards."""
    bench.memory.write(at, struct.pack(">IIQ", control, length, address))
    bench.write(DMA, int.from_bytes(struct.pack(">I", at >> 32), "little"), 4)
    bench.write(DMA + 4, int.from_bytes(struct.pack(">I", at & 0xFFFFFFFF), "little"), 4)
    return int.from_bytes(bench.memory.read(at, 4), "big")


@pytest.fixture
def bench() -> TestBench:
    return TestBench(FwCfg(cpus=3))


def test_the_signature_is_read_byte_by_byte(bench: TestBench) -> None:
    bench.write(SELECTOR, 0, 2)
    assert bytes(bench.read(DATA) for _ in range(6)) == b"QEMU\0\0"


def test_both_ports_give_data_to_byte_reads(bench: TestBench) -> None:
    assert bytes((bench.read(SELECTOR), bench.read(DATA), bench.read(SELECTOR))) == b"QEM"


def test_the_id_names_the_dma_interface(bench: TestBench) -> None:
    assert read_item(bench, 1, 4) == b"\3\0\0\0"
    assert struct.pack("<II", bench.read(DMA, 4), bench.read(DMA + 4, 4)) == b"QEMU CFG"


def test_the_number_of_cpus_is_an_item(bench: TestBench) -> None:
    assert read_item(bench, 5, 4) == b"\3\0\0\0"


def test_selecting_starts_at_the_items_first_byte(bench: TestBench) -> None:
    read_item(bench, 0, 3)
    assert read_item(bench, 0, 4) == b"QEMU"


@pytest.mark.parametrize("key", [2, 0x18, 0x3F, 0x40, 0x3FFF, 0x8000, 0x8003, 0xFFFF])
def test_unknown_items_read_as_zeros(bench: TestBench, key: int) -> None:
    assert read_item(bench, key, 8) == bytes(8)


def test_the_map_of_memory_is_left_to_xen(bench: TestBench) -> None:
    assert "etc/e820" not in read_directory(bench)


def test_files_follow_from_the_options() -> None:
    device = FwCfg(bootorder="/a/b", sercon="0x2f8", boot_menu="on", boot_menu_wait=250)
    bench = TestBench(device)
    assert read_file(bench, "etc/sercon-port") == b"\xf8\x02"
    assert read_file(bench, "etc/show-boot-menu") == b"\1\0"
    assert read_file(bench, "etc/boot-menu-wait") == b"\xfa\0"
    assert read_file(bench, "bootorder") == b"/a/b\0"
    assert list(read_directory(TestBench(FwCfg(sercon=0)))) == ["etc/show-boot-menu"]


def test_the_boot_menu_is_left_out_unless_it_is_asked_for(bench: TestBench) -> None:
    assert read_file(bench, "etc/show-boot-menu") == b"\0\0"


def test_added_files_stand_in_the_directory_by_name() -> None:
    device = FwCfg()
    device.add_file("opt/z", b"last")
    device.add_file("a", b"first")
    bench = TestBench(device)
    assert list(read_directory(bench)) == ["a", "etc/sercon-port", "etc/show-boot-menu", "opt/z"]
    assert read_file(bench, "opt/z") == b"last"


def test_impossible_files_are_the_users_error() -> None:
    device = FwCfg()
    device.add_file("a", b"")
    for name in ("a", "", "n" * 56):
        with pytest.raises(ConfigError):
            device.add_file(name, b"")
    for index in range(31):
        device.add_file(f"f{index}", b"")
    with pytest.raises(ConfigError, match="more than 32"):
        device.add_file("one too many", b"")


def test_files_cannot_be_added_to_a_running_machine() -> None:
    device = FwCfg()
    TestBench(device)
    with pytest.raises(ConfigError, match="too late"):
        device.add_file("x", b"")


@pytest.mark.parametrize("option", ["cpus", "sercon", "boot_menu_wait"])
def test_an_option_that_fits_no_item_is_the_users_error(option: str) -> None:
    with pytest.raises(ConfigError, match=option):
        TestBench(FwCfg("fw-cfg", **{option: 0x10000}))


def test_dma_reads_an_item_into_guest_memory(bench: TestBench) -> None:
    bench.memory.write(TARGET, b"\xff" * 8)
    assert dma(bench, SELECT | READ, 6, TARGET) == 0
    assert bench.memory.read(TARGET, 8) == b"QEMU\0\0\xff\xff"


def test_dma_skips_and_goes_on_where_the_data_port_stopped(bench: TestBench) -> None:
    assert dma(bench, SELECT | SKIP, 2, 0) == 0
    assert bench.read(DATA) == ord("M")
    assert dma(bench, READ, 1, TARGET) == 0
    assert bench.memory.read(TARGET, 1) == b"U"


def test_dma_refuses_to_write(bench: TestBench) -> None:
    assert dma(bench, SELECT | WRITE, 4, TARGET) == ERROR
    assert read_item(bench, 0, 4) == b"QEMU"


@pytest.mark.parametrize("address", [0x1FFFFF, 1 << 40, (1 << 64) - 1])
def test_dma_to_what_is_not_ram_is_an_error(bench: TestBench, address: int) -> None:
    assert dma(bench, SELECT | READ, 4, address) == ERROR


def test_a_descriptor_outside_of_ram_changes_nothing(bench: TestBench) -> None:
    before = bytes(bench.memory.ram)
    bench.write(DMA, 0xFFFFFFFF, 4)
    bench.write(DMA + 4, 0xFFFFFFFF, 4)
    assert bytes(bench.memory.ram) == before
    assert bench.machine.errors == 0


def test_a_dma_far_past_the_items_end_is_refused(bench: TestBench) -> None:
    assert dma(bench, SELECT | READ, LONGEST_FILL + 5, TARGET) == ERROR


def test_half_an_address_starts_no_dma(bench: TestBench) -> None:
    bench.memory.write(0, struct.pack(">IIQ", SELECT | READ, 4, TARGET))
    for offset, size in ((4, 2), (6, 2), (4, 1), (5, 1)):
        bench.write(DMA + offset, 0, size)
    assert bench.memory.read(TARGET, 4) == bytes(4)


def test_selection_and_position_survive_a_restore(bench: TestBench) -> None:
    read_item(bench, 0, 2)
    other = TestBench(FwCfg(cpus=3))
    other.machine.buffer[:] = bench.machine.buffer
    other.machine.after_load()
    assert other.read(DATA) == ord("M")


def test_reset_selects_the_signature(bench: TestBench) -> None:
    read_item(bench, 5, 1)
    bench.machine.reset()
    assert bench.read(DATA) == ord("Q")


DIFFERENCES = {
    (SELECTOR, 4): "the access leaves the window; QEMU answers no part of it",
    (DATA, 2): "the access leaves the window; QEMU splits it and takes a byte of data",
    (DATA, 4): "the access leaves the window; QEMU splits it and takes a byte of data",
}
"""Reads (port, size) whose answers differ, which the random sequences leave out."""

CHOSEN_KEYS = (0, 1, 5, 2, 0x19, 0x20, 0x4000, 0x8000, 0xFFFF)


def configured_like(oracle: Qtest) -> TestBench:
    """A bench whose items are the oracle's: the directory and the first file are copied."""
    oracle.outw(SELECTOR, 0x19)
    (count,) = struct.unpack(">I", bytes(oracle.inb(DATA) for _ in range(4)))
    device = FwCfg(cpus=1)
    bench = TestBench(device)
    items = dict(device.items)
    items[0x19] = struct.pack(">I", count) + bytes(oracle.inb(DATA) for _ in range(64 * count))
    size = int.from_bytes(items[0x19][4:8], "big")
    oracle.outw(SELECTOR, 0x20)
    items[0x20] = bytes(oracle.inb(DATA) for _ in range(size))
    device.items = items
    return bench


@pytest.mark.parametrize("seed", range(2))
def test_every_answer_is_qemus(seed: int, qemu: StartQemu) -> None:
    oracle = qemu("-fw_cfg", "name=a,string=something")
    bench = configured_like(oracle)
    chance = random.Random(seed)
    for _ in range(2000):
        port, size = chance.choice((SELECTOR, DATA, DMA, DMA + 4)), chance.choice((1, 1, 1, 2, 4))
        if (port, size) in DIFFERENCES:
            port, size = SELECTOR, 2
        elif chance.random() < 0.8:
            assert bench.read(port, size) == oracle.in_(port, size), (port, size)
            continue
        if port < DMA:
            value = chance.choice(CHOSEN_KEYS)
            bench.write(port, value, size)
            oracle.out(port, value, size)


@pytest.mark.parametrize("seed", range(2))
def test_every_dma_ends_as_qemus(seed: int, qemu: StartQemu) -> None:
    oracle = qemu("-fw_cfg", "name=a,string=something")
    bench = configured_like(oracle)
    chance = random.Random(seed)
    for _ in range(150):
        control = chance.randrange(32) | chance.choice(CHOSEN_KEYS) << 16
        length = chance.choice((0, 1, 2, 7, 300))
        descriptor = struct.pack(">IIQ", control, length, TARGET)
        bench.memory.write(DESCRIPTOR, descriptor)
        oracle.write(DESCRIPTOR, descriptor)
        low = int.from_bytes(DESCRIPTOR.to_bytes(4, "big"), "little")
        bench.write(DMA + 4, low, 4)
        oracle.outl(DMA + 4, low)
        for at, size in ((DESCRIPTOR, 16), (TARGET, 320)):
            assert bench.memory.read(at, size) == oracle.read(at, size), hex(control)
