"""How a request is undone whose process died in its middle: what a device's state was before it.

Before a request is marked INPROCESS, the state of the device that it goes to is copied beside it.
The mark makes the copy count, the slot's next state makes it void: each is one store, so at every
instant a successor sees either a request that has not begun, or one that it can undo and begin
again, or one that was answered. A timer's expiry counts from `enter` to `leave`.

What the copy does not hold: memory of more than BULK bytes, which is written again when the request
is; state of other devices than the addressed one; what has left the process. A request whose answer
comes later (a deferral) is not undone: its effects are there, and only its answer is lost.
"""

from __future__ import annotations

from protocol import layouts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from dm.device.device import Device

    Undo = tuple[memoryview[int], memoryview[int], int]
    """Where the copy is, what is copied, and its offset in the machine's buffer."""

__all__ = ["JOURNAL_SIZE", "Journal", "roll_back"]

VCPUS = layouts.IOREQ_SLOT_COUNT
OFFSET, LENGTH, ENTERED = range(3)
"""Words: what the copy is of, in bytes of the machine's buffer; and whether a timer expires."""
DEFERRED = 64
"""A byte for each vCPU: whether the answer to its request comes later."""
JOURNAL_SIZE = 256


class Journal:
    """The journal of one machine, in ``memory`` of JOURNAL_SIZE bytes.

    ``kept``: as long as the machine's buffer; the copy of each byte is at the same offset. Until
    `use` they are private, so that there is one way to serve whether or not anybody inherits.
    ``current``: what the copy is of now. ``inherited``: the state is a predecessor's, with what
    was under way undone.
    """

    def __init__(self) -> None:
        self.current: Undo | None = None
        self.inherited = False
        self._kept: memoryview[int] | None = None
        self._offsets: dict[str, int] = {}
        self._undos: dict[str, tuple[Device, Undo]] = {}
        self.use(memoryview(bytearray(JOURNAL_SIZE)), None)

    def use(self, memory: memoryview[int], kept: memoryview[int] | None) -> None:
        """Live in these bytes from now on; before the machine is sealed."""
        self._words = memory[:DEFERRED].cast("Q")
        self.deferred = memory[DEFERRED : DEFERRED + VCPUS]
        self._kept = kept

    def seal(self, size: int, offsets: dict[str, int]) -> None:
        """Be ready for a buffer of ``size`` bytes; ``offsets``: where each device's region is."""
        self._offsets = offsets
        if self._kept is None:
            self._kept = memoryview(bytearray(size))

    def undo_of(self, device: Device) -> Undo:
        """What is to be copied before a request to ``device``."""
        known = self._undos.get(device.name)
        if known is not None and known[0] is device:
            return known[1]
        offset, length = self._offsets[device.name], device._layout.small
        assert self._kept is not None
        undo = self._kept[offset : offset + length], device.cells.region[:length], offset
        self._undos[device.name] = device, undo
        return undo

    def begin(self, undo: Undo) -> None:
        """Let the copy be of ``undo``; only while nothing is INPROCESS but deferred requests."""
        self._words[OFFSET] = undo[2]
        self._words[LENGTH] = len(undo[0])
        self.current = undo

    def keep(self, device: Device | None) -> None:
        """Copy the state of ``device``; None for a request that no device gets."""
        if device is None:
            self._words[LENGTH] = 0
            self.current = None
            return
        undo = self.undo_of(device)
        self.begin(undo)
        undo[0][:] = undo[1]

    def enter(self, device: Device) -> None:
        """What follows is undone as a whole if it does not come to `leave`."""
        self.keep(device)
        self._words[ENTERED] = 1

    def leave(self) -> None:
        """What was entered has been done."""
        self._words[ENTERED] = 0

    def go_on(self, memory: bytes, under_way: Iterable[int]) -> None:
        """Go on with the state of a predecessor, whose journal was ``memory``, rolled back.

        There is no copy that counts, so that a slot which is INPROCESS still is one to serve.
        ``under_way``: the vCPUs whose slots are INPROCESS; what is noted of others is of requests
        that were answered in the predecessor's last instant.
        """
        self.inherited = True
        for vcpu in under_way:
            self.deferred[vcpu] = memory[DEFERRED + vcpu]


def roll_back(
    memory: bytes, kept: memoryview[int], state: bytearray, under_way: Iterable[int]
) -> None:
    """Undo in ``state`` what was under way when a process died, whose journal was ``memory``.

    ``under_way``: the vCPUs whose slots are INPROCESS.
    """
    words = memoryview(memory)[:DEFERRED].cast("Q")
    deferred = memory[DEFERRED : DEFERRED + VCPUS]
    offset, length = words[OFFSET], words[LENGTH]
    counts = words[ENTERED] or any(not deferred[vcpu] for vcpu in under_way)
    if counts and offset + length <= len(state):
        state[offset : offset + length] = kept[offset : offset + length]
