"""A domain whose registers are a test's: what the qtest engine's tests drive."""

from __future__ import annotations

from tools.hypervisor.clock import VirtualClock
from tools.hypervisor.domain import Domain
from tools.hypervisor.engines.qtest import QtestEngine

RAM_END = 0x10000
DEVICE, DEVICE_END = 0x20000, 0x21000
PORTS = 0x500


class Registers:
    """Answers every access with its address, and notes it."""

    def __init__(self) -> None:
        self.reads: list[tuple[int, int]] = []
        self.writes: list[tuple[int, int, int]] = []

    def read(self, address: int, size: int) -> int:
        self.reads.append((address, size))
        return address & (1 << 8 * size) - 1

    def write(self, address: int, size: int, value: int) -> bool:
        self.writes.append((address, size, value))
        return True


class Machine:
    """RAM below `RAM_END` and from 1 MiB to 2 MiB; registers at `DEVICE` and 16 of `PORTS`."""

    def __init__(self) -> None:
        ram = [(0, RAM_END), (1 << 20, 1 << 20)]
        self.domain = Domain(1, vcpus=1, ram=ram, clock=VirtualClock())
        self.registers, self.ports = Registers(), Registers()
        self.domain.intercepts.add_memory(DEVICE, DEVICE_END - 1, self.registers)
        self.domain.intercepts.add_ports(PORTS, PORTS + 15, self.ports)
        self.engine = QtestEngine(self.domain)

    def answer(self, line: str) -> str:
        """The whole answer to one request, without its last line end."""
        text = self.engine.answer(line.encode())
        assert text.endswith("\n")
        return text[:-1]
