"""Devices with every kind of state, and containers made from the declarations alone."""

from __future__ import annotations

import zlib
from typing import Any

from dm import (
    RO,
    W1C,
    Bank,
    BankMemory,
    Bit,
    ConfigError,
    Device,
    Field,
    Fifo,
    IsaLine,
    Memory,
    MmioBar,
    MsiCapability,
    Option,
    PciDevice,
    PciIdentity,
    PortWindow,
    Register,
    Timer,
    Word,
)
from dm.machine.fakes import TestBench
from protocol.state import (
    STATE_CONTAINER,
    STATE_DEVICE,
    STATE_END,
    STATE_HEADER,
    STATE_MACHINE,
    STATE_MEMORY,
    STATE_RECORD,
    StateRecordType,
)

__all__ = ["TRAP", "Gadget", "Leaf", "bench", "build", "records_of"]


TRAP = 0x0BAD_5EED_0BAD_5EED
"""A value of ``Gadget.wide`` that breaks its line: what only a file can bring."""


class Control(Register, width=16):
    enable = Bit(0)
    mode = Field(6, 4, names={0: "idle", 3: "turbo"})
    pending = Bit(8, access=W1C)


class GadgetPorts(Bank, size=16, width=8):
    control = Control.at(0)
    table = Register.array(4, 4)
    version = Register.at(8, access=RO, reset=0x21)
    scratch = BankMemory(10, 6)


class Gadget(Device):
    """Every kind of state but PCI."""

    version = 3
    base = Option(int, 0x300, "first port")
    ports = PortWindow(GadgetPorts, at=base)
    odd = Word(13)
    wide = Word(64)
    small = Memory(256)
    large = Memory(257)
    queue = Fifo(16)
    alarm = Timer()
    irq = IsaLine(5)

    @alarm.expired
    def _fire(self) -> None:
        self.ports.control.pending = 1

    @irq.level
    def _level(self) -> bool:
        if self.wide == TRAP:
            raise IndexError("no such table")
        return bool(self.ports.control.pending)

    def upgrade(self, version: int, fields: dict[str, int | bytes]) -> dict[str, int | bytes]:
        if version == 2:
            return {"odd": self.base & 0x1FFF, **fields}
        if version == 1:
            self.odd = 7
        raise ConfigError(f"{self.name}: no version {version} was ever released")


class LeafRegisters(Bank, size=64):
    status = Register.at(0)
    memory = BankMemory(16, 32)


class Leaf(PciDevice):
    identity = PciIdentity(vendor=0x1234, device=0x5678, class_code=0x088000, pin=1)
    capabilities = (MsiCapability(0x40),)
    registers = MmioBar(LeafRegisters, 0)

    def irq_level(self) -> bool:
        return bool(self.registers.status.value & 1)


def bench() -> TestBench:
    """A stopped machine of one device of each class."""
    made = TestBench(Gadget("gadget.0"), Leaf("leaf"), kind="specimen")
    made.machine.stop()
    return made


Records = list[tuple[int, Any]]

_BODIES = {
    StateRecordType.MACHINE: STATE_MACHINE,
    StateRecordType.DEVICE: STATE_DEVICE,
    StateRecordType.MEMORY: STATE_MEMORY,
}


def records_of(data: bytes) -> Records:
    """The (type, body) of each record of a container but END, by the declarations."""
    records = STATE_CONTAINER.parse(data).records[:-1]
    return [(r.type, _BODIES[StateRecordType(r.type)].parse(r.body)) for r in records]


def build(records: Records, **header: int) -> bytes:
    """The container of such records, checksums and counts correct, by the declarations."""
    raw = [
        (kind, body if isinstance(body, bytes) else _BODIES[StateRecordType(kind)].build(body))
        for kind, body in records
    ]
    parts = [_record(kind, body) for kind, body in raw]
    payload = b"".join(parts)
    end_size = len(_record(StateRecordType.END, bytes(STATE_END.sizeof())))
    fields = {"record_count": len(raw) + 1, "payload_length": len(payload) + end_size} | header
    start: bytes = STATE_HEADER.build(fields) + payload
    return start + _record(StateRecordType.END, STATE_END.build({"crc32": zlib.crc32(start)}))


def _record(kind: int, body: bytes) -> bytes:
    made: bytes = STATE_RECORD.build({"type": kind, "crc32": zlib.crc32(body), "body": body})
    return made
