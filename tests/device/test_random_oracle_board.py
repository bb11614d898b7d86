"""The PCI host, PIIX3 and PIIX4 PM under the same 100,000 random accesses as QEMU's.

What is not compared is in the tables of `test_board_against_qemu` and in those here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from random import Random

from devices.edu import Edu
from devices.pci_host import PciHost
from devices.piix3 import Piix3
from devices.piix4_pm import Piix4Pm
from dm.machine.fakes import TestBench

from .oracle import Pause, Step, compare, isa, noise
from .qtest import Monitor, Qtest, StartMonitored, StartQemu
from .support import ConfigAccess, MemoryAccess, PortAccess, mask_of
from .test_board_against_qemu import (
    BOARD,
    BRIDGE,
    DELIBERATE,
    HOST,
    POWER,
    SCI,
    UNWRITTEN,
    enable_pm_block,
)
from .test_board_against_qemu import PORTS as BOARD_PORTS

IGNORED = {devfn: mask_of(rows) for devfn, rows in DELIBERATE.items()}


def ignored(devfn: int, register: int, size: int) -> int:
    return int.from_bytes(IGNORED[devfn][register : register + size], "little")


def config_access(random: Random, devfn: int) -> ConfigAccess:
    """One within a doubleword: what goes beyond leaves the data ports of QEMU's board."""
    size = random.choice((1, 2, 4))
    register = random.randrange(0, 256, 4) + random.randrange(4 - size + 1)
    if random.random() < 0.5 or any(
        r in UNWRITTEN[devfn] for r in range(register, register + size)
    ):
        return ConfigAccess(devfn, register, size, None, ignored(devfn, register, size))
    return ConfigAccess(devfn, register, size, noise(random, size))


def port_access(random: Random, rows: Sequence[tuple[int, int, int, str]]) -> PortAccess:
    port, size, writable, _ = random.choice(rows)
    value = noise(random, size) & writable
    written = writable and random.random() < 0.5
    return PortAccess(port, size, value if written else None)


def rows_of(*ranges: range) -> list[tuple[int, int, int, str]]:
    return [row for row in BOARD_PORTS if any(row[0] in ports for ports in ranges)]


LATCH_LEFT_OUT = {
    0x0000_0003: "Xen, too, takes these bits from the port alone; QEMU takes both",
    0x7F00_0000: "a bus or a function that QEMU's board has and this bench has not",
}


def host_accesses(random: Random) -> Iterator[Step]:
    rows = rows_of(range(0xCF8, 0xCFC))
    while True:
        kind = random.random()
        if kind < 0.4:
            access = config_access(random, HOST)
            yield PortAccess(0xCF8, 4, 1 << 31 | access.register & ~3)
            yield access
        elif kind < 0.7:
            yield port_access(random, rows)
        else:
            yield from undecoded(random)


def undecoded(random: Random) -> Iterator[Step]:
    """The latch, then the data ports, as a guest does it when Xen does not decode."""
    access = config_access(random, HOST)
    enable = random.choice((0, 1, 1, 1)) << 31
    devfn = random.choice((HOST, HOST, HOST, 0x20 << 3 - 1 & 0xF8))
    yield PortAccess(0xCF8, 4, enable | devfn << 8 | access.register & ~3)
    compared = access.ignored if enable and devfn == HOST else 0
    yield PortAccess(0xCFC + (access.register & 3), access.size, access.value, compared)
    yield PortAccess(0xCF8, 4)


def test_pci_host(qemu: StartQemu, random: Random) -> None:
    compare(qemu(*BOARD), TestBench(PciHost()), {}, host_accesses(random))


CARDS = (4, 5, 6, 7)
"""Slots whose pins A are on four different links."""
CARD_BAR = 0xE000_0000
RAISE, ACKNOWLEDGE = 0x60, 0x64
ROUTABLE = (3, 4, 5, 6, 7, 9, 10, 11, 14, 15)
"""Interrupts that nothing else on either board drives."""
ROUTES_LEFT_OUT = {
    "0x10 to 0x7f": "disconnected in QEMU; a route by the low bits under Xen, as Xen's QEMU has it",
    "other interrupts": "QEMU's board has devices there, which share no line with PCI",
}


def bridge_accesses(random: Random) -> Iterator[Step]:
    routes = (*ROUTABLE, 0x80, 0x80 + random.randrange(0x80))
    while True:
        kind = random.random()
        if kind < 0.5:
            access = config_access(random, BRIDGE)
            if access.value is None or not 0x5C < access.register < 0x64:
                yield access
        elif kind < 0.7:
            yield ConfigAccess(BRIDGE, 0x60 + random.randrange(4), 1, random.choice(routes))
        elif kind < 0.75:
            value = bytes(random.choices(routes, k=4))
            yield ConfigAccess(BRIDGE, 0x60, 4, int.from_bytes(value, "little"))
        else:
            bar = CARD_BAR + random.randrange(len(CARDS)) * 0x100000
            yield MemoryAccess(bar + random.choice((RAISE, ACKNOWLEDGE)), 4, 1)


def routed(bench: TestBench, irq: int) -> int:
    """The level of ``irq`` when links are routed as QEMU's board has them: (slot + pin - 1) & 3."""
    platform = bench.platform
    return int(
        any(
            level and platform.links[slot + pin - 1 & 3] == irq
            for (slot, pin), level in platform.intx.items()
        )
    )


def test_piix3(qemu: StartQemu, random: Random) -> None:
    cards = [option for slot in CARDS for option in ("-device", f"edu,addr={slot:x}")]
    other = qemu(*BOARD, *cards)
    bench = TestBench(Piix3(), *(Edu(f"edu{slot}", addr=f"{slot:x}") for slot in CARDS))
    for index, slot in enumerate(CARDS):
        for side in (other, bench):
            side.config_write(slot << 3, 0x10, CARD_BAR + index * 0x100000)
            side.config_write(slot << 3, 0x04, 0x0002, 2)
    lines = {irq: partial(routed, bench, irq) for irq in ROUTABLE}
    compare(other, bench, lines, bridge_accesses(random))


POWER_PORTS = rows_of(
    range(0xB2, 0xB4), range(0xAE00, 0xAF20), range(0xAFE0, 0xAFE4), range(0xB004, 0xB006)
)
EJECT = (0xAE08, 4, 0xFFFFFFFF, "")
SLOTS = range(2, 32)
PLUGGABLE_VCPUS = range(2, 16)


class Plugger:
    """Plugs and unplugs at random on both boards, and compares what their guests ejected.

    QEMU's DEVICE_DELETED comes some time after the eject; an ejected card is gone at once.
    """

    def __init__(self, monitor: Monitor, power: Piix4Pm, random: Random) -> None:
        self._monitor = monitor
        self._power = power
        self._random = random
        self._vcpus = list(PLUGGABLE_VCPUS)
        self._number = 0
        self._plugged: dict[int, str] = {}
        self._asked_to_go: set[str] = set()
        power.ejected = lambda slot: self._plugged.pop(slot, None)

    def compare_slots(self, qemu: Qtest) -> None:
        there = [slot for slot in SLOTS if qemu.config_read(slot << 3, 0) != 0xFFFF_FFFF]
        assert there == sorted(self._plugged)

    def act(self, qemu: Qtest, bench: TestBench) -> None:
        self.compare_slots(qemu)
        slot = self._random.choice(SLOTS)
        if self._random.random() < 0.1 and self._vcpus:
            self._plug_vcpu(self._vcpus.pop())
        elif slot not in self._plugged:
            self._plug_card(slot)
        elif (name := self._plugged[slot]) not in self._asked_to_go:
            self._asked_to_go.add(name)
            self._monitor.execute("device_del", id=name)
            self._power.unplug_slot(slot)
        qemu.outl(0xCF8, 0)

    def _plug_vcpu(self, vcpu: int) -> None:
        where = {"socket-id": vcpu, "core-id": 0, "thread-id": 0}
        self._monitor.execute("device_add", driver="qemu64-x86_64-cpu", **where)
        self._power.plug_vcpu(vcpu)

    def _plug_card(self, slot: int) -> None:
        self._number += 1
        name = f"card{self._number}"
        self._monitor.execute("device_add", driver="edu", id=name, addr=f"{slot:x}")
        self._plugged[slot] = name
        self._power.plug_slot(slot)


def power_accesses(random: Random, plugger: Plugger) -> Iterator[Step]:
    while True:
        kind = random.random()
        if kind < 0.3:
            yield config_access(random, POWER)
        elif kind < 0.997:
            yield port_access(random, POWER_PORTS)
        elif kind < 0.998:
            yield PortAccess(0xAE08, 4, 1 << random.choice(SLOTS))
        else:
            yield Pause(plugger.act)


def test_piix4_pm(monitored: StartMonitored, random: Random) -> None:
    other, monitor = monitored(*BOARD)
    power = Piix4Pm(cpus=2)
    bench = TestBench(power)
    enable_pm_block(other, bench)
    plugger = Plugger(monitor, power, random)
    compare(other, bench, isa(bench, SCI), power_accesses(random, plugger))
    plugger.compare_slots(other)
