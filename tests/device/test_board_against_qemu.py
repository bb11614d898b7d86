"""The board's own devices against QEMU's: random accesses, every answer compared.

What is not compared is in the tables below, each row with the reason.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from random import Random

import pytest

from devices.debug_console import DebugConsole
from devices.pci_host import PciHost
from devices.piix3 import Piix3
from devices.piix4_pm import Piix4Pm
from devices.port92 import Port92
from devices.pvpanic import Pvpanic
from dm.machine.fakes import FakeCharacter, TestBench

from .qtest import Qtest, StartQemu
from .support import ConfigAccess, PortAccess, config_difference, mask_of, port_difference

SEEDS = range(3)
HOST, BRIDGE, POWER = 0, 1 << 3, 1 << 3 | 3
SCI = 9

BOARD = (
    *("-machine", "smm=off,hpet=off", "-smp", "2,maxcpus=16,sockets=16"),
    *("-global", "PIIX4_PM.smm-compat=on"),
    *("-global", "PIIX4_PM.acpi-pci-hotplug-with-bridge-support=off"),
    *("-device", "pvpanic"),
)
"""As libxl's machine type has it: no SMM, SCI_EN clear at the start, slots of bus 0 pluggable."""

EVERY_FUNCTION = (
    (0x04, 2, 0x0250, "QEMU keeps no memory-write-invalidate, parity and fast-back-to-back bits"),
    (0x0D, 1, 0xFF, "QEMU has no latency timer"),
    (0x0F, 1, 0xFF, "QEMU has no built-in self test register"),
)
DELIBERATE = {
    HOST: (
        *EVERY_FUNCTION,
        (0x57, 1, 0xFF, "RAM size for coreboot, in no datasheet"),
    ),
    BRIDGE: EVERY_FUNCTION,
    POWER: (
        *EVERY_FUNCTION,
        (0x3C, 1, 0xFF, "9 at reset here, 0 in QEMU; firmware sets it"),
        (0x5F, 1, 0xFF, "resource decoding, set by QEMU's board for devices it has"),
        (0x63, 1, 0xFF, "the same"),
        (0x67, 1, 0xFF, "the same"),
        (0x90, 4, 0xFFFFFFFF, "SMBus is not modelled, so it has no base"),
        (0xD2, 1, 0xFF, "SMBus is not modelled, so it is not enabled"),
    ),
}
UNWRITTEN = {
    HOST: (),
    BRIDGE: (),
    POWER: (0x40, 0x41, 0x42, 0x43, 0x80, 0x90, 0x91, 0x92, 0x93, 0xD2),
}
"""Registers that move QEMU's windows over the ports by which it is being asked."""

PORTS: tuple[tuple[int, int, int, str], ...] = (
    (0xCF8, 4, 0xFFFFFFFF, "narrower reads are ones here, so that mechanism 2 is not found"),
    (0xCF9, 1, 0xFB, "bit 2 ends QEMU"),
    (0x92, 1, 0xFE, "bit 0 ends QEMU"),
    (0xB2, 1, 0xFF, ""),
    (0xB3, 1, 0xFF, ""),
    (0xB2, 2, 0xFFFF, ""),
    (0xB004, 2, 0xDFFF, "bit 13 ends QEMU; it takes byte writes for writes of both bytes"),
    (0xB004, 1, 0, "as above"),
    (0xAFE0, 1, 0xFF, ""),
    (0xAFE1, 1, 0xFF, ""),
    (0xAFE2, 1, 0xFF, ""),
    (0xAFE3, 1, 0xFF, ""),
    (0xAFE0, 2, 0xFFFF, ""),
    (0xAFE1, 2, 0xFFFF, ""),
    (0xAFE2, 2, 0xFFFF, ""),
    (0xAFE0, 4, 0xFFFFFFFF, ""),
    (0xAE00, 4, 0xFFFFFFFF, ""),
    (0xAE04, 4, 0xFFFFFFFF, ""),
    (0xAE08, 4, 0xFFFFFFFF, ""),
    (0xAE0C, 4, 0xFFFFFFFF, ""),
    (0xAE00, 1, 0xFF, ""),
    (0xAE0C, 2, 0xFFFF, ""),
    (0xAF00, 1, 0, "a write switches QEMU to another register file"),
    (0xAF01, 1, 0, "as above; wider reads give QEMU's first byte"),
    (0xAF1F, 1, 0, "as above"),
    (0x505, 1, 0xFC, "the known events stop QEMU"),
    (0x402, 1, 0xFF, ""),
)
"""Port, size, the bits that are written (0: only reads), and why no more."""


def board() -> tuple[TestBench, Piix4Pm, FakeCharacter]:
    power, console, character = Piix4Pm(cpus=2), DebugConsole(), FakeCharacter()
    bench = TestBench(PciHost(), Piix3(), power, Port92(), Pvpanic(), console)
    console.output.attach(character)
    return bench, power, character


def enable_pm_block(qemu: Qtest, bench: TestBench) -> None:
    for register, value, size in ((0x40, 0xB001, 4), (0x80, 0x01, 1)):
        qemu.config_write(POWER, register, value, size)
        bench.config_write(POWER, register, value, size)
    qemu.outl(0xCF8, 0)


def config_accesses(random: Random, count: int) -> Iterator[ConfigAccess]:
    """Accesses within a doubleword: what goes beyond leaves the data ports of QEMU's board."""
    for _ in range(count):
        devfn, size = random.choice((HOST, BRIDGE, POWER)), random.choice((1, 2, 4))
        register = random.randrange(0, 256, 4) + random.randrange(4 - size + 1)
        touched = range(register, register + size)
        if random.random() < 0.5 or any(byte in UNWRITTEN[devfn] for byte in touched):
            yield ConfigAccess(devfn, register, size)
        else:
            yield ConfigAccess(devfn, register, size, random.getrandbits(8 * size))


def port_accesses(random: Random, count: int) -> Iterator[PortAccess]:
    for _ in range(count):
        port, size, writable, _ = random.choice(PORTS)
        value = random.getrandbits(8 * size) & writable
        if value == 0 or random.random() < 0.5:
            yield PortAccess(port, size)
        else:
            yield PortAccess(port, size, value)


@pytest.mark.parametrize("seed", SEEDS)
def test_configuration_space_answers_as_qemus(qemu: StartQemu, seed: int) -> None:
    other, (bench, _, _) = qemu(*BOARD), board()
    ignored = {devfn: mask_of(rows) for devfn, rows in DELIBERATE.items()}
    reset = [ConfigAccess(devfn, r, 4) for devfn in DELIBERATE for r in range(0, 256, 4)]
    accesses = [*reset, *config_accesses(Random(seed), 2000), *reset]
    found = [config_difference(other, bench, a, ignored[a.devfn]) for a in accesses]
    assert [difference for difference in found if difference] == []


@pytest.mark.parametrize("seed", SEEDS)
def test_ports_answer_as_qemus(qemu: StartQemu, seed: int) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        chardev = f"socket,id=debug,fd={theirs.fileno()}"
        console = ("-chardev", chardev, "-device", "isa-debugcon,iobase=0x402,chardev=debug")
        other = qemu(*BOARD, *console, pass_fds=(theirs.fileno(),))
        bench, _, character = board()
        enable_pm_block(other, bench)
        accesses = list(port_accesses(Random(seed), 3000))
        found = [port_difference(other, bench, access) for access in accesses]
        assert [difference for difference in found if difference] == []
        assert ours.recv(len(character.sent), socket.MSG_WAITALL) == character.sent
    assert bench.platform.shutdowns == []


class Monitor:
    """A QMP connection, as far as a test needs one."""

    def __init__(self, connection: socket.socket) -> None:
        self._stream = connection.makefile("rw")
        self._stream.readline()
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: object) -> object:
        self._stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._stream.flush()
        while True:
            answer = json.loads(self._stream.readline())
            if "error" in answer:
                raise AssertionError(answer)
            if "event" not in answer:
                return answer["return"]


class Hotplug:
    """Both boards, with QEMU's under a monitor; every comparison reads all hotplug registers."""

    def __init__(self, other: Qtest, monitor: Monitor) -> None:
        self.other = other
        self.monitor = monitor
        self.bench, self.power, _ = board()
        other.irq_intercept()

    def write(self, port: int, value: int, size: int = 1) -> None:
        self.other.out(port, value, size)
        self.bench.write(port, value, size)

    def compare(self) -> None:
        for port in (0xAFE0, 0xAFE1, 0xAFE2, 0xAFE3, *range(0xAF00, 0xAF20)):
            assert self.other.inb(port) == self.bench.read(port), hex(port)
        for port in (0xAE00, 0xAE04, 0xAE08, 0xAE0C):
            assert self.other.inl(port) == self.bench.read(port, 4), hex(port)
        assert self.other.irqs.get(SCI, 0) == self.bench.platform.isa[SCI]


@pytest.fixture
def hotplug(qemu: StartQemu) -> Iterator[Hotplug]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        chardev = f"socket,id=monitor,fd={theirs.fileno()}"
        options = ("-chardev", chardev, "-mon", "chardev=monitor,mode=control")
        other = qemu(*BOARD, *options, pass_fds=(theirs.fileno(),))
        yield Hotplug(other, Monitor(ours))


def test_a_plugged_vcpu_is_announced_as_qemu_does(hotplug: Hotplug) -> None:
    hotplug.compare()
    for vcpu, enabled in ((2, 0x00), (3, 0x04), (9, 0x06), (4, 0x02)):
        hotplug.write(0xAFE2, enabled)
        where = {"socket-id": vcpu, "core-id": 0, "thread-id": 0}
        hotplug.monitor.execute("device_add", driver="qemu64-x86_64-cpu", **where)
        hotplug.power.plug_vcpu(vcpu)
        hotplug.compare()
        hotplug.write(0xAFE0, 0xFB)
        hotplug.compare()
        hotplug.write(0xAFE0, 0x04)
        hotplug.compare()


def test_a_plugged_and_ejected_slot_is_announced_as_qemu_does(hotplug: Hotplug) -> None:
    hotplug.write(0xAFE2, 0x02)
    for slot in (5, 31, 2):
        hotplug.monitor.execute("device_add", driver="edu", id=f"s{slot}", addr=f"{slot:x}")
        hotplug.power.plug_slot(slot)
        hotplug.compare()
        hotplug.compare()
        hotplug.write(0xAFE0, 0x02)
        hotplug.compare()
    for slot in (31, 5):
        hotplug.monitor.execute("device_del", id=f"s{slot}")
        hotplug.power.unplug_slot(slot)
        hotplug.compare()
        hotplug.write(0xAFE0, 0x02)
        hotplug.write(0xAE08, 1 << slot, 4)
        hotplug.compare()


def test_the_slots_that_may_go_are_qemus(qemu: StartQemu) -> None:
    other, (bench, _, _) = qemu(*BOARD), board()
    assert other.inl(0xAE0C) == bench.read(0xAE0C, 4)
