"""Tools that several device tests share: carrying state over, and comparing with QEMU."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from dm.device.device import Device
from dm.machine.fakes import TestBench

from .qtest import Qtest


def restored(bench: TestBench, *devices: Device) -> TestBench:
    """A new machine of ``devices`` that goes on from the cells of ``bench``."""
    other = TestBench(*devices)
    other.machine.stop()
    other.machine.buffer[:] = bench.machine.buffer
    other.machine.after_load()
    other.machine.start()
    return other


class PortAccess(NamedTuple):
    """One IN or, with a value, one OUT."""

    port: int
    size: int
    value: int | None = None


class ConfigAccess(NamedTuple):
    """One read or, with a value, one write of PCI configuration space."""

    devfn: int
    register: int
    size: int
    value: int | None = None


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
    devfn, register, size, value = access
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
