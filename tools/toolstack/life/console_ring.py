"""The paravirtual console: a page with two rings, an event channel, and where the text goes.

Facts: public/io/console.h (struct xencons_interface); tools/console/daemon/io.c (buffer_append):
indexes that cannot be end the service, and what nobody takes of the input waits.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from tools.hypervisor.errors import NotRamError
from tools.hypervisor.memory import PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from tools.hypervisor.domain import Domain

__all__ = ["ConsoleRing"]

IN_SIZE, OUT_SIZE = 1024, 2048
INDEXES = struct.Struct("<IIII")
INDEXES_OFFSET = IN_SIZE + OUT_SIZE
OUT_TAKEN = INDEXES_OFFSET + 8
MASK_32 = 0xFFFFFFFF
LONGEST_LINE = 1024


class ConsoleRing:
    """The ring at ``gfn`` of a domain. `serve` is to be told of its event channel ``port``.

    ``print_line`` takes each line, without control characters.
    """

    def __init__(self, domain: Domain, gfn: int, print_line: Callable[[str], object]) -> None:
        self._domain, self._gfn = domain, gfn
        self._print = print_line
        self._line = bytearray()
        self._lock = threading.Lock()
        self._open = True
        self.port = 0

    def serve(self) -> None:
        """The guest has signalled: take its text."""
        with self._lock:
            if not self._open:
                return
            try:
                taken = self._take()
            except NotRamError:
                self._open = False
                return
            for byte in taken:
                self._add(byte)
        if taken and self._domain.hypercalls is not None:
            self._domain.hypercalls.events.raise_port(self.port)

    def close(self) -> None:
        """Serve no more; a line without an end is told."""
        with self._lock:
            self._open = False
            if self._line:
                self._end_line()

    def _take(self) -> bytes:
        page = self._domain.memory.view(self._gfn << PAGE_SHIFT, PAGE_SIZE)
        _, _, taken, written = INDEXES.unpack_from(page, INDEXES_OFFSET)
        length = written - taken & MASK_32
        if length > OUT_SIZE:
            self._open = False
            return b""
        ring = bytes(page[IN_SIZE : IN_SIZE + OUT_SIZE])
        at = taken % OUT_SIZE
        struct.pack_into("<I", page, OUT_TAKEN, written)
        return (ring[at:] + ring[:at])[:length]

    def _add(self, byte: int) -> None:
        if byte == 0x0A or len(self._line) >= LONGEST_LINE:
            self._end_line()
        if 0x20 <= byte < 0x7F or byte == 0x09:
            self._line.append(byte)

    def _end_line(self) -> None:
        self._print(self._line.decode("ascii"))
        self._line.clear()
