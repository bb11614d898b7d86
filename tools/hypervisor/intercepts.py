"""Which accesses the hypervisor answers itself, before any ioreq server is asked.

Facts: xen/arch/x86/hvm/intercept.c (hvm_io_intercept, hvm_find_io_handler): a handler is found by
an access that lies wholly in its range, and may still decline it.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Protocol

from protocol import layouts

__all__ = ["Handler", "Intercepts"]


class Handler(Protocol):
    """Something in the hypervisor that answers accesses, called with the domain's lock held."""

    def read(self, address: int, size: int) -> int | None:
        """The value; None: not mine after all, ask the ioreq servers."""

    def write(self, address: int, size: int, value: int) -> bool:
        """Take a value; False: not mine after all, ask the ioreq servers."""


PORTS = 1 << 16


class _Space:
    """The handlers of one address space, in order."""

    def __init__(self) -> None:
        self.firsts: list[int] = []
        self.lasts: list[int] = []
        self.handlers: list[Handler] = []

    def add(self, first: int, last: int, handler: Handler) -> None:
        index = bisect_right(self.firsts, last)
        if first > last or (index and self.lasts[index - 1] >= first):
            raise ValueError(f"{first:#x} to {last:#x} is upside down or taken")
        self.firsts.insert(index, first)
        self.lasts.insert(index, last)
        self.handlers.insert(index, handler)

    def remove(self, handler: Handler) -> None:
        keep = [index for index, one in enumerate(self.handlers) if one is not handler]
        self.firsts = [self.firsts[index] for index in keep]
        self.lasts = [self.lasts[index] for index in keep]
        self.handlers = [self.handlers[index] for index in keep]


class Intercepts:
    """The handlers of one domain. ValueError when ranges of one space overlap.

    ``taken``: a byte for each port, not 0 where a handler's range has it.
    """

    def __init__(self) -> None:
        self.taken = bytearray(PORTS)
        self._spaces = (_Space(), _Space())

    def add_ports(self, first: int, last: int, handler: Handler) -> None:
        """Let ``handler`` see the ports ``first`` to ``last``."""
        self._spaces[layouts.IO_RANGE_TYPE_PORT].add(first, last, handler)
        self.taken[first : last + 1] = b"\1" * (last + 1 - first)

    def add_memory(self, first: int, last: int, handler: Handler) -> None:
        """Let ``handler`` see the guest-physical addresses ``first`` to ``last``."""
        self._spaces[layouts.IO_RANGE_TYPE_MEMORY].add(first, last, handler)

    def remove(self, handler: Handler) -> None:
        """Take a handler away, wherever it was added."""
        for space in self._spaces:
            space.remove(handler)
        ports = self._spaces[layouts.IO_RANGE_TYPE_PORT]
        self.taken[:] = bytes(PORTS)
        for first, last in zip(ports.firsts, ports.lasts, strict=True):
            self.taken[first : last + 1] = b"\1" * (last + 1 - first)

    def find(self, space: int, address: int, size: int) -> Handler | None:
        """The handler that has all ``size`` bytes at ``address``."""
        place = self._spaces[space]
        index = bisect_right(place.firsts, address) - 1
        if index >= 0 and place.lasts[index] >= address + size - 1:
            return place.handlers[index]
        return None
