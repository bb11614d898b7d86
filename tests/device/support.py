"""Tools that several device tests share: carrying state over, and comparing with QEMU."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from dm.device.device import Device
from dm.machine.fakes import TestBench

from .qtest import MEMORY_COMMANDS, PORT_COMMANDS, Qtest


def restored(bench: TestBench, *devices: Device) -> TestBench:
    """A new machine of ``devices`` that goes on from the cells of ``bench``."""
    other = TestBench(*devices)
    other.machine.stop()
    other.machine.buffer[:] = bench.machine.buffer
    other.machine.after_load()
    other.machine.start()
    return other


class Access(Protocol):
    """One access that both sides can make; without a value it reads."""

    @property
    def ignored(self) -> int:
        """The bits of what is read that are not compared."""

    def requests(self) -> list[str]:
        """The qtest requests; the answer to the last one is the access's."""

    def perform(self, bench: TestBench) -> int:
        """Make it on the bench; what a read reads, 0 for a write."""

    def parse(self, answer: str) -> int:
        """The same number from QEMU's answer."""


class PortAccess(NamedTuple):
    """One IN or, with a value, one OUT."""

    port: int
    size: int
    value: int | None = None
    ignored: int = 0

    def requests(self) -> list[str]:
        letter = PORT_COMMANDS[self.size]
        if self.value is None:
            return [f"in{letter} {self.port:#x}"]
        return [f"out{letter} {self.port:#x} {self.value:#x}"]

    def perform(self, bench: TestBench) -> int:
        if self.value is None:
            return bench.read(self.port, self.size)
        bench.write(self.port, self.value, self.size)
        return 0

    def parse(self, answer: str) -> int:
        return int(answer or "0", 0)


class ConfigAccess(NamedTuple):
    """One read or, with a value, one write of PCI configuration space."""

    devfn: int
    register: int
    size: int
    value: int | None = None
    ignored: int = 0

    def requests(self) -> list[str]:
        latch = 1 << 31 | self.devfn << 8 | self.register & ~3
        data = PortAccess(0xCFC + (self.register & 3), self.size, self.value)
        return [f"outl 0xcf8 {latch:#x}", *data.requests()]

    def perform(self, bench: TestBench) -> int:
        if self.value is None:
            return bench.config_read(self.devfn, self.register, self.size)
        bench.config_write(self.devfn, self.register, self.value, self.size)
        return 0

    def parse(self, answer: str) -> int:
        return int(answer or "0", 0)


class MemoryAccess(NamedTuple):
    """One load or, with a value, one store of what is not RAM."""

    gpa: int
    size: int
    value: int | None = None
    ignored: int = 0

    def requests(self) -> list[str]:
        letter = MEMORY_COMMANDS[self.size]
        if self.value is None:
            return [f"read{letter} {self.gpa:#x}"]
        return [f"write{letter} {self.gpa:#x} {self.value:#x}"]

    def perform(self, bench: TestBench) -> int:
        if self.value is None:
            return bench.load(self.gpa, self.size)
        bench.store(self.gpa, self.value, self.size)
        return 0

    def parse(self, answer: str) -> int:
        return int(answer or "0", 0)


class RamAccess(NamedTuple):
    """Guest RAM read or, with a value, written."""

    gpa: int
    size: int
    value: bytes | None = None
    ignored: int = 0

    def requests(self) -> list[str]:
        if self.value is None:
            return [f"read {self.gpa:#x} {self.size:#x}"]
        return [f"write {self.gpa:#x} {self.size:#x} 0x{self.value.hex()}"]

    def perform(self, bench: TestBench) -> int:
        if self.value is None:
            return int.from_bytes(bench.memory.read(self.gpa, self.size), "big")
        bench.memory.write(self.gpa, self.value)
        return 0

    def parse(self, answer: str) -> int:
        return int(answer or "0", 0)


def port_difference(qemu: Qtest, bench: TestBench, access: PortAccess) -> str | None:
    """Make the access on both sides; what differs."""
    if access.value is not None:
        qemu.out(access.port, access.value, access.size)
        bench.write(access.port, access.value, access.size)
        return None
    expected, got = qemu.in_(access.port, access.size), bench.read(access.port, access.size)
    return None if expected == got else f"{access}: QEMU {expected:#x}, ours {got:#x}"


def config_difference(
    qemu: Qtest, bench: TestBench, access: ConfigAccess, ignored: bytes
) -> str | None:
    """The same for configuration space; ``ignored`` has the bits of each register set to skip."""
    devfn, register, size, value, _ = access
    if value is not None:
        qemu.config_write(devfn, register, value, size)
        bench.config_write(devfn, register, value, size)
        return None
    compared = ~int.from_bytes(ignored[register : register + size], "little")
    expected = qemu.config_read(devfn, register, size) & compared
    got = bench.config_read(devfn, register, size) & compared
    return None if expected == got else f"{access}: QEMU {expected:#x}, ours {got:#x}"


def mask_of(deliberate: Iterable[tuple[int, int, int, str]]) -> bytes:
    """The bits to skip, from rows of (register, bytes, mask, reason)."""
    mask = bytearray(256)
    for register, size, bits, _ in deliberate:
        for index, byte in enumerate(bits.to_bytes(size, "little")):
            mask[register + index] |= byte
    return bytes(mask)
