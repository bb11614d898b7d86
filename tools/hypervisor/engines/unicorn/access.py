"""What becomes of a guest's accesses: from the library's hooks to requests of the right size.

The library cuts memory-mapped I/O into pieces: 8 bytes become two reads of 4, a misaligned read
becomes wider aligned ones on both sides, a misaligned write single bytes. The memory hooks in
front of that see the access as the guest made it; so they make the request, and the callbacks that
follow only hand out its bytes. Repeated string instructions become one request of many elements.

A port access can end the run after its instruction. One to memory or of INS cannot: the library
would repeat it; interrupts and types of pages that it causes wait for the end of the run.

Not modelled, and a crash of the domain: code and page tables where no RAM is, and an access that
begins in RAM and ends outside.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from ...errors import NotRamError
from .library import Emulator
from .paging import FaultError, LinearMemory, UnreachableError
from .registers import RCX, REG_RIP, Registers
from .strings import INS, MOVS, OUTS, STOS, StringInstruction, decode, fetch, room
from .vectoring import NotModelledError

if TYPE_CHECKING:
    from ...memory import GuestMemory

__all__ = ["Access", "Lines", "Requests"]

PORT: Final = 0
MEMORY: Final = 1
IS_READ: Final = 16
RSI, RDI = 6, 7
ONES: Final = (1 << 64) - 1
GENERAL: Final = {RCX: 38, RSI: 43, RDI: 39}
"""The library's numbers of registers that are written from a hook."""
MOST_PLAIN: Final = 4096


class Requests(Protocol):
    """What answers accesses: a vCPU, or what stands for it in this process."""

    @property
    def attention(self) -> bool:
        """Whether the vCPU has something else to do than run guest code."""

    def read(self, space: int, address: int, size: int, /) -> int:
        """The value at an address."""

    def write(self, space: int, address: int, size: int, value: int, /) -> None:
        """Store a value at an address."""

    def string(
        self, *, port: int, size: int, count: int, gpa: int, reads: bool, down: bool
    ) -> None:
        """INS (``reads``) or OUTS with a buffer in RAM."""

    def move(self, *, mmio: int, size: int, count: int, gpa: int, reads: bool, down: bool) -> None:
        """MOVS from (``reads``) or to memory-mapped I/O."""

    def fill(self, *, mmio: int, size: int, count: int, value: int, down: bool) -> None:
        """STOS to memory-mapped I/O."""


class Lines(Protocol):
    """Whether a vCPU has an interrupt to take."""

    pending: list[bool]


class Access:
    """The hooks of one processor. ``number``: its vCPU.

    ``failure``: what a request raised, for the loop that runs the processor. ``blocked``: the guest
    takes no interrupts now, so that a pending one is no reason to end the run. ``stale``: a
    request filled RAM in which code may have been translated. ``leave``: the run is to end, for the
    guest has other memory now.
    """

    def __init__(
        self,
        emulator: Emulator,
        registers: Registers,
        memory: GuestMemory,
        requests: Requests,
        lines: Lines,
        number: int,
    ) -> None:
        self._emulator, self._registers, self._memory = emulator, registers, memory
        self._linear = LinearMemory(registers, memory)
        self._requests = requests
        self.failure: BaseException | None = None
        self.blocked = False
        self.stale = False
        self.leave = False
        self._data = self._at = self._parts = 0
        """The bytes that the last access read and where, and how many callbacks may ask for them
        or bring them."""
        self._bulk: _Bulk | None = None
        self._plain: set[int] = set()
        """Where instructions are that are no string instructions; to be in here wrongly costs
        only that elements go one by one."""
        self.access = self._memory_hook()
        """The hook in front of memory-mapped I/O."""
        self._hook_ports(lines, number)

    @property
    def busy(self) -> bool:
        """Whether a request's elements are still being handed out: no interrupt may come now."""
        return self._bulk is not None and self._bulk.left > 0

    @property
    def left(self) -> int:
        """How many elements of a request are still to be handed out."""
        return self._bulk.left if self._bulk is not None else 0

    def fail(self, error: BaseException) -> None:
        """Keep what a request raised; the run ends at the next port access or by its count."""
        if self.failure is None:
            self.failure = error

    def _hook_ports(self, lines: Lines, number: int) -> None:
        requests, pending, plain = self._requests, lines.pending, self._plain
        read, write = requests.read, requests.write
        library, handle = self._emulator.library, self._emulator.handle
        read_register, stop = library.read_register, library.stop
        rip, number_of_rip, slot = _rip_slot()

        def port_in(_handle: int, port: int, size: int, _user: None) -> int:
            try:
                if self.failure is not None:
                    raise self.failure
                read_register(handle, number_of_rip, slot)
                if rip[0] not in plain:
                    value = self._string_in(rip[0], port, size)
                    if value is not None:
                        return value
                value = read(PORT, port, size)
                if self.leave or requests.attention or (pending[number] and not self.blocked):
                    stop(handle)
                return value
            except BaseException as error:
                self.fail(error)
                stop(handle)
                return ONES >> 64 - 8 * size

        def port_out(_handle: int, port: int, size: int, value: int, _user: None) -> None:
            try:
                if self.failure is not None:
                    raise self.failure
                read_register(handle, number_of_rip, slot)
                if rip[0] not in plain and self._string_out(rip[0], port, size, value):
                    return
                write(PORT, port, size, value)
                if self.leave or requests.attention or (pending[number] and not self.blocked):
                    stop(handle)
            except BaseException as error:
                self.fail(error)
                stop(handle)

        self._emulator.hook_instruction("IN", port_in)
        self._emulator.hook_instruction("OUT", port_out)

    def _memory_hook(self) -> Callable[[int, int, int, int, int, None], None]:
        requests, plain = self._requests, self._plain
        read, write = requests.read, requests.write
        read_register, handle = self._emulator.library.read_register, self._emulator.handle
        rip, number_of_rip, slot = _rip_slot()

        def access(_h: int, kind: int, gpa: int, size: int, value: int, _user: None) -> None:
            self._at, self._data = gpa, ONES
            self._parts = _pieces(gpa, size) if kind == IS_READ else size
            if self.failure is not None:
                return
            try:
                if self._bulk is not None and self._continue(kind, gpa, size):
                    return
                read_register(handle, number_of_rip, slot)
                if rip[0] not in plain and self._string_memory(rip[0], kind, gpa, size):
                    return
                if kind == IS_READ:
                    self._data = read(MEMORY, gpa, size)
                else:
                    write(MEMORY, gpa, size, value & (1 << 8 * size) - 1)
            except BaseException as error:
                self.fail(error)

        return access

    def reader(self, base: int) -> Callable[[int | None, int, int, None], int]:
        """The callback that hands out what was read in a hole that begins at ``base``."""

        def read(_handle: int | None, offset: int, size: int, _user: None) -> int:
            if self._parts <= 0:
                self._foreign(base + offset)
                return ONES
            self._parts -= 1
            shift = 8 * (base + offset - self._at)
            data = self._data >> shift if shift >= 0 else self._data << -shift
            return data & ONES

        return read

    def writer(self, handle: int | None, offset: int, size: int, value: int, user: None, /) -> None:
        """The callback that is left with the pieces of a write."""
        if self._parts <= 0:
            self._foreign(offset)
        self._parts -= size

    def _foreign(self, address: int) -> None:
        self.fail(
            NotModelledError(
                f"code, page tables or half of an access at {address:#x}, outside of RAM"
            )
        )

    def _instruction(self, rip: int) -> StringInstruction | None:
        """The string instruction that runs now; what is none is noted as plain."""
        registers = self._registers
        registers.load()
        found = decode(fetch(registers, self._linear), registers.width)
        if found is None:
            if len(self._plain) >= MOST_PLAIN:
                self._plain.clear()
            self._plain.add(rip)
        return found

    def _string_in(self, rip: int, port: int, size: int) -> int | None:
        """Serve INS, as one request if that is possible; gives the first element. None: no INS."""
        found = self._instruction(rip)
        if found is None or found.kind != INS:
            return None
        gpa, count = self._buffer(found, RDI, write=True)
        if count < 2:
            return self._requests.read(PORT, port, size)
        down = self._registers.down
        self._requests.string(port=port, size=size, count=count, gpa=gpa, reads=True, down=down)
        linear = found.linear(self._registers, RDI)
        self._forget(linear - size * (count - 1) if down else linear, size * count)
        self._skip(found, RDI, count - 1)
        return int.from_bytes(self._memory.read(gpa, size), "little")

    def _forget(self, linear: int, length: int) -> None:
        """A request filled RAM: what was translated from there is no longer so.

        The library looks addresses up as for execution, and a fault there would reach the guest.
        """
        if self._registers.executes_all:
            self._emulator.forget_code_in(linear, length)
        else:
            self.stale = True

    def _string_out(self, rip: int, port: int, size: int, value: int) -> bool:
        """Serve OUTS, as one request if that is possible. False: no OUTS."""
        found = self._instruction(rip)
        if found is None or found.kind != OUTS:
            return False
        gpa, count = self._buffer(found, RSI, write=False)
        if count < 2:
            self._requests.write(PORT, port, size, value)
            return True
        down = self._registers.down
        self._requests.string(port=port, size=size, count=count, gpa=gpa, reads=False, down=down)
        self._skip(found, RSI, count - 1)
        return True

    def _skip(self, found: StringInstruction, index: int, count: int) -> None:
        """Have the instruction go on after ``count`` elements more than the present one."""
        write = self._emulator.library.free.uc_reg_write
        for register in (index, RCX):
            value = found.advance(self._registers, register, count)
            write(self._emulator.handle, GENERAL[register], value.to_bytes(8, "little"))

    def _buffer(self, found: StringInstruction, index: int, *, write: bool) -> tuple[int, int]:
        """The GPA of the first element in RAM, and how many elements lie there; 0: not in RAM."""
        registers, size = self._registers, found.size
        linear = found.linear(registers, index)
        down = registers.down
        count = min(found.count(registers), room(linear, size, down))
        offset = registers.general(index) & found.mask
        count = min(count, offset // size + 1 if down else (found.mask + 1 - offset) // size)
        if count < 2:
            return 0, 0
        try:
            gpa = self._linear.translate(linear, write=write)
            self._memory.view(gpa - size * (count - 1) if down else gpa, size * count)
        except (FaultError, UnreachableError, NotRamError):
            return 0, 0
        return gpa, count

    def _string_memory(self, rip: int, kind: int, gpa: int, size: int) -> bool:
        """Serve MOVS or STOS as one request, if it is one; the present access is its first."""
        found = self._instruction(rip)
        if found is None or found.kind not in (MOVS, STOS) or found.size != size:
            return False
        registers, reads = self._registers, kind == IS_READ
        down = registers.down
        count = room(gpa, size, down)
        if found.kind == STOS:
            count = min(count, found.count(registers))
            if count < 2:
                return False
            value = registers.general(0) & (1 << 8 * size) - 1
            self._requests.fill(mmio=gpa, size=size, count=count, value=value, down=down)
            self._bulk = _Bulk(kind, gpa, size, count, down, b"")
        else:
            ram, elements = self._buffer(found, RDI if reads else RSI, write=reads)
            count = min(count, elements)
            if count < 2:
                return False
            self._requests.move(mmio=gpa, size=size, count=count, gpa=ram, reads=reads, down=down)
            low = ram - size * (count - 1) if down else ram
            data = self._memory.read(low, size * count) if reads else b""
            self._bulk = _Bulk(kind, gpa, size, count, down, data)
        return self._continue(kind, gpa, size)

    def _continue(self, kind: int, gpa: int, size: int) -> bool:
        """Hand out the next element of a bulk request; False when the access is not its next."""
        bulk = self._bulk
        if bulk is None or not bulk.left or (kind, gpa, size) != (bulk.kind, bulk.next, bulk.size):
            self._bulk = None
            return False
        index = bulk.left - 1 if bulk.down else bulk.count - bulk.left
        if bulk.data:
            element = bulk.data[index * size : (index + 1) * size]
            self._data = int.from_bytes(element, "little")
        bulk.left -= 1
        bulk.next += -size if bulk.down else size
        if not bulk.left:
            self._bulk = None
        return True


class _Bulk:
    """A request of many elements whose accesses are still to come, one by one."""

    def __init__(
        self, kind: int, first: int, size: int, count: int, down: bool, data: bytes
    ) -> None:
        self.kind, self.next, self.size, self.count = kind, first, size, count
        self.left, self.down, self.data = count, down, data


def _pieces(gpa: int, size: int) -> int:
    """How many reads of at most 4 bytes the library makes of one."""
    whole = max(1, size // 4)
    return whole * 2 if gpa & (size - 1) else whole


def _rip_slot() -> tuple[memoryview[int], ctypes.c_int, ctypes.c_void_p]:
    """A place for the instruction pointer, and the arguments that have it stored there."""
    slot = (ctypes.c_uint64 * 1)()
    view = memoryview(slot).cast("B").cast("Q")
    return view, ctypes.c_int(REG_RIP), ctypes.c_void_p(ctypes.addressof(slot))
