"""The generic rules find what they are for: one device with one fault per rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dm import (
    WO,
    Bank,
    Bit,
    Device,
    IsaLine,
    Option,
    PortWindow,
    Register,
    Timer,
    Transient,
)
from dm.testing import rules_of
from tests.unit.machine.specimens import Gadget, Leaf

if TYPE_CHECKING:
    from collections.abc import Callable


class Flags(Register, width=8):
    ready = Bit(0)
    go = Bit(7, access=WO)


class Ports(Bank, size=4, width=8):
    flags = Flags.at(0)
    data = Register.at(1)
    alone = Register.at(2)


class Faulty(Device):
    """Does nothing wrong unless ``fault`` says so."""

    fault = Option(str, "", "what to do wrong")
    ports = PortWindow(Ports, at=0x200)
    hidden = Transient()
    alarm = Timer()
    irq = IsaLine(3)

    def on_reset(self) -> None:
        if self.hidden is None or self.fault != "reset":
            self.hidden = 0

    @Ports.data.on_read
    def _read(self) -> int:
        if self.fault == "reload":
            self.hidden += 1
        value: int = self.ports.data.value ^ self.hidden
        return value

    @Ports.data.on_write
    def _write(self, new: int, old: int) -> None:
        if self.fault == "raise" and new == 0xFF:
            raise IndexError("table too short")
        if self.fault == "reset":
            self.hidden |= new
        if self.fault == "timer":
            self.alarm.start_in(1000)
        if self.fault == "neighbour":
            self.ports.alone.value = new

    @Ports.data.on_read_block
    def _read_block(self, size: int, count: int) -> bytes:
        if self.fault == "block":
            return bytes(size * count)
        return b"".join(self.ports.read(1, size).to_bytes(size, "little") for _ in range(count))

    @Ports.flags.on_write
    def _flags(self, new: int, old: int) -> None:
        if self.fault == "reserved":
            self.ports.flags.value = new | 0x40

    @alarm.expired
    def _expired(self) -> None:
        raise ZeroDivisionError("never tried")

    @irq.level
    def _level(self) -> bool:
        if self.fault == "level":
            self.hidden += 1
            return bool(self.hidden & 4)
        return bool(self.ports.flags.ready)


def broken(fault: str) -> dict[str, str]:
    """Rule -> message of the generic tests that a device with this fault fails."""
    failed = {}
    tests = rules_of(lambda: Faulty("faulty", fault=fault), seeds=(7,))
    for name, test in tests.items():
        try:
            test()
        except AssertionError as error:
            failed[name] = str(error)
    return failed


@pytest.mark.parametrize(
    ("fault", "rule", "message"),
    [
        ("raise", "accesses never raise", "IndexError('table too short')"),
        ("timer", "accesses never raise", "ZeroDivisionError('never tried')"),
        ("level", "interrupt levels are derived", ""),
        ("reload", "a reload changes no later answer", "instead of"),
        ("reset", "reset is reset", "instead of"),
        ("block", "strings are single accesses", "one by one"),
        ("reserved", "reserved bits stay", "of ports.flags are reserved"),
    ],
)
def test_a_fault_fails_its_rule(fault: str, rule: str, message: str) -> None:
    failed = broken(fault)
    told = failed[f"{rule}, seed 7"]
    assert told.startswith(f"Faulty, {rule}, seed 7: ")
    assert message in told


def test_a_step_that_fails_is_named() -> None:
    told = broken("raise")["accesses never raise, seed 7"]
    assert "step " in told
    assert "at 0x20" in told


def test_a_sound_device_passes() -> None:
    assert not broken("")


@pytest.mark.parametrize("cls", [Gadget, Leaf])
def test_other_sound_devices_pass(cls: Callable[[], Device]) -> None:
    for test in rules_of(cls, seeds=(1,)).values():
        test()


def test_the_same_seed_gives_the_same_failure() -> None:
    assert broken("raise") == broken("raise")
