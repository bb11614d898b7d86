"""What a request means: from the fields of a slot to accesses on the machine's bus.

Facts: xen/arch/x86/hvm/emulate.c (which shapes Xen sends), QEMU's xen-hvm.c (how count, df and
data_is_ptr are executed). A port stays the same for all elements of a string instruction, a memory
address moves with them; the direction flag makes the addresses and the data go down.
"""

from __future__ import annotations

from dm.device.platform import MEMORY, PCI, PORT
from dm.errors import GuestError
from protocol import layouts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dm.machine.machine import Machine

__all__ = ["ALL_ONES", "Executor", "Request"]

LONGEST_STRING = 4096
"""Elements of one request: Xen sends no more (hvmemul_virtual_to_linear)."""

ALL_ONES = {1: 0xFF, 2: 0xFFFF, 4: 0xFFFFFFFF, 8: 0xFFFFFFFFFFFFFFFF}


class Request:
    """The fields of one slot, copied: the page belongs to somebody else.

    ``address``, ``data``: 64 bits. ``count``: elements. ``size``: bytes an element. ``step``:
    ``size``, or ``-size`` with the direction flag. ``pointer``: ``data`` is the GPA of the data.
    """

    __slots__ = ("address", "count", "data", "kind", "pointer", "reads", "size", "step")

    def __init__(
        self, kind: int, flags: int, address: int, data: int, count: int, size: int
    ) -> None:
        self.kind = kind
        self.address = address
        self.data = data
        self.count = count
        self.size = size
        self.reads = bool(flags & layouts.IOREQ_DIR_MASK)
        self.pointer = bool(flags & layouts.IOREQ_DATA_IS_PTR_MASK)
        self.step = -size if flags & layouts.IOREQ_DF_MASK else size

    def __repr__(self) -> str:
        verb = "read" if self.reads else "write"
        string = f" x{self.count}" if self.count != 1 else ""
        pointer = " by pointer" if self.pointer else ""
        return f"type {self.kind} {verb} of {self.size} bytes{string} at {self.address:#x}{pointer}"


class Executor:
    """Executes requests of every shape on a machine; counts what it could make no sense of."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._bus = machine.bus
        self._memory = machine.memory
        self._kinds = {
            layouts.IOREQ_TYPE_PIO: self._pio,
            layouts.IOREQ_TYPE_COPY: self._copy,
            layouts.IOREQ_TYPE_PCI_CONFIG: self._config,
            layouts.IOREQ_TYPE_TIMEOFFSET: self._time_offset,
            layouts.IOREQ_TYPE_INVALIDATE: self._invalidate,
        }
        self.unknown = 0
        self.time_offsets = 0
        self.invalidations = 0

    def execute(self, request: Request) -> int:
        """Perform ``request``; gives the answer of a read whose data is not a pointer, else 0."""
        handler = self._kinds.get(request.kind)
        if handler is None:
            self.unknown += 1
            raise GuestError(f"request type {request.kind} is unknown")
        return handler(request)

    @staticmethod
    def _check(request: Request, largest: int) -> None:
        if request.size not in ALL_ONES or request.size > largest:
            raise GuestError(f"a size of {request.size} bytes is impossible")
        if not 1 <= request.count <= LONGEST_STRING:
            raise GuestError(f"a count of {request.count} is impossible")

    def _low(self, request: Request) -> int:
        """The lowest GPA of the data."""
        if request.step > 0:
            return request.data
        return request.data - (request.count - 1) * request.size

    def _pio(self, request: Request) -> int:
        return self._at_one_place(PORT, request)

    def _config(self, request: Request) -> int:
        # A string instruction at the data port 0xcfc arrives here as well.
        return self._at_one_place(PCI, request)

    def _at_one_place(self, space: int, request: Request) -> int:
        self._check(request, 4)
        address, size = request.address, request.size
        if not request.pointer:
            if request.reads:
                return self._bus.read(space, address, size)
            self._bus.write(space, address, size, request.data)
        elif request.reads:
            self._into_memory(request, lambda: self._string_in(space, request))
        else:
            data = self._memory.read(self._low(request), request.count * size)
            if request.step < 0:
                data = _reversed_elements(data, size)
            self._bus.write_string(space, address, size, data)
        return 0

    def _string_in(self, space: int, request: Request) -> bytes:
        data = self._bus.read_string(space, request.address, request.size, request.count)
        return _reversed_elements(data, request.size) if request.step < 0 else data

    def _copy(self, request: Request) -> int:
        self._check(request, 8)
        address, size, step = request.address, request.size, request.step
        bus = self._bus
        if request.pointer:
            if request.reads:
                self._into_memory(
                    request, lambda: bus.read_block(MEMORY, address, size, request.count, step)
                )
            else:
                data = self._memory.read(self._low(request), request.count * size)
                bus.write_block(MEMORY, address, size, step, data)
            return 0
        if request.reads:
            answer = 0
            for index in range(request.count):
                answer = bus.read(MEMORY, address + index * step, size)
            return answer
        for index in range(request.count):
            bus.write(MEMORY, address + index * step, size, request.data)
        return 0

    def _into_memory(self, request: Request, read: _Read) -> None:
        """Store what ``read`` gives in guest memory; ones, and the exception, when it fails."""
        try:
            data = read()
        except Exception:
            self._memory.write(self._low(request), b"\xff" * (request.count * request.size))
            raise
        self._memory.write(self._low(request), data)

    def _time_offset(self, request: Request) -> int:
        """The guest set its clock, which is Xen's; nothing here depends on it."""
        self.time_offsets += 1
        return 0

    def _invalidate(self, request: Request) -> int:
        self.invalidations += 1
        self._memory.invalidate()
        return 0


if TYPE_CHECKING:
    from collections.abc import Callable

    _Read = Callable[[], bytes]


def _reversed_elements(data: bytes, size: int) -> bytes:
    return b"".join([data[at : at + size] for at in range(len(data) - size, -1, -size)])
