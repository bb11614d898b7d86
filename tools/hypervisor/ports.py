"""Ports that the hypervisor itself answers: Xen's console for a guest's lines, and the exit port.

0xe9 is Xen's (xen/arch/x86/hvm/hvm.c: hvm_print_line): bytes written there become lines, without
control characters; reads and wider writes are not for it. 0xf4 is the stand-alone hypervisor's
own, as QEMU's isa-debug-exit has it with 4 ports: a write of v, of any width, ends the guest with
the status (v << 1) | 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from protocol import layouts

if TYPE_CHECKING:
    from .domain import Domain

__all__ = ["CONSOLE_PORT", "EXIT_PORT", "ConsolePort", "ExitPort"]

CONSOLE_PORT = 0xE9
EXIT_PORT = 0xF4
LONGEST_LINE = 79
"""Characters; Xen breaks a longer line."""


class ConsolePort:
    """The port of a domain's lines; ``print_line`` takes each of them, without its end."""

    def __init__(self, domain: Domain, print_line: Callable[[str], object]) -> None:
        self._print = print_line
        self._line = bytearray()
        domain.intercepts.add_ports(CONSOLE_PORT, CONSOLE_PORT, self)

    def read(self, address: int, size: int) -> int | None:
        """A read is the emulators' business."""
        return None

    def write(self, address: int, size: int, value: int) -> bool:
        """Take one character."""
        if size != 1:
            return False
        if value == 0x0A or len(self._line) >= LONGEST_LINE:
            self._print(self._line.decode("ascii"))
            self._line.clear()
        if 0x20 <= value < 0x7F or value == 0x09:
            self._line.append(value)
        return True


class ExitPort:
    """The port by which a guest program says with which exit status its run ends."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self.status: int | None = None
        domain.intercepts.add_ports(EXIT_PORT, EXIT_PORT + 3, self)

    def read(self, address: int, size: int) -> int | None:
        """It reads as zeros, so that a guest can see that it is there."""
        return 0

    def write(self, address: int, size: int, value: int) -> bool:
        """End the guest."""
        self.status = (value << 1 | 1) & 0xFF
        self._domain.shutdown(layouts.SHUTDOWN_REASON_POWEROFF)
        return True
