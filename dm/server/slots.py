"""The synchronous page: one slot for each vCPU, its state machine, and the fast way through it.

READY -> INPROCESS -> RESPONSE_READY. Only the data and the state of a slot are ever written: the
data first, the state byte last (xen/common/ioreq.c: ioreq_send, wait_for_io). Every READY slot is
answered, whatever it holds and whatever a device does.

INPROCESS means that the journal holds what undoes the request (dm/machine/journal.py), so that a
successor executes it again, once; a read that changes nothing is answered straight from READY.
"""

from __future__ import annotations

from struct import Struct

from dm.device.deferral import Deferral
from dm.device.platform import MEMORY, PCI, PORT
from dm.errors import GuestError
from dm.observe.log import Log
from protocol import layouts

from .executor import ALL_ONES, Executor, Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from dm.device.device import Device
    from dm.machine.journal import Undo
    from dm.machine.machine import Machine

    Entry = tuple[Callable[..., Any], Callable[[], None] | None, Device, Undo | None]
    Shape = tuple[Mapping[int, Entry], bool, int, int]
    """A table, whether it is of reads, and the flags of a slot in the next two states."""

__all__ = ["Slots"]

SIZE = layouts.IOREQ_SIZE
FLAGS = layouts.IOREQ_FLAGS_OFFSET
PORT_OFFSET = layouts.IOREQ_VP_EPORT_OFFSET
DATA_WORD = layouts.IOREQ_DATA_OFFSET // 8
STATE = layouts.IOREQ_STATE_MASK
READY = layouts.IOREQ_STATE_READY
INPROCESS = layouts.IOREQ_STATE_INPROCESS
ANSWERED = layouts.IOREQ_STATE_RESPONSE_READY
READS = layouts.IOREQ_DIR_MASK
TO_INPROCESS = INPROCESS - READY
"""What is added to the flags of a READY slot to bring it into the next state."""

SLOT_WITH_SHAPE = layouts.IOREQ_FORMAT.replace("IHBB", "6xH")
"""A slot without what is the hypervisor's own, whose flags and type are read as one word: with the
size, the shape of the access."""

SPACE_OF = {
    layouts.IOREQ_TYPE_PIO: PORT,
    layouts.IOREQ_TYPE_COPY: MEMORY,
    layouts.IOREQ_TYPE_PCI_CONFIG: PCI,
}

READY_TO_SEE = bytes(1 if value & STATE == READY else 0 for value in range(256))
"""Translates flag bytes so that READY slots stand out."""


class Slots:
    """Serves the slots of ``vcpus`` vCPUs. ``answered(vcpu)`` is told of late answers."""

    def __init__(
        self,
        page: memoryview[int],
        vcpus: int,
        machine: Machine,
        executor: Executor,
        answered: Callable[[int], None],
    ) -> None:
        self.vcpus = vcpus
        self._page = page
        self._quads = page.cast("Q")
        # One view for each slot: no arithmetic on large offsets, whose results Python allocates.
        self._slots = tuple(page[SIZE * vcpu : SIZE * (vcpu + 1)] for vcpu in range(vcpus))
        self._values = self._quads[DATA_WORD : DATA_WORD + SIZE // 8 * vcpus : SIZE // 8]
        self._flags = page[FLAGS : FLAGS + SIZE * vcpus : SIZE]
        self._unpack = Struct(SLOT_WITH_SHAPE).unpack
        self._machine = machine
        self._journal = machine.journal
        self._executor = executor
        self._answered = answered
        self._shapes: dict[int, Shape] = {}
        for kind, space in SPACE_OF.items():
            for size in ALL_ONES:
                shape = size << 16 | kind << 8 | READY
                reads, writes = (
                    machine.spaces.reads[space, size],
                    machine.spaces.writes[space, size],
                )
                self._shapes[shape | READS] = reads, True, INPROCESS | READS, ANSWERED | READS
                self._shapes[shape] = writes, False, INPROCESS, ANSWERED
        self._waiting: dict[int, Deferral] = {}
        self._log = Log("server")
        self.refused = 0

    def remote_port(self, vcpu: int) -> int:
        """The domain's event channel of ``vcpu``; meaningful once the server is enabled."""
        at = vcpu * SIZE + PORT_OFFSET
        return int.from_bytes(self._page[at : at + 4], "little")

    def next_ready(self, start: int = 0) -> int:
        """The first vCPU from ``start`` on, all around, whose slot is READY; -1 if there is none.

        Whoever goes on behind the vCPU that was served last lets no vCPU starve.
        """
        seen = self._flags.tobytes().translate(READY_TO_SEE)
        found = seen.find(1, start)
        return found if found >= 0 or not start else seen.find(1)

    def look(self, start: int, times: int) -> int:
        """What `next_ready` gives, looking up to so many times until one is READY."""
        if self.vcpus == 1:
            flags = self._flags
            for _ in range(times):
                if flags[0] & STATE == READY:
                    return 0
            return -1
        for _ in range(times):
            found = self.next_ready(start)
            if found >= 0:
                return found
        return -1

    def is_ready(self, vcpu: int) -> bool:
        """Whether the slot of ``vcpu`` is READY."""
        return self._flags[vcpu] & STATE == READY

    def serve(self, vcpu: int) -> bool:
        """Serve the slot of ``vcpu``; says whether there is an answer to notify the vCPU of.

        A slot that is not READY (a spurious event) is left alone.
        """
        address, data, count, size, word = self._unpack(self._slots[vcpu])
        shape = self._shapes.get(size << 16 | word)
        if shape is not None and count == 1:
            table, reads, begun, answered = shape
            entry = table.get(address)
            if entry is not None:
                access, settle, device, undo = entry
                if undo is not None:
                    if undo is not self._journal.current:
                        self._journal.begin(undo)
                    kept, live, _ = undo
                    kept[:] = live
                    self._flags[vcpu] = begun
                try:
                    if reads:
                        value = access()
                        if settle is not None:
                            settle()
                        self._values[vcpu] = value
                    else:
                        access(data)
                        if settle is not None:
                            settle()
                except Exception as error:
                    request = Request(word >> 8, word & 0xFF, address, data, count, size)
                    return self._failed(vcpu, error, device, request)
                self._flags[vcpu] = answered
                return True
        if word & STATE != READY:
            return False
        request = Request(word >> 8, word & 0xFF, address, data, count, size)
        return self._serve_any(vcpu, vcpu * SIZE, word & 0xFF, request)

    def _failed(self, vcpu: int, error: Exception, device: Device, request: Request) -> bool:
        """A device answers later, or went wrong: the guest then gets ones."""
        if isinstance(error, Deferral):
            self._settle(device)
            self._defer(vcpu, error)
            return False
        self._contain(error, device, request)
        self._answer(vcpu * SIZE, ALL_ONES[request.size], request.reads)
        return True

    def _serve_any(self, vcpu: int, offset: int, flags: int, request: Request) -> bool:
        """Serve a request of any shape by the general rules."""
        space = SPACE_OF.get(request.kind)
        found = None if space is None else self._machine.spaces.find(space, request.address)
        self._journal.keep(None if found is None else found[0].device)
        self._page[offset + FLAGS] = flags + TO_INPROCESS
        answer = ALL_ONES.get(request.size, ALL_ONES[8])
        self._machine.bus.last = None
        try:
            answer = self._executor.execute(request)
        except Deferral as deferral:
            if not request.pointer and request.count == 1:
                self._defer(vcpu, deferral)
                return False
            self._refuse(
                GuestError(f"{deferral.device.name} cannot answer a string later"), request
            )
        except GuestError as error:
            self._refuse(error, request)
        except Exception as error:
            self._contain(error, self._machine.bus.last, request)
        self._answer(offset, answer, request.reads and not request.pointer)
        return True

    def _answer(self, offset: int, value: int, reads: bool) -> None:
        """Store the answer: the data first, the state last."""
        if reads:
            self._quads[(offset >> 3) + DATA_WORD] = value & ALL_ONES[8]
        flags = self._page[offset + FLAGS]
        self._page[offset + FLAGS] = flags & ~STATE | ANSWERED

    def _refuse(self, error: GuestError, request: Request) -> None:
        self.refused += 1
        self._log.limited("%s: %s", request, error)

    def _contain(self, error: Exception, device: Device | None, request: Request) -> None:
        space = SPACE_OF.get(request.kind)
        where = "" if space is None else self._machine.bus.describe(space, request.address) + ", "
        self._machine.contain(error, f"{where}{request}")
        if device is not None:
            self._settle(device)

    def _settle(self, device: Device) -> None:
        try:
            device.settle()
        except Exception as error:
            self._machine.contain(error, device.name)

    def _defer(self, vcpu: int, deferral: Deferral) -> None:
        """Leave the slot INPROCESS until the device completes the answer."""
        self._waiting[vcpu] = deferral
        self._journal.deferred[vcpu] = 1
        reads = bool(self._flags[vcpu] & READS)

        def finish(value: int) -> None:
            if self._waiting.get(vcpu) is deferral:
                del self._waiting[vcpu]
                self._answer(vcpu * SIZE, value, reads)
                self._journal.deferred[vcpu] = 0
                self._answered(vcpu)

        deferral.attach(finish)

    @property
    def waiting(self) -> int:
        """How many answers are still to come from devices."""
        return len(self._waiting)

    def adopt(self, vcpu: int) -> bool:
        """Settle a slot that a dead predecessor left; says whether to notify the vCPU.

        READY: nobody began it, or it was undone; it is served. INPROCESS: its device was to answer
        later, or nothing is known of it; a write is answered without being repeated, a read is
        executed again, since it needs its answer. RESPONSE_READY: answered, but perhaps never
        notified.
        """
        flags = self._flags[vcpu]
        state = flags & STATE
        if state == INPROCESS and not flags & READS:
            self._answer(vcpu * SIZE, 0, reads=False)
            self._journal.deferred[vcpu] = 0
            return True
        if state == INPROCESS:
            self._flags[vcpu] = flags & ~STATE | READY
            self._journal.deferred[vcpu] = 0
        if state in (READY, INPROCESS):
            return self.serve(vcpu)
        return state == ANSWERED

    def under_way(self) -> list[int]:
        """The vCPUs whose requests were begun and are not answered."""
        return [v for v, flags in enumerate(self._flags.tobytes()) if flags & STATE == INPROCESS]

    def begin_again(self) -> None:
        """Make what a dead predecessor had under way, and what was undone, READY again.

        All of it before the first is served: from then on the journal is about that.
        """
        for vcpu in self.under_way() if self._journal.inherited else ():
            if not self._journal.deferred[vcpu]:
                self._flags[vcpu] = self._flags[vcpu] & ~STATE | READY

    def abandon(self, device: Device) -> list[int]:
        """Settle what ``device``, which is no more, had yet to answer; gives whom to notify.

        It is as after the death of a predecessor: a read goes to whoever stands there now.
        """
        vcpus = [vcpu for vcpu, deferral in self._waiting.items() if deferral.device is device]
        for vcpu in vcpus:
            del self._waiting[vcpu]
        return [vcpu for vcpu in vcpus if self.adopt(vcpu)]

    @property
    def untaken(self) -> int:
        """How many answers are there that their vCPUs have not taken yet."""
        return sum(flags & STATE == ANSWERED for flags in self._flags.tobytes())

    def flush(self) -> list[int]:
        """Answer every slot that still waits, at the end; gives the vCPUs to notify.

        The journal is shared with the slots of other servers: a vCPU that waits there stays noted.
        """
        answered = []
        self._waiting.clear()
        for vcpu in range(self.vcpus):
            flags = self._flags[vcpu]
            if flags & STATE == READY:
                self.serve(vcpu)
                self._waiting.clear()
            if self._flags[vcpu] & STATE in (READY, INPROCESS):
                size_at = vcpu * SIZE + layouts.IOREQ_SIZE_OFFSET
                size = int.from_bytes(self._page[size_at : size_at + 4], "little")
                pointer = flags & layouts.IOREQ_DATA_IS_PTR_MASK
                reads = bool(flags & READS) and not pointer
                self._answer(vcpu * SIZE, ALL_ONES.get(size, ALL_ONES[8]), reads)
                self._journal.deferred[vcpu] = 0
            if flags & STATE in (READY, INPROCESS):
                answered.append(vcpu)
        return answered
