"""A vCPU as far as I/O goes: what becomes of each access, and how the vCPU waits for an answer.

The order in which an access is offered, and what happens to it, are Xen's: the hypervisor's own
handlers, the VGA window's buffering, the PCI configuration latch, the ioreq servers, nobody. Facts:
xen/arch/x86/hvm/emulate.c (hvmemul_do_io, hvmemul_rep_movs, null_handler), stdvga.c, ioreq.c
(arch_ioreq_server_get_type_addr), xen/common/ioreq.c (wait_for_io, ioreq_broadcast).

A vCPU never holds the domain's lock while it waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from protocol import layouts

from .elements import config_target, crosses, parts, span, to_border
from .errors import DomainEnded
from .vcpu_thread import VcpuThread
from .watch import TransitionError, Watch

if TYPE_CHECKING:
    from .domain import Domain
    from .intercepts import Handler
    from .ioreq_server import IoreqServer

__all__ = ["MEMORY", "PORT", "Vcpu"]

PORT = layouts.IO_RANGE_TYPE_PORT
MEMORY = layouts.IO_RANGE_TYPE_MEMORY
PCI = layouts.IO_RANGE_TYPE_PCI
PIO = layouts.IOREQ_TYPE_PIO
COPY = layouts.IOREQ_TYPE_COPY
PCI_CONFIG = layouts.IOREQ_TYPE_PCI_CONFIG
INVALIDATE = layouts.IOREQ_TYPE_INVALIDATE
READ = layouts.IOREQ_DIR_MASK
POINTER = layouts.IOREQ_DATA_IS_PTR_MASK
DOWN = layouts.IOREQ_DF_MASK
READY = layouts.IOREQ_STATE_READY
INPROCESS = layouts.IOREQ_STATE_INPROCESS
RESPONSE_READY = layouts.IOREQ_STATE_RESPONSE_READY
STATE_MASK = layouts.IOREQ_STATE_MASK
SLOT_SIZE = layouts.IOREQ_SIZE
FLAGS = layouts.IOREQ_FLAGS_OFFSET
ADDRESS_PORT = layouts.PCI_CONFIG_ADDRESS_PORT
VGA_FIRST, VGA_LAST = 0xA0000, 0xBFFFF
MOST_REPEATS = 4096
"""Elements of one request; Xen bounds a repeated instruction so."""
MASKS = {size: (1 << 8 * size) - 1 for size in (1, 2, 4, 8)}


class Vcpu(VcpuThread):
    """One vCPU. Its thread calls `read`, `write`, `string`, `move`, `fill` and `rest`.

    All of them raise DomainEnded when the vCPU is not to run any more. ``watch``: how long slots
    are watched before the thread sleeps.
    """

    def __init__(self, domain: Domain, number: int, *, online: bool = True) -> None:
        super().__init__(domain, number, online=online)
        self.watch = Watch()

    def read(self, space: int, address: int, size: int) -> int:
        """The value of ``size`` bytes at ``address`` of ``space`` (PORT or MEMORY).

        All ones where nobody answers. A memory access of another size than 1, 2, 4 or 8, or over
        the border of a page, is made in parts; a port access of another size than 1, 2 or 4
        reaches nobody.
        """
        if space == MEMORY and crosses(address, size):
            value = shift = 0
            for part, length in parts(address, size):
                value |= self._access(MEMORY, part, length, 0, READ) << shift
                shift += 8 * length
            return value
        return self._access(space, address, size, 0, READ)

    def write(self, space: int, address: int, size: int, value: int) -> None:
        """Store ``size`` bytes of ``value`` at ``address`` of ``space``; see `read`."""
        if space == MEMORY and crosses(address, size):
            for part, length in parts(address, size):
                self._access(MEMORY, part, length, value & MASKS[length], 0)
                value >>= 8 * length
            return
        self._access(space, address, size, value & MASKS.get(size, 0), 0)

    def _access(self, space: int, address: int, size: int, value: int, flags: int) -> int:
        """One element, through everybody who may answer."""
        mask = MASKS.get(size)
        if mask is None or (space == PORT and size > 4):
            return (1 << 8 * size) - 1
        domain = self.domain
        while True:
            if self.attention:
                self.rest()
            result = mask
            server: IoreqServer | None = None
            try:
                with domain.lock:
                    if self.attention:
                        continue
                    handler = domain.intercepts.find(space, address, size)
                    own = None
                    if handler is not None:
                        own = self._intercept(handler, address, size, value, flags)
                    if own is not None:
                        result = own & mask
                    else:
                        if address == ADDRESS_PORT and size == 4 and space == PORT and not flags:
                            domain.pci_cf8 = value
                        server, kind, target = self._route(space, address, address + size - 1)
                        if server is None:
                            return mask
                        if (
                            VGA_FIRST <= address <= VGA_LAST + 1 - size
                            and space == MEMORY
                            and not flags
                            and server.send_buffered(kind, address, value, size, 0)
                        ):
                            return 0
                        self._start()
                        server.send(self, kind, target, value, 1, size, flags)
            except DomainEnded:
                domain.announce()
                raise
            if server is not None:
                return self._finish(server) & mask
            self.settle()
            return result

    def _intercept(
        self, handler: Handler, address: int, size: int, value: int, flags: int
    ) -> int | None:
        """Offer an access to one of the hypervisor's own handlers, under the domain's lock."""
        domain = self.domain
        domain.intercepting = True
        try:
            if flags & READ:
                return handler.read(address, size)
            return 0 if handler.write(address, size, value) else None
        finally:
            domain.intercepting = False

    def _route(self, space: int, first: int, last: int) -> tuple[IoreqServer | None, int, int]:
        """The server that gets an access, the request's type and its address."""
        domain = self.domain
        servers = domain.servers
        if space == MEMORY:
            return servers.select(MEMORY, first, last) or servers.default, COPY, first
        target = config_target(domain.pci_cf8, first)
        if target is not None:
            server = servers.select(PCI, target >> 32, target >> 32)
            if server is not None:
                return server, PCI_CONFIG, target
            return servers.default, PIO, first
        return servers.select(PORT, first, last) or servers.default, PIO, first

    def string(
        self, *, port: int, size: int, count: int, gpa: int, reads: bool, down: bool
    ) -> None:
        """``rep ins`` (``reads``) or ``rep outs`` with a buffer in RAM.

        ``size``: bytes of an element, 1, 2 or 4; ``gpa``: the first element's address, from which
        the others go up or ``down``. The buffer must be RAM (NotRamError). A request has up to 4096
        elements; one element goes as a plain access.
        """
        step = -size if down else size
        while count:
            part = min(count, MOST_REPEATS)
            if part == 1 or self._is_own(PORT, port, size):
                part = 1
                self._copy_element(PORT, port, size, gpa, reads=reads)
            else:
                flags = POINTER | (READ if reads else 0) | (DOWN if down else 0)
                self._bulk(PORT, port, port + size - 1, gpa, part, size, flags)
            count -= part
            gpa += step * part

    def move(self, *, mmio: int, size: int, count: int, gpa: int, reads: bool, down: bool) -> None:
        """``rep movs`` between memory-mapped I/O and RAM; ``reads``: towards RAM.

        Requests end at the border of a page on either side; an element that crosses one, and a
        single one, go as plain accesses. NotRamError: the buffer is not RAM.
        """
        step = -size if down else size
        while count:
            part = min(count, to_border(mmio, size, down=down), to_border(gpa, size, down=down))
            if part < 2 or self._is_own(MEMORY, mmio, size):
                part = 1
                self._copy_element(MEMORY, mmio, size, gpa, reads=reads)
            else:
                flags = POINTER | (READ if reads else 0) | (DOWN if down else 0)
                first, last = span(mmio, size, part, down=down)
                self._bulk(MEMORY, first, last, gpa, part, size, flags, mmio)
            count -= part
            mmio += step * part
            gpa += step * part

    def fill(self, *, mmio: int, size: int, count: int, value: int, down: bool) -> None:
        """``rep stos`` to memory-mapped I/O: one request has the value and how often."""
        step = -size if down else size
        while count:
            part = min(count, to_border(mmio, size, down=down))
            if part < 2 or self._is_own(MEMORY, mmio, size):
                part = 1
                self.write(MEMORY, mmio, size, value)
            else:
                first, last = span(mmio, size, part, down=down)
                flags = DOWN if down else 0
                self._bulk(MEMORY, first, last, value & MASKS[size], part, size, flags, mmio)
            count -= part
            mmio += step * part

    def _is_own(self, space: int, address: int, size: int) -> bool:
        with self.domain.lock:
            return self.domain.intercepts.find(space, address, size) is not None

    def _copy_element(self, space: int, address: int, size: int, gpa: int, *, reads: bool) -> None:
        memory = self.domain.memory
        if reads:
            buffer = memory.view(gpa, size)
            buffer[:] = self.read(space, address, size).to_bytes(size, "little")
        else:
            self.write(space, address, size, int.from_bytes(memory.view(gpa, size), "little"))

    def _bulk(
        self,
        space: int,
        first: int,
        last: int,
        data: int,
        count: int,
        size: int,
        flags: int,
        address: int = 0,
    ) -> None:
        """One request of many elements. ``data``: an address in RAM with POINTER, else a value."""
        domain = self.domain
        low, high = span(data, size, count, down=bool(flags & DOWN))
        buffer = domain.memory.view(low, high - low + 1) if flags & POINTER else None
        while True:
            if self.attention:
                self.rest()
            try:
                with domain.lock:
                    if self.attention:
                        continue
                    server, kind, target = self._route(space, first, last)
                    if server is not None:
                        if kind == COPY:
                            target = address
                        self._start()
                        server.send(self, kind, target, data, count, size, flags)
            except DomainEnded:
                domain.announce()
                raise
            if server is not None:
                self._finish(server)
            elif buffer is not None and flags & READ:
                buffer[:] = b"\xff" * len(buffer)
            return

    def _finish(self, server: IoreqServer) -> int:
        """Wait for the answer to what was sent to ``server``; gives the slot's data.

        0, when the server was destroyed meanwhile and something else woke this vCPU: Xen goes on
        with the request's own data field then.
        """
        try:
            self._wait(server)
        except DomainEnded:
            self._end_waiting()
            raise
        domain = self.domain
        with domain.lock:
            answer = server.take(self.id) if self.id in server.pending else 0
            self.waiting = False
            domain.outstanding -= 1
            if domain.shutting_down:
                domain.finish_shutdown()
        self.settle()
        return answer

    def _wait(self, server: IoreqServer) -> None:
        """Wait until there is an answer in the slot, or until woken after the server's end."""
        page = server.page
        assert page is not None
        at = self.id * SLOT_SIZE + FLAGS
        woken = False
        # Of two answers at once, one signal tells both.
        state = page[at] & STATE_MASK
        if self.watch.length and self.domain.outstanding == 1:
            try:
                state = self.watch.look(page, at)
            except TransitionError as error:
                self._crash(str(error))
        while True:
            if self.id not in server.pending:
                if woken:
                    return
            elif state != READY and state != INPROCESS:
                if state > RESPONSE_READY:
                    self._crash(f"Weird HVM iorequest state {state}")
                return
            self._sleep()
            woken = True
            state = page[at] & STATE_MASK

    def _crash(self, message: str) -> NoReturn:
        self.domain.crash(message)
        raise DomainEnded(message)

    def broadcast_invalidate(self) -> None:
        """Ask every enabled server to drop its mappings of guest memory, and wait for all.

        Type 8, size 4, count 0, all ones, at address 0 (ioreq_request_mapcache_invalidate). A
        domain that is held gets it when it goes on.
        """
        domain = self.domain
        try:
            with domain.lock:
                if self.attention:
                    self.ask_invalidate()
                    return
                asked = [server for server in domain.servers if server.enabled]
                if not asked:
                    return
                self._start()
                for server in asked:
                    server.send(self, INVALIDATE, 0, (1 << 64) - 1, 0, 4, 0)
        except DomainEnded:
            domain.announce()
            raise
        try:
            for server in asked:
                self._wait(server)
                with domain.lock:
                    if self.id in server.pending:
                        server.take(self.id)
        finally:
            self._end_waiting()
