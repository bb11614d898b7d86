"""What each qtest request does: accesses by a vCPU, steps of virtual time, interception of lines.

Sources: QEMU 7.2, softmmu/qtest.c, for requests and answers; docs/devel/qtest.rst.
Other than in QEMU: what nobody answers reads as ones in memory, too, as under Xen; PCI interrupts
are seen both at their GSI and, by their link's route, at an ISA interrupt, as Xen delivers them.
Not modelled: set_irq_in, module_load, rtas.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable
from typing import TYPE_CHECKING

from protocol import layouts

from .. import Engine
from . import words
from .access import GuestAccess
from .words import RequestError

if TYPE_CHECKING:
    from ...domain import Domain
    from ...vcpu import Vcpu

__all__ = ["QtestEngine"]

PORT = layouts.IO_RANGE_TYPE_PORT
PORT_LIMIT = 1 << 16
DATA_PORT = layouts.PCI_CONFIG_DATA_PORT
SIZES = {b"b": 1, b"w": 2, b"l": 4, b"q": 8}
TIMER_GSI = 2
"""Where ISA interrupt 0 goes in; clients know it by its own number."""

Handler = Callable[[list[bytes]], str]


class QtestEngine(Engine):
    """One client's accesses, made by the thread that calls `answer`, as the domain's first vCPU.

    ``changes``: lines about intercepted interrupts that the client has not been told yet.
    """

    name = "qtest"

    def __init__(self, domain: Domain) -> None:
        super().__init__(domain)
        self._vcpu = domain.vcpus[0]
        self._access = GuestAccess(self._vcpu)
        self._intercepted: bytes | None = None
        self.changes: list[str] = []
        self._handlers: dict[bytes, tuple[int, int, Handler]] = self._table()

    def run(self, vcpu: Vcpu) -> None:
        """No thread runs a vCPU."""

    def start(self) -> None:
        """The client decides when anything happens."""

    def answer(self, line: bytes) -> str:
        """Do one request, without its line end; gives the lines that it is answered with.

        Every line is answered. DomainEnded: the domain does not run any more.
        """
        wanted = line.split()
        try:
            text = self._do(wanted)
        except RequestError as error:
            text = f"FAIL {error}"
        if self.changes:
            with self.domain.lock:
                told, self.changes = self.changes, []
            return "".join(told) + text + "\n"
        return text + "\n"

    def _do(self, wanted: list[bytes]) -> str:
        if not wanted:
            raise RequestError("the line is empty")
        row = self._handlers.get(wanted[0])
        if row is None:
            raise RequestError(f"Unknown command {words.shown(wanted[0])}")
        least, most, handler = row
        if not least < len(wanted) <= most + 1:
            raise RequestError(f"{wanted[0].decode()} with {len(wanted) - 1} arguments")
        return handler(wanted)

    def _table(self) -> dict[bytes, tuple[int, int, Handler]]:
        """Request to (fewest arguments, most arguments, what does it)."""
        table: dict[bytes, tuple[int, int, Handler]] = {
            b"endianness": (0, 0, lambda wanted: "OK little"),
            b"read": (2, 2, self._read),
            b"b64read": (2, 2, self._b64read),
            b"write": (3, 3, self._write),
            b"b64write": (3, 3, self._b64write),
            b"memset": (3, 3, self._memset),
            b"clock_step": (0, 1, self._clock_step),
            b"clock_set": (1, 1, self._clock_set),
            b"irq_intercept_in": (1, 1, self._intercept_in),
            b"irq_intercept_out": (1, 1, self._intercept_out),
        }
        for letter, size in SIZES.items():
            table[b"read" + letter] = (1, 1, self._loader(size))
            table[b"write" + letter] = (2, 2, self._storer(size))
            if size <= 4:
                table[b"in" + letter] = (1, 1, self._inputter(size))
                table[b"out" + letter] = (2, 2, self._outputter(size))
        return table

    def _inputter(self, size: int) -> Handler:
        read, port = self._vcpu.read, self._port
        return lambda wanted: f"OK 0x{read(PORT, port(wanted[1]), size):04x}"

    def _outputter(self, size: int) -> Handler:
        write, port = self._vcpu.write, self._port

        def output(wanted: list[bytes]) -> str:
            write(PORT, port(wanted[1]), size, words.number(wanted[2]))
            return "OK"

        return output

    def _port(self, word: bytes) -> int:
        """A port. Clients put all of a configuration register's number into the latch at 0xcf8,
        as QEMU takes it; a processor's accesses have its low two bits in the data port's."""
        port = words.address(word, PORT_LIMIT)
        return port | self.domain.pci_cf8 & 3 if port & ~3 == DATA_PORT else port

    def _loader(self, size: int) -> Handler:
        load = self._access.load

        def do(wanted: list[bytes]) -> str:
            return f"OK 0x{load(words.block(wanted[1], b'%d' % size)[0], size):016x}"

        return do

    def _storer(self, size: int) -> Handler:
        store = self._access.store

        def do(wanted: list[bytes]) -> str:
            gpa, _ = words.block(wanted[1], b"%d" % size)
            store(gpa, size, words.number(wanted[2]))
            return "OK"

        return do

    def _read(self, wanted: list[bytes]) -> str:
        return "OK 0x" + self._access.read(*words.block(wanted[1], wanted[2])).hex()

    def _b64read(self, wanted: list[bytes]) -> str:
        data = self._access.read(*words.block(wanted[1], wanted[2]))
        return "OK " + binascii.b2a_base64(data, newline=False).decode()

    def _write(self, wanted: list[bytes]) -> str:
        gpa, size = words.block(wanted[1], wanted[2])
        self._access.write(gpa, words.hexadecimal(wanted[3], size))
        return "OK"

    def _b64write(self, wanted: list[bytes]) -> str:
        gpa, size = words.block(wanted[1], wanted[2])
        self._access.write(gpa, words.base64(wanted[3], size))
        return "OK"

    def _memset(self, wanted: list[bytes]) -> str:
        gpa, size = words.block(wanted[1], wanted[2])
        self._access.write(gpa, bytes((words.number(wanted[3]) & 0xFF,)) * size)
        return "OK"

    def _clock_step(self, wanted: list[bytes]) -> str:
        return f"OK {self.domain.step_clock(_time(wanted[1]) if len(wanted) > 1 else None)}"

    def _clock_set(self, wanted: list[bytes]) -> str:
        ahead = _time(wanted[1]) - self.domain.clock.now()
        return f"OK {self.domain.step_clock(ahead) if ahead > 0 else self.domain.clock.now()}"

    def _intercept_in(self, wanted: list[bytes]) -> str:
        self._intercept(wanted[1])
        if self._changed not in self.domain.interrupts.listeners:
            with self.domain.lock:
                self.domain.interrupts.listeners.append(self._changed)
        return "OK"

    def _intercept_out(self, wanted: list[bytes]) -> str:
        """The I/O APIC has no outputs, so nothing comes of it."""
        self._intercept(wanted[1])
        return "OK"

    def _intercept(self, device: bytes) -> None:
        """Check that a device can be intercepted, and that no other one is."""
        if device.rpartition(b"/")[2] != b"ioapic":
            raise RequestError("Unknown device")
        if self._intercepted not in (None, device):
            raise RequestError("IRQ intercept already enabled")
        self._intercepted = device

    def _changed(self, gsi: int, level: int) -> None:
        """A GSI changed, in whatever thread; under the domain's lock."""
        line = 0 if gsi == TIMER_GSI else gsi
        self.changes.append(f"IRQ {'raise' if level else 'lower'} {line}\n")


def _time(word: bytes) -> int:
    """Nanoseconds, at most what a signed 64-bit clock holds."""
    return words.address(word, 1 << 63)
