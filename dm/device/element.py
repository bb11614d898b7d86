"""How one register of a bound bank is reached: its reader, its writer, compiled once."""

from __future__ import annotations

from .register import RO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .register import RegisterSlot

    Reader = Callable[[], int]
    Writer = Callable[[int], object]
    Events = Callable[[RegisterSlot[Any]], dict[str, Callable[..., Any]]]

__all__ = ["ByteWriter", "Element", "bind_element"]


class ByteWriter:
    """Writes some bytes of one register: the general form of a register write."""

    __slots__ = ("cells", "clears", "full", "handler", "index", "passes", "stores")

    def __init__(
        self,
        slot: RegisterSlot[Any],
        cells: memoryview[int],
        index: int,
        handler: Callable[[int, int], object] | None,
    ) -> None:
        self.cells = cells
        self.index = index
        self.stores = slot.mask("stores")
        self.clears = slot.mask("clears")
        self.passes = slot.mask("passes")
        self.full = slot.full_mask
        self.handler = handler

    def __call__(self, value: int, enabled: int = -1) -> None:
        """Write ``value`` where ``enabled`` has bits set, by the register's access rules."""
        old = self.cells[self.index]
        stores = self.stores & enabled
        new = (old & ~stores | value & stores) & ~(value & self.clears & enabled)
        self.cells[self.index] = new
        if self.handler is not None:
            self.handler(new | value & self.passes & enabled, old)

    def whole(self) -> Writer:
        """The same for all bytes at once, as little code as the access rules need."""
        cells, index, full, handler = self.cells, self.index, self.full, self.handler
        if self.stores != full or self.passes:
            return self
        if handler is None:

            def store(value: int) -> None:
                cells[index] = value & full

            return store
        react = handler

        def store_and_react(value: int) -> None:
            old = cells[index]
            cells[index] = new = value & full
            react(new, old)

        return store_and_react


class Element:
    """One register at one offset of a bound bank."""

    __slots__ = (
        "block_reader",
        "block_writer",
        "changes_nothing",
        "index",
        "offset",
        "reader",
        "size",
        "slot",
        "when",
        "writer",
    )

    def __init__(self, slot: RegisterSlot[Any], offset: int, index: int | None) -> None:
        self.slot = slot
        self.offset = offset
        self.index = index
        self.size = slot.size
        self.reader: Reader | None = None
        self.writer: ByteWriter | None = None
        self.block_reader: Callable[[int, int], bytes] | None = None
        self.block_writer: Callable[[int, bytes], object] | None = None
        self.when: Callable[[], bool] | None = None
        self.changes_nothing = False


def bind_element(
    slot: RegisterSlot[Any],
    offset: int,
    index: int | None,
    view: memoryview[int],
    position: int,
    events: Events,
) -> Element:
    """Compile one register's reader and writer."""
    element = Element(slot, offset, index)
    event = events(slot).get
    element.block_reader = event("read_block")
    element.block_writer = event("write_block")
    compute = _with_index(event("compute"), index)
    on_read = compute or _with_index(event("read"), index)
    on_write = _with_index(event("write"), index)
    if slot.access.readable or on_read is not None:
        element.reader = _reader(slot, view, position, on_read)
        plain = on_read is None and not slot.mask("read_clears")
        element.changes_nothing = plain or compute is not None
    if slot.access is not RO or slot.mask("stores") or slot.mask("clears") or on_write:
        element.writer = ByteWriter(slot, view, position, on_write)
    return element


def _with_index(handler: Callable[..., Any] | None, index: int | None) -> Callable[..., Any] | None:
    if handler is None or index is None:
        return handler
    bound = handler

    def indexed(*arguments: int) -> Any:
        return bound(index, *arguments)

    return indexed


def _reader(
    slot: RegisterSlot[Any],
    view: memoryview[int],
    position: int,
    on_read: Callable[[], int] | None,
) -> Reader:
    readable = slot.mask("readable")
    read_clears = slot.mask("read_clears")
    full = slot.full_mask
    if on_read is not None:
        handler = on_read

        def ask() -> int:
            return handler() & full

        return ask
    if read_clears:

        def take() -> int:
            value = view[position]
            view[position] = value & ~read_clears
            return value & readable

        return take
    if readable == full:

        def stored() -> int:
            return view[position]

        return stored

    def masked() -> int:
        return view[position] & readable

    return masked
