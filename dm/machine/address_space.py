"""How an address becomes a register: the machine's three address spaces and their dispatch tables.

Two mechanisms. *Exact* tables, one dictionary per direction, space and access size, lead from an
address straight to the callable of the register that matches it; they serve nearly every request
of a guest and cost the same however many windows there are. *Segments*, a sorted list of disjoint
pieces of windows, answer every other shape. An entry without something to undo changes nothing.

Where windows overlap (a guest can program a BAR anywhere), the one that was declared first wins.
"""

from __future__ import annotations

from bisect import bisect_right

from dm.device.platform import MEMORY, PCI, PCI_SHIFT, PORT
from dm.errors import HostError

from .ranges import subtract, union

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from dm.device.device import Device
    from dm.device.platform import Platform
    from dm.device.window import LiveWindow

    from .journal import Undo
    from .ranges import Range

    ReadEntry = tuple[Callable[[], int], Callable[[], None] | None, Device, Undo | None]
    Memory = tuple[int, int, memoryview[int]]
    """First address, length in bytes, the bytes."""
    WriteEntry = tuple[Callable[[int], object], Callable[[], None] | None, Device, Undo | None]

__all__ = ["SIZES", "SPACES", "AddressSpaces"]

SPACES = (PORT, MEMORY, PCI)
SIZES = (1, 2, 4, 8)
_NOTHING = memoryview(b""), memoryview(b""), 0
"""What is to be undone of a request to a device that is not in a sealed machine."""


class AddressSpaces:
    """All windows of a machine, where they are, and what the platform was asked for."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self.undo_of: Callable[[Device], Undo] = lambda device: _NOTHING
        self._windows: list[LiveWindow] = []
        self._claimed: dict[int, list[Range]] = {space: [] for space in SPACES}
        self._starts: dict[int, list[int]] = {space: [] for space in SPACES}
        self._segments: dict[int, list[tuple[int, LiveWindow]]] = {space: [] for space in SPACES}
        self.reads: dict[tuple[int, int], dict[int, ReadEntry]] = {}
        self.writes: dict[tuple[int, int], dict[int, WriteEntry]] = {}
        for space in SPACES:
            for size in SIZES:
                self.reads[space, size] = {}
                self.writes[space, size] = {}
        self.memory: list[Memory] = []

    def add(self, window: LiveWindow) -> None:
        """Add a window; earlier ones win where they overlap."""
        self._windows.append(window)

    def place_all(self) -> list[HostError]:
        """Ask every window for its place, then rebuild the tables and the platform's claims."""
        return self.replace(self._windows)

    def replace(self, windows: list[LiveWindow]) -> list[HostError]:
        """Ask ``windows`` for their places; rebuild what changed.

        Gives the claims that the platform refused; the accesses they would bring never arrive.
        """
        changed: set[int] = set()
        # All are asked before one is moved: a device may fail to say where its window is.
        for window, base in [(window, window.wanted()) for window in windows]:
            if base != window.base:
                window.base = base
                changed.add(window.space)
        problems: list[HostError] = []
        for space in sorted(changed):
            self._rebuild(space)
            problems += self._claim(space)
        return problems

    def exchange(self, old: tuple[LiveWindow, ...], new: tuple[LiveWindow, ...]) -> list[HostError]:
        """Let windows stand in the others' stead; gives the claims that the platform refused."""
        places = [index for index, window in enumerate(self._windows) if window in old]
        at = places[0] if places else len(self._windows)
        kept = [window for window in self._windows if window not in old]
        self._windows = [*kept[:at], *new, *kept[at:]]
        for window in new:
            window.base = window.wanted()
        problems: list[HostError] = []
        for space in sorted({window.space for window in (*old, *new)}):
            self._rebuild(space)
            problems += self._claim(space)
        return problems

    def _rebuild(self, space: int) -> None:
        taken: list[Range] = []
        segments: list[tuple[int, int, LiveWindow]] = []
        for size in SIZES:
            self.reads[space, size].clear()
            self.writes[space, size].clear()
        self.memory = [] if space == MEMORY else self.memory
        for window in self._windows:
            if window.space != space or window.base is None:
                continue
            whole = [(window.base, window.base + window.size - 1)]
            pieces = subtract(whole, taken)
            segments += [(first, last, window) for first, last in pieces]
            taken = union(taken + whole)
            self._enter(window, pieces)
        segments.sort(key=lambda segment: segment[0])
        self._starts[space] = [first for first, _, _ in segments]
        self._segments[space] = [(last, window) for _, last, window in segments]

    def _enter(self, window: LiveWindow, pieces: list[Range]) -> None:
        """Fill the exact tables with the registers that lie in the window's visible pieces."""
        bank, base, device = window.bank, window.base or 0, window.device
        settle = device.settle if device.has_lines else None
        undo = self.undo_of(device)
        hidden = subtract([(base, base + window.size - 1)], pieces)
        for (offset, size), reader in bank.exact_readers.items():
            if not _touches(hidden, base + offset, size):
                plain = (offset, size) in bank.plain_reads
                entry = (reader, None, device, None) if plain else (reader, settle, device, undo)
                self.reads[window.space, size][base + offset] = entry
        for (offset, size), writer in bank.exact_writers.items():
            if not _touches(hidden, base + offset, size):
                self.writes[window.space, size][base + offset] = (writer, settle, device, undo)
        memory = bank.only_memory()
        if memory is not None and window.space == MEMORY and not device.has_lines:
            self._enter_memory(base + memory[0], memory[1], pieces)

    def _enter_memory(self, base: int, view: memoryview[int], pieces: list[Range]) -> None:
        for first, last in pieces:
            low, end = max(first, base), min(last + 1, base + len(view))
            if low < end:
                self.memory.append((low, end - low, view[low - base : end - base]))

    def memory_at(self, address: int) -> Memory | None:
        """The plain memory at an address: whoever writes into it need tell no device."""
        for memory in self.memory:
            if 0 <= address - memory[0] < memory[1]:
                return memory
        return None

    def remember(
        self, space: int, address: int, size: int, window: LiveWindow, offset: int
    ) -> None:
        """Enter a read of several registers, or of a part of one, that a guest has made.

        What can be entered is bounded by the bytes of the windows' registers.
        """
        table = self.reads[space, size]
        reader = None if address in table else window.bank.composed_reader(offset, size)
        if reader is not None:
            device = window.device
            settle = device.settle if device.has_lines else None
            table[address] = (reader, settle, device, self.undo_of(device))

    def _claim(self, space: int) -> list[HostError]:
        wanted = union(self._platform_range(space, first) for first in self._extents(space))
        claimed = self._claimed[space]
        problems: list[HostError] = []
        kept = list(claimed)
        for first, last in subtract(claimed, wanted):
            try:
                self._platform.release(space, first, last)
                kept = subtract(kept, [(first, last)])
            except HostError as error:
                problems.append(error)
        for first, last in subtract(wanted, claimed):
            try:
                self._platform.claim(space, first, last)
                kept = union([*kept, (first, last)])
            except HostError as error:
                problems.append(error)
        self._claimed[space] = kept
        return problems

    def _extents(self, space: int) -> list[Range]:
        return [
            (window.base, window.base + window.size - 1)
            for window in self._windows
            if window.space == space and window.base is not None
        ]

    @staticmethod
    def _platform_range(space: int, extent: Range) -> Range:
        """What the platform counts in: SBDFs in PCI space, addresses elsewhere."""
        if space == PCI:
            return extent[0] >> PCI_SHIFT, extent[1] >> PCI_SHIFT
        return extent

    def claimed(self, space: int) -> list[Range]:
        """What the platform was asked for and granted."""
        return list(self._claimed[space])

    def find(self, space: int, address: int) -> tuple[LiveWindow, int, int] | None:
        """The window at ``address``, the offset in it, and how many bytes it goes on from there."""
        index = bisect_right(self._starts[space], address) - 1
        if index < 0:
            return None
        last, window = self._segments[space][index]
        if address > last or window.base is None:
            return None
        return window, address - window.base, last - address + 1


def _touches(ranges: list[Range], address: int, size: int) -> bool:
    return any(first < address + size and address <= last for first, last in ranges)
