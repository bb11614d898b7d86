"""The hypervisor's own chips against QEMU's, access by access; guest time stands still in both.

`DELIBERATE` names where they differ on purpose; the sequences leave those cases out.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.device.qtest import Qtest, StartQemu
from tests.unit.standalone.chips_support import Pc

DELIBERATE = {
    "an edge-triggered 8259 input that falls": "Xen takes the request back; QEMU keeps it",
    "master's IR2": "always a level in Xen; QEMU latches the slave's rising edge",
    "special fully nested mode of the master": "QEMU disregards the slave's ISR for every input",
    "non-specific EOI in special mask mode": "QEMU ends masked inputs, too (data sheet, Xen: not)",
    "PIT outputs in modes 1, 2, 4 and 5": "QEMU's are inverted (data sheet: high at rest)",
    "PIT counters in mode 3, odd counts": "QEMU's is off by one",
    "PIT BCD counts and modes 6 and 7": "QEMU counts in binary and reads modes 6 and 7 back",
    "port 0x61 bit 4": "QEMU toggles it by reads, Xen by time",
    "I/O APIC version and number of pins": "Xen has version 0x11 and 48 pins, QEMU 0x20 and 24",
    "an asserted pin whose trigger mode changes": "Xen knows its level, QEMU has forgotten it",
    "RTC day of the week": "Xen counts from 0, QEMU from 1",
    "RTC register B, UIE when SET is written": "QEMU clears it (data sheet), Xen does not",
}

CONTROLLERS = {
    "master": (0x20, 0x4D0, "/machine/unattached/device[6]", 0),
    "slave": (0xA0, 0x4D1, "/machine/unattached/device[7]", 8),
}
COMMANDS = {"end": 1, "specific end": 3, "set": 6, "rotate end": 5, "rotate specific": 7}


class PicDriver:
    """One 8259 in both worlds, and the levels of its inputs."""

    def __init__(self, qemu: Qtest, pc: Pc, which: str) -> None:
        self.qemu, self.pc = qemu, pc
        self.base, self.elcr, self.path, self.first = CONTROLLERS[which]
        self.pic = pc.board.pic.slave if self.first else pc.board.pic.master
        self.inputs = [n for n in range(8) if self.first or n != 2]
        self.levels = 0

    def out(self, port: int, value: int) -> None:
        self.qemu.outb(port, value)
        self.pc.outb(port, value)

    def check(self, port: int, step: str) -> None:
        mask = 0xFB if not self.first and port == self.base and not self.pic.poll else 0xFF
        expected, got = self.qemu.inb(port), self.pc.in_(port)
        assert got & mask == expected & mask, f"{step}: {port:#x} QEMU {expected:#x}, ours {got:#x}"

    def drive(self, number: int, level: int) -> None:
        bit = 1 << number
        if bool(self.levels & bit) == bool(level):
            return
        if not level and self.pic.irr & bit and not self.pic.elcr & bit:
            return
        self.levels ^= bit
        self.qemu.command(f"set_irq_in {self.path} unnamed-gpio-in {number} {level}")
        self.pc.board.set_pic(self.first + number, level)

    def initialise(self, icw1: int, icw2: int, icw4: int) -> None:
        self.out(self.base, 0x10 | icw1)
        words = [icw2, *([] if icw1 & 2 else [4]), *([icw4] if icw1 & 1 else [])]
        for word in words:
            self.out(self.base + 1, word)

    def step(self, chance: random.Random) -> None:
        kind = chance.random()
        byte = chance.randrange(256)
        if kind < 0.30:
            self.drive(chance.choice(self.inputs), chance.randrange(2))
        elif kind < 0.42:
            self.out(self.base + 1, byte & chance.randrange(256))
        elif kind < 0.57:
            command = chance.choice([0, 2, 3, 4, 6, 7, *([] if self.pic.special_mask else [1, 5])])
            self.out(self.base, command << 5 | byte & 7)
        elif kind < 0.72:
            self.out(self.base, 0x08 | byte & 0x67)
        elif kind < 0.75:
            self.out(self.elcr, byte)
        elif kind < 0.76:
            # Its special fully nested mode and the cascade are in DELIBERATE.
            self.initialise(byte & 0x0B, chance.randrange(256), chance.choice((0, 1, 2, 3)))
        else:
            self.check(chance.choice((self.base, self.base + 1)), "read")


@pytest.fixture
def oracle(qemu: StartQemu) -> Qtest:
    return qemu()


@pytest.mark.parametrize("which", CONTROLLERS)
@pytest.mark.parametrize("seed", range(4))
def test_an_8259_answers_as_qemus(which: str, seed: int, oracle: Qtest) -> None:
    chance = random.Random(f"{which} {seed}")
    driver = PicDriver(oracle, Pc(), which)
    for number in driver.inputs:
        oracle.command(f"set_irq_in {driver.path} unnamed-gpio-in {number} 0")
    for port in (0x20, 0xA0):
        driver.out(port, 0x11)
        for word in (0x08, 0x04, 0x01, 0xFF):
            driver.out(port + 1, word)
    driver.initialise(0x01, 0x08, 0x01)
    for _ in range(4000):
        driver.step(chance)
    for port in (driver.base, driver.base + 1, driver.elcr):
        driver.check(port, "end")


class IoApicDriver:
    """The I/O APIC in both worlds; only pins that both have, none of them IRQ 0's."""

    PINS = range(3, 24)
    PATH = "/machine/i440fx/ioapic"

    def __init__(self, qemu: Qtest, pc: Pc) -> None:
        self.qemu, self.pc = qemu, pc
        self.levels = 0

    def store(self, register: int, value: int) -> None:
        for address, word in ((0xFEC00000, register), (0xFEC00010, value)):
            self.qemu.writel(address, word)
            self.pc.store(address, word)

    def check(self, register: int) -> None:
        self.qemu.writel(0xFEC00000, register)
        self.pc.store(0xFEC00000, register)
        expected, got = self.qemu.readl(0xFEC00010), self.pc.load(0xFEC00010)
        assert got == expected, f"register {register:#x}: QEMU {expected:#x}, ours {got:#x}"

    def drive(self, pin: int, level: int) -> None:
        if self.levels >> pin & 1 != level:
            self.levels ^= 1 << pin
            self.qemu.command(f"set_irq_in {self.PATH} unnamed-gpio-in {pin} {level}")
            self.pc.board.set_gsi(pin, level)

    def step(self, chance: random.Random) -> None:
        pin, kind = chance.choice(self.PINS), chance.random()
        low = 0x10 + 2 * pin
        if kind < 0.3:
            self.drive(pin, chance.randrange(2))
        elif kind < 0.45:
            # Fixed and lowest priority only: the others reach QEMU's processor or its 8259.
            value = chance.randrange(1 << 32) & ~0x600
            if (self.pc.board.ioapic.entries[pin] ^ value) & 0x8000:
                self.drive(pin, 0)
            self.store(low, value)
        elif kind < 0.55:
            self.store(low + 1, chance.randrange(1 << 32))
        elif kind < 0.6:
            self.store(0, chance.randrange(1 << 32))
        else:
            self.check(chance.choice((low, low, low + 1, 0, 2, 0xFF)))


@pytest.mark.parametrize("seed", range(3))
def test_an_ioapic_answers_as_qemus(seed: int, oracle: Qtest) -> None:
    chance = random.Random(seed)
    driver = IoApicDriver(oracle, Pc())
    for pin in driver.PINS:
        oracle.command(f"set_irq_in {driver.PATH} unnamed-gpio-in {pin} 0")
    for _ in range(4000):
        driver.step(chance)


def pit_words(chance: random.Random) -> Iterator[tuple[int, int | None]]:
    """A channel is programmed, or latched and read, or read back; (port, None) is a read."""
    channel = chance.randrange(3)
    kind = chance.random()
    if kind < 0.35:
        access, mode = chance.choice((1, 2, 3)), chance.choice((0, 1, 2, 3, 4, 5))
        yield 0x43, channel << 6 | access << 4 | mode << 1
        yield 0x40 + channel, chance.randrange(256) & 0xFE
        if access == 3:
            yield 0x40 + channel, chance.randrange(256)
    elif kind < 0.5:
        yield 0x43, channel << 6
    elif kind < 0.6:
        yield 0x43, 0xC0 | chance.randrange(64) & 0x3E
    elif kind < 0.65:
        yield 0x61, chance.randrange(4)
    else:
        yield chance.choice((0x40, 0x41, 0x42, 0x61)), None


INVERTED = (1, 2, 4, 5)


def pit_mask(pc: Pc, port: int) -> int:
    """The bits to compare: the output's place only in modes in which QEMU has it right."""
    if port == 0x61:
        return 0x03 if pc.board.pit.channels[2].mode in INVERTED else 0x23
    channel = pc.board.pit.channels[port & 3]
    inverted = channel.status_latched and channel.status >> 1 & 7 in INVERTED
    return 0x7F if inverted else 0xFF


@pytest.mark.parametrize("seed", range(3))
def test_a_pit_answers_as_qemus_while_time_stands_still(seed: int, oracle: Qtest) -> None:
    chance = random.Random(seed)
    pc = Pc()
    for channel in range(3):
        for port, byte in ((0x43, channel << 6 | 0x36), (0x40 + channel, 0), (0x40 + channel, 0)):
            oracle.outb(port, byte)
            pc.outb(port, byte)
    for step in range(1500):
        for port, value in pit_words(chance):
            if value is not None:
                oracle.outb(port, value)
                pc.outb(port, value)
                continue
            mask = pit_mask(pc, port)
            expected, got = oracle.inb(port), pc.in_(port)
            assert got & mask == expected & mask, f"{step}: {port:#x} {expected:#x} {got:#x}"


def both_write(oracle: Qtest, pc: Pc, index: int, value: int) -> None:
    for port, byte in ((0x70, index), (0x71, value)):
        oracle.outb(port, byte)
        pc.outb(port, byte)


def both_read(oracle: Qtest, pc: Pc, index: int) -> tuple[int, int]:
    oracle.outb(0x70, index)
    pc.outb(0x70, index)
    return oracle.inb(0x71), pc.in_(0x71)


@pytest.mark.parametrize("seed", range(3))
def test_an_rtc_whose_date_is_stopped_answers_as_qemus(seed: int, oracle: Qtest) -> None:
    chance = random.Random(seed)
    pc = Pc()
    both_write(oracle, pc, 0x0B, 0x82)
    for index in range(10):
        both_write(oracle, pc, index, 0x01)
    for _ in range(3000):
        index = chance.choice([*range(11), 0x0B, 0x0D])
        if chance.random() < 0.5:
            value = chance.randrange(256)
            both_write(oracle, pc, index, value | 0x80 if index == 0x0B else value)
        else:
            expected, got = both_read(oracle, pc, index)
            mask = 0xEF if index == 0x0B else 0xFF
            assert got & mask == expected & mask, f"{index:#x}: {expected:#x}, ours {got:#x}"


@pytest.mark.parametrize("mode", [0x00, 0x02, 0x04, 0x06])
def test_a_date_reads_back_as_in_qemus_rtc(mode: int, oracle: Qtest) -> None:
    pc = Pc()
    binary, whole_day = mode & 4, mode & 2
    for year, month, day, hour, minute in (
        (24, 2, 29, 0, 59),
        (99, 12, 31, 12, 0),
        (0, 1, 9, 23, 9),
    ):
        both_write(oracle, pc, 0x0B, 0x80 | mode)
        twelve = hour if whole_day else hour % 12 or 12
        half = 0 if whole_day or hour < 12 else 0x80
        oracle.outb(0x70, 0x32)  # the century is the emulator's, and QEMU's has one
        oracle.outb(0x71, 20 if binary else 0x20)
        numbers = {9: year, 8: month, 7: day, 4: twelve, 2: minute, 0: 5}
        for index, number in numbers.items():
            byte = number if binary else number // 10 << 4 | number % 10
            both_write(oracle, pc, index, byte | (half if index == 4 else 0))
        for shown in (mode, mode ^ 2, mode ^ 4, mode ^ 6):
            both_write(oracle, pc, 0x0B, shown)
            for index in (9, 8, 7, 4, 2):
                expected, got = both_read(oracle, pc, index)
                assert got == expected, f"{index} in mode {shown}: {expected:#x}, ours {got:#x}"
