"""Every device that QEMU has, too, under the same 100,000 random accesses as QEMU's.

Each generator makes the accesses that its device can get under Xen: those that lie in its windows.
What it leaves out, and which bits are not compared, is in the tables, each row with the reason.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from random import Random

from devices.cmos import Cmos
from devices.debug_console import DebugConsole
from devices.edu import BUFFER_BASE, BUFFER_SIZE, FACTORIAL_TIME, TRANSFER_TIME, Edu
from devices.fw_cfg import FwCfg
from devices.i8042 import I8042
from devices.pvpanic import Pvpanic
from devices.uart16550 import Uart16550
from dm.machine.fakes import FakeCharacter, TestBench

from .oracle import ACCESSES, Pause, Step, compare, intx, isa, noise, within
from .qtest import Qtest, StartMonitored, StartQemu
from .support import ConfigAccess, MemoryAccess, PortAccess, RamAccess
from .test_cmos import DIFFERENCES as CMOS_DIFFERENCES
from .test_fw_cfg import CHOSEN_KEYS, DESCRIPTOR, TARGET

CMOS_INDICES = [index for index in range(0x0E, 0x80) if index not in CMOS_DIFFERENCES]
"""Those that Xen forwards; the clock's registers are Xen's."""


def cmos_accesses(random: Random) -> Iterator[Step]:
    for index in CMOS_INDICES:
        yield PortAccess(0x70, 2, index | random.getrandbits(8) << 8)
    while True:
        index = random.choice(CMOS_INDICES) | random.choice((0, 0x80))
        if random.random() < 0.3:
            yield PortAccess(0x70, 2, index | random.getrandbits(8) << 8)
        else:
            yield PortAccess(0x70, 1, index)
        for _ in range(random.randrange(5)):
            value = random.choice((None, None, noise(random, 1)))
            yield PortAccess(0x71, 1, value)
            yield PortAccess(0x70, random.choice((1, 2)))


def test_cmos(qemu: StartQemu, random: Random) -> None:
    compare(qemu(), (bench := TestBench(Cmos())), isa(bench), cmos_accesses(random))


def uart_accesses(random: Random) -> Iterator[Step]:
    """Phases in which the control registers are written often, seldom or not at all.

    Without a chardev's input all reception is loopback, so half of the phases begin with it.
    """
    while True:
        control = random.choice((0.5, 0.05, 0))
        for port, value in ((0x3FA, noise(random, 1)), (0x3FB, 0x03), (0x3FC, noise(random, 1))):
            yield PortAccess(port, 1, value | random.choice((0, 0x10 * (port == 0x3FC))))
        for _ in range(random.randrange(200)):
            port, size = within(random, 0x3F8, 8, (1, 1, 1, 1, 2, 4))
            controls = port + size > 0x3FA and port < 0x3FD
            if random.random() < (control if controls else 0.5):
                yield PortAccess(port, size, noise(random, size))
            else:
                yield PortAccess(port, size)
            if random.random() < 0.4:
                yield PortAccess(0x3F8, 1, random.choice((None, random.getrandbits(8))))


def test_uart(qemu: StartQemu, random: Random) -> None:
    other = qemu("-chardev", "null,id=s", "-device", "isa-serial,chardev=s")
    compare(other, (bench := TestBench(Uart16550())), isa(bench, 4), uart_accesses(random))


I8042_COMMANDS_LEFT_OUT = {
    0xD1: "QEMU takes the buffer-full bits as written until the buffer changes; bit 0 reboots",
    **dict.fromkeys(range(0xF0, 0x100, 2), "resets the machine"),
}
MOUSE_BYTES_LEFT_OUT = {0xEE: "QEMU's mouse stays in wrap mode across a reset"}


def i8042_accesses(random: Random) -> Iterator[Step]:
    commands = [byte for byte in range(256) if byte not in I8042_COMMANDS_LEFT_OUT]
    arguments = (0x60, 0xD2, 0xD3)
    mouse = [byte for byte in range(256) if byte not in MOUSE_BYTES_LEFT_OUT]
    while True:
        kind = random.random()
        if kind < 0.6:
            yield PortAccess(random.choice((0x60, 0x64)), 1)
        elif kind < 0.75:
            yield PortAccess(
                0x60, 1, random.choice((random.getrandbits(8), 0xF0 + random.randrange(16)))
            )
        elif kind < 0.9:
            yield PortAccess(0x64, 1, 0xD4)
            yield PortAccess(
                0x60,
                1,
                random.choice(
                    (
                        200,
                        100,
                        80,
                        random.choice(mouse),
                        0xE6 + random.randrange(8),
                        0xF2,
                        0xF3,
                        0xF4,
                        0xFF,
                    )
                ),
            )
        else:
            yield PortAccess(
                0x64,
                1,
                random.choice(
                    (*arguments, random.choice(commands), 0xA7, 0xA8, 0xAD, 0xAE, 0xAA, 0x20, 0xD0)
                ),
            )


def test_i8042(qemu: StartQemu, random: Random) -> None:
    compare(qemu(), (bench := TestBench(I8042())), isa(bench, 1, 12), i8042_accesses(random))


def test_debug_console(qemu: StartQemu, random: Random, tmp_path: Path) -> None:
    out = tmp_path / "out"
    other = qemu(
        "-chardev", f"file,id=d,path={out}", "-device", "isa-debugcon,iobase=0x402,chardev=d"
    )
    console, character = DebugConsole(), FakeCharacter()
    bench = TestBench(console)
    console.output.attach(character)
    steps = (
        PortAccess(0x402, 1, random.choice((None, random.getrandbits(8)))) for _ in range(ACCESSES)
    )
    compare(other, bench, isa(bench), steps)
    assert out.read_bytes() == bytes(character.sent)


PANIC_EVENTS = {1: ["GUEST_PANICKED"], 2: ["GUEST_CRASHLOADED"], 3: ["GUEST_PANICKED"]}


def test_pvpanic(monitored: StartMonitored, random: Random) -> None:
    other, monitor = monitored("-device", "pvpanic", "-action", "panic=none")
    device = Pvpanic()
    bench, reported = TestBench(device), list[int]()
    device.report = reported.append

    def accesses() -> Iterator[Step]:
        for _ in range(ACCESSES):
            value = random.choice((None, random.getrandbits(8) & random.choice((0xFF, 0xFC, 0xFC))))
            yield PortAccess(0x505, 1, value)

    compare(other, bench, {}, accesses())
    monitor.execute("query-name")
    names = [event["event"] for event in monitor.events]
    assert names == [name for events in reported for name in PANIC_EVENTS[events]]


FW_CFG_LEFT_OUT = {
    "descriptors and targets between 0xa0000 and 0x1000000": "QEMU has a ROM, a hole and more RAM",
    "targets that are partly RAM": "QEMU stores what fits, and goes on at 0 after the last address",
}
FW_CFG_KEYS = (*range(0x20), *range(0x8000, 0x8010))
LONGEST_PLAIN_ITEM = 0x2000
RAM_COMPARED = 0x1800


def fw_cfg_accesses(random: Random) -> Iterator[Step]:
    yield PortAccess(0x510, 2, 0)
    while True:
        base, length, sizes = random.choice(((0x510, 2, (1, 1, 1, 2)), (0x514, 8, (1, 2, 4))))
        port, size = within(random, base, length, sizes)
        kind = random.random()
        if kind < 0.05:
            yield from fw_cfg_dma(random)
        elif kind < 0.75:
            yield PortAccess(port, size)
        elif base == 0x510:
            key = random.choice((*CHOSEN_KEYS, noise(random, size))) & (1 << 8 * size) - 1
            yield PortAccess(port, size, key)
        elif (port, size) != (0x518, 4):
            yield PortAccess(port, size, random.choice((0, noise(random, size))))


def fw_cfg_dma(random: Random) -> Iterator[Step]:
    control = random.randrange(32) | random.choice((*CHOSEN_KEYS, random.getrandbits(16))) << 16
    length = random.choice((0, 1, 2, 7, 300, random.randrange(RAM_COMPARED)))
    at = DESCRIPTOR + random.randrange(64)
    target = random.choice(
        (TARGET, TARGET + random.randrange(64), 1 << 40, (1 << 64) - (1 << 16), at + 8)
    )
    yield RamAccess(at, 16, struct.pack(">IIQ", control, length, target))
    yield PortAccess(0x514, 4, random.choice((0, 0, 0, noise(random, 4))))
    where = random.choice((at, at, at, at, 0xFFFF_FFF0))
    yield PortAccess(0x518, 4, int.from_bytes(where.to_bytes(4, "big"), "little"))
    yield RamAccess(DESCRIPTOR, 128)
    if random.random() < 0.1:
        yield RamAccess(TARGET, RAM_COMPARED + 64)
    else:
        yield RamAccess(TARGET, 128)


def copied_items(qemu: Qtest) -> dict[int, bytes]:
    """All items of QEMU's device; behind an item's end there are zeros."""

    def read(key: int, length: int) -> bytes:
        qemu.outw(0x510, key)
        answers = [
            answer for _ in range(0, length, 1024) for answer in qemu.batch(["inb 0x511"] * 1024)
        ]
        return bytes(int(answer.text, 0) for answer in answers)[:length]

    items = {key: read(key, LONGEST_PLAIN_ITEM).rstrip(b"\0") for key in FW_CFG_KEYS}
    (count,) = struct.unpack_from(">I", items[0x19])
    directory = items[0x19].ljust(4 + 64 * count, b"\0")
    for size, key, _, _ in struct.iter_unpack(">IHH56s", directory[4:]):
        items[key] = read(key, size)
    return items


def test_fw_cfg(qemu: StartQemu, random: Random) -> None:
    other, device = qemu("-fw_cfg", "name=a,string=something"), FwCfg()
    bench = TestBench(device)
    device.items = copied_items(other)
    compare(other, bench, {}, fw_cfg_accesses(random))


EDU = 4 << 3
EDU_BAR = 0xE000_0000
EDU_SMALL = (0x00, 0x04, 0x20, 0x24, 0x60, 0x64)
EDU_WIDE = (0x80, 0x88, 0x90, 0x98)
EDU_UPPER_HALVES = tuple(offset + 4 for offset in EDU_WIDE)
EDU_RAM = 0x10000
EDU_LEFT_OUT = {
    "4-byte writes from 0x80 on": "QEMU clears the upper half; here each half can be accessed",
    "4-byte reads of upper halves": "QEMU has ones there",
    "1, 2 and misaligned bytes": "QEMU answers zeros without asking its device; ones here",
    "a transfer under way": "QEMU's clock runs ahead of every request; both are waited for",
    "transfers of nothing, or up to the end of the buffer or beyond it": "QEMU exits",
    "transfers of what is not RAM": "QEMU leaves it open what is read",
    "addresses beyond the DMA mask": "QEMU writes a line about each to where it answers",
    "a factorial under way": "QEMU's thread may or may not be done; both are waited for",
    "a factorial of a large number": "QEMU's thread multiplies for seconds",
}


def edu_finish_factorial(qemu: Qtest, bench: TestBench) -> None:
    """Wait for QEMU's thread and, when it is to interrupt, for that, which is a moment later."""
    while (status := qemu.readl(EDU_BAR + 0x20)) & 1:
        pass
    while status & 0x80 and not qemu.readl(EDU_BAR + 0x24) & 1:
        pass
    bench.advance(FACTORIAL_TIME)


def edu_finish_transfer(qemu: Qtest, bench: TestBench) -> None:
    while qemu.readq(EDU_BAR + 0x98) & 1:
        pass
    bench.advance(TRANSFER_TIME)


def edu_transfer(random: Random) -> Iterator[Step]:
    """A transfer, and what it changed."""
    length = random.choice((1, 7, 512, BUFFER_SIZE - 1))
    buffer = BUFFER_BASE + random.randrange(BUFFER_SIZE - length)
    ram = EDU_RAM + random.randrange(BUFFER_SIZE)
    command = random.getrandbits(3) | 1
    yield RamAccess(ram, 16, random.randbytes(16))
    ends = (buffer, ram) if command & 2 else (ram, buffer)
    for register, value in zip(EDU_WIDE, (*ends, length, command), strict=True):
        yield MemoryAccess(EDU_BAR + register, 8, value)
    yield Pause(edu_finish_transfer)
    yield RamAccess(EDU_RAM, 2 * BUFFER_SIZE)


def edu_accesses(random: Random) -> Iterator[Step]:
    while True:
        kind = random.random()
        if kind < 0.002:
            yield from edu_transfer(random)
        elif kind < 0.02:
            yield MemoryAccess(EDU_BAR + 0x64, 4, 1)
            yield MemoryAccess(EDU_BAR + 0x08, 4, random.randrange(256))
            yield Pause(edu_finish_factorial)
        elif kind < 0.05:
            yield ConfigAccess(EDU, 0x04, 2, 0x0006 | random.choice((0, 0x400)))
        elif kind < 0.1:
            yield ConfigAccess(EDU, random.choice((0x04, 0x06, 0x3C)), 2)
        elif kind < 0.6:
            size = random.choice((4, 8))
            anywhere = random.randrange(0, random.choice((0x100, 0x100000)), size)
            offset = random.choice((*EDU_SMALL, 0x08, *EDU_WIDE, anywhere))
            if offset & size - 1 == 0 and offset not in EDU_UPPER_HALVES:
                yield MemoryAccess(EDU_BAR + offset, size)
        elif kind < 0.9:
            yield MemoryAccess(EDU_BAR + random.choice(EDU_SMALL), 4, noise(random, 4))
        else:
            offset = random.choice(EDU_WIDE)
            yield MemoryAccess(EDU_BAR + offset, 8, noise(random, 8) & ~(offset == 0x98))


def test_edu(monitored: StartMonitored, random: Random, tmp_path: Path) -> None:
    """QEMU's vCPU runs, and halts at once, so that its clock goes on to whatever is due."""
    firmware = tmp_path / "halts"
    firmware.write_bytes(b"\xf4" * 0x10000)
    clock = ("-icount", "shift=0,sleep=off", "-bios", str(firmware))
    (other, monitor), bench = monitored("-device", "edu,addr=4", *clock), TestBench(Edu(addr="4"))
    monitor.execute("cont")
    for side in (other, bench):
        side.config_write(EDU, 0x10, EDU_BAR)
        side.config_write(EDU, 0x04, 0x0006, 2)
    other.config_write(1 << 3, 0x63, 11, 1)
    compare(other, bench, intx(bench, {11: 4}), edu_accesses(random))
