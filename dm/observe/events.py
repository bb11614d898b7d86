"""What can be observed of a machine: accesses, and what devices do of themselves, as objects.

The kinds and the meaning of an event's numbers are those of a recording (`protocol.recording`). An
event holds what happened during it, in order, as its ``inner`` events.
"""

from __future__ import annotations

from dm.device.platform import MEMORY, PCI, PCI_SHIFT, PORT
from protocol import layouts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from dm.device.register import RegisterSlot
    from dm.device.window import LiveWindow

    from .machine import ObservedMachine

    Touched = tuple[str, RegisterSlot[Any], int]

__all__ = ["Access", "Event", "Sink", "place_name"]


class Event:
    """Something that happened. ``kind``: `protocol.recording.RecordingKind`.

    ``time``: guest time in nanoseconds. ``took``: host time in nanoseconds. ``device``: name, empty
    for none. ``name``, ``numbers``, ``data``: as the kind has it. ``error``: what it raised.
    """

    __slots__ = ("data", "device", "error", "inner", "kind", "name", "numbers", "time", "took")

    def __init__(
        self,
        kind: int,
        time: int,
        device: str = "",
        name: str = "",
        numbers: tuple[int, ...] = (),
        data: bytes = b"",
        error: BaseException | str | None = None,
    ) -> None:
        self.kind = kind
        self.time = time
        self.took = 0
        self.device = device
        self.name = name
        self.numbers = numbers
        self.data = data
        self.error = error
        self.inner: list[Event] = []

    @property
    def failed(self) -> bool:
        """Whether it raised an error."""
        return self.error is not None


class Access(Event):
    """What a guest's instruction did: ``count`` elements of ``size`` bytes.

    ``form``: `protocol.recording.RecordingForm`; ``address``: of the first element; ``down``: the
    others lie below it. ``data``: what was written or, after the access, what was read.
    ``window``, ``offset``: where the address is, None and 0 outside of all windows. ``touched``:
    the registers there as (name, slot, offset). ``refused``: the bank has no accesses of this size.
    ``shared``: not all bytes lie in one window. ``serial``: counts the accesses.
    """

    __slots__ = (
        "address",
        "count",
        "deferred",
        "down",
        "form",
        "offset",
        "reads",
        "refused",
        "serial",
        "shared",
        "size",
        "space",
        "touched",
        "window",
    )

    def __init__(
        self,
        time: int,
        space: int,
        form: int,
        address: int,
        size: int,
        count: int,
        *,
        reads: bool,
        down: bool = False,
        data: bytes = b"",
    ) -> None:
        super().__init__(layouts.RECORDING_KIND_ACCESS, time, data=data)
        self.space = space
        self.form = form
        self.address = address
        self.size = size
        self.count = count
        self.reads = reads
        self.down = down
        self.window: LiveWindow | None = None
        self.offset = 0
        self.touched: tuple[Touched, ...] = ()
        self.refused = False
        self.shared = False
        self.deferred = False
        self.serial = 0

    def locate(self, window: LiveWindow | None, room: int) -> None:
        """Note which registers lie at the address; to be called before the access is made."""
        length = self.size * self.count if self.form == layouts.RECORDING_FORM_BLOCK else self.size
        low = self.address - (length - self.size if self.down else 0)
        self.shared = window is None or room < length
        if window is None:
            return
        self.window = window
        self.device = window.device.name
        self.offset = low - (window.base or 0)
        self.touched = tuple(window.bank.touched(self.offset, min(length, room), self.reads))
        self.refused = self.size not in window.bank.sizes
        if not self.touched:
            self.refused = self.refused or any(
                slot.exact and at == self.offset and slot.size != self.size
                for _, slot, at, _ in type(window.bank).registers()
            )

    @property
    def value(self) -> int:
        """The element, where there is one: as written, or as answered."""
        return int.from_bytes(self.data, "little")

    @property
    def register(self) -> str:
        """Window and register names, or window and offset where no register is."""
        if self.window is None:
            return place_name(self.space, self.address)
        at = ",".join(name for name, _, _ in self.touched)
        if not at:
            at = self.window.bank.describe(self.offset)
        elif len(self.touched) == 1 and self.offset > self.touched[0][2]:
            at += f"+{self.offset - self.touched[0][2]}"
        return f"{self.window.name}.{at}"

    @property
    def undeclared(self) -> bool:
        """Whether a window has the address, and nothing is declared there."""
        if self.window is None or self.touched:
            return False
        return self.window.bank.describe(self.offset).startswith("+")

    def __repr__(self) -> str:
        verb = "read" if self.reads else "write"
        value = "" if self.reads and not self.data else f" of 0x{self.data[::-1].hex()}"
        string = f" x{self.count}" if self.count != 1 else ""
        where = place_name(self.space, self.address)
        who = f"{self.device} {self.register}, " if self.device else ""
        return f"<{who}{verb}{8 * self.size}{string}{value} at {where}>"


class Sink:
    """Takes what was observed."""

    def start(self, machine: ObservedMachine) -> None:
        """The machine is sealed, and nothing happened yet."""

    def event(self, event: Event) -> None:
        """Something happened; its inner events are complete."""

    def close(self) -> None:
        """Nothing more will happen."""


def place_name(space: int, address: int) -> str:
    """An address of a space in words: ``port 0x70``, ``memory 0xfee00000``, ``00:02.0+0x10``."""
    if space == PORT:
        return f"port {address:#x}"
    if space == MEMORY:
        return f"memory {address:#x}"
    assert space == PCI
    sbdf, register = address >> PCI_SHIFT, address & (1 << PCI_SHIFT) - 1
    return f"{sbdf >> 8 & 0xFF:02x}:{sbdf >> 3 & 31:02x}.{sbdf & 7}+{register:#x}"
