"""What the tests of the chips share: a domain that has a clock, lines and ports, and no vCPU."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, cast

from protocol import layouts
from tools.hypervisor.chips.board import Board
from tools.hypervisor.clock import VirtualClock
from tools.hypervisor.intercepts import Handler, Intercepts
from tools.hypervisor.interrupts import Interrupts

if TYPE_CHECKING:
    from tools.hypervisor.domain import Domain

EPOCH = 951_782_399_000_000_000
"""2000-02-28 23:59:59 UTC, a Monday: the next days are a leap day and a month's first."""
SECOND = 1_000_000_000


class BareDomain:
    """As much of a domain as the chips need."""

    def __init__(self, vcpus: int = 1) -> None:
        self.lock = threading.RLock()
        self.clock = VirtualClock()
        self.interrupts = Interrupts()
        self.intercepts = Intercepts()
        self.vcpus = [object()] * vcpus
        self.offsets: list[int] = []

    def time_offset(self, seconds: int) -> bool:
        self.offsets.append(seconds)
        return True


class Pc:
    """A domain with a board, talked to as a guest and as a device model do."""

    def __init__(self, vcpus: int = 1) -> None:
        self.domain = BareDomain(vcpus)
        self.clock = self.domain.clock
        self.lines = self.domain.interrupts
        self.board = Board(cast("Domain", self.domain), epoch=EPOCH)
        self.woken: list[int] = []
        self.board.on_interrupt = self.woken.append

    def handler(self, space: int, address: int, size: int) -> Handler:
        found = self.domain.intercepts.find(space, address, size)
        assert found is not None, f"{address:#x} is not intercepted"
        return found

    def port(self, port: int, size: int) -> Handler:
        return self.handler(layouts.IO_RANGE_TYPE_PORT, port, size)

    def memory(self, gpa: int, size: int) -> Handler:
        return self.handler(layouts.IO_RANGE_TYPE_MEMORY, gpa, size)

    def in_(self, port: int, size: int = 1) -> int:
        value = self.port(port, size).read(port, size)
        assert value is not None, f"{port:#x} was declined"
        return value

    def out(self, port: int, value: int, size: int = 1) -> None:
        assert self.port(port, size).write(port, size, value), f"{port:#x} was declined"

    def outb(self, port: int, *values: int) -> None:
        for value in values:
            self.out(port, value)

    def load(self, gpa: int, size: int = 4) -> int:
        value = self.memory(gpa, size).read(gpa, size)
        assert value is not None
        return value

    def store(self, gpa: int, value: int, size: int = 4) -> None:
        assert self.memory(gpa, size).write(gpa, size, value)

    def pass_time(self, nanoseconds: int) -> None:
        self.clock.advance_to(self.clock.now() + nanoseconds)

    def take(self, vcpu: int = 0) -> int | None:
        """The vector that a vCPU takes, if it has one."""
        return self.board.acknowledge(vcpu) if self.board.interrupt_pending(vcpu) else None

    def set_up_pic(self, master: int = 0x08, slave: int = 0x70, icw4: int = 0x01) -> None:
        """As a PC's firmware does it; everything unmasked."""
        self.outb(0x20, 0x11)
        self.outb(0x21, master, 0x04, icw4, 0x00)
        self.outb(0xA0, 0x11)
        self.outb(0xA1, slave, 0x02, icw4, 0x00)
