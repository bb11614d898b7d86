"""What a bank is: registers and memory at offsets, and how an access of any shape reaches them.

A `Bank` subclass is a declaration. When a device is built, an instance of it is *bound*: each
register becomes live and two tables, (offset, size) to a callable, are compiled for the accesses
that match a register exactly. Every other shape (wider, narrower, misaligned, straddling) is
composed from whole registers by one general rule: each register touched is read or written once,
bytes that nothing claims read as the bank's gap byte.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from .bank_rules import check_declaration
from .element import Element, bind_element
from .register import RegisterArray, RegisterSlot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from .cells import DeviceCells
    from .element import Events, Reader, Writer

__all__ = ["Bank", "BankMemory"]


class BankMemory:
    """``length`` bytes of plain memory inside a bank, at ``offset``; part of the device's state.

    On a running device the attribute is a writable view of the bytes.
    """

    def __init__(self, offset: int, length: int, *, writable: bool = True) -> None:
        self.offset = offset
        self.length = length
        self.writable = writable
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    if TYPE_CHECKING:

        def __get__(self, bank: Bank, owner: type) -> memoryview[int]: ...


class Bank:
    """A set of registers that is mapped as a whole: ports, an MMIO window, a BAR, a PCI function.

    Class keywords: ``size`` in bytes; ``width``, the width in bits of registers that declare none;
    ``gap``, the byte that undeclared offsets read as; ``sizes``, the access sizes in bytes that
    the hardware answers at all (others read as gap bytes and write nothing).
    """

    size: int = 0
    default_width: int = 32
    gap: int = 0xFF
    sizes: tuple[int, ...] = (1, 2, 4, 8)
    slots: dict[str, RegisterSlot[Any] | RegisterArray[Any]] = {}
    memories: dict[str, BankMemory] = {}

    def __init_subclass__(
        cls,
        size: int | None = None,
        width: int | None = None,
        gap: int | None = None,
        sizes: tuple[int, ...] | None = None,
    ) -> None:
        super().__init_subclass__()
        cls.size = cls.size if size is None else size
        cls.default_width = cls.default_width if width is None else width
        cls.gap = cls.gap if gap is None else gap
        cls.sizes = cls.sizes if sizes is None else sizes
        cls.slots = dict(cls.slots)
        cls.memories = dict(cls.memories)
        for name, value in list(cls.__dict__.items()):
            if isinstance(value, RegisterSlot | RegisterArray):
                cls.slots[name] = value
            elif isinstance(value, BankMemory):
                cls.memories[name] = value
        check_declaration(cls)

    def __init__(self) -> None:
        raise TypeError("a bank is bound by the machine, not constructed")

    @classmethod
    def registers(cls) -> Iterator[tuple[str, RegisterSlot[Any], int, int | None]]:
        """Each register as (name, slot, offset, index in its array or None)."""
        for name, slot in cls.slots.items():
            if isinstance(slot, RegisterSlot):
                yield name, slot, slot.offset, None
                continue
            stride = slot.stride or slot.element.size
            for index in range(slot.count):
                yield f"{name}[{index}]", slot.element, slot.element.offset + index * stride, index

    @classmethod
    def bind(cls, cells: DeviceCells, prefix: str, events: Events) -> Bank:
        """Make the live bank whose cells are named ``prefix``.NAME in ``cells``."""
        bank = object.__new__(cls)
        bank._elements = []
        bank._memory = []
        live: dict[str, list[Any]] = {}
        by_slot: dict[RegisterSlot[Any], Any] = {}
        for name, slot, offset, index in cls.registers():
            view, position = cells.typed(f"{prefix}.{name}")
            register = slot.register(view, position)
            if index is None:
                bank.__dict__[name] = register
                by_slot[slot.origin] = register
            else:
                live.setdefault(slot.name, []).append(register)
            bank._elements.append(bind_element(slot, offset, index, view, position, events))
        for name, registers in live.items():
            bank.__dict__[name] = tuple(registers)
        for element in bank._elements:
            if element.slot.when is not None:
                other, field, value = element.slot.when
                element.when = _condition(by_slot[other.origin], field.name, value)
        for name, memory in cls.memories.items():
            view = cells.memory(f"{prefix}.{name}")
            bank.__dict__[name] = view
            bank._memory.append((memory.offset, memory.length, view, memory.writable))
        bank._compile()
        return bank

    _elements: list[Element]
    _memory: list[tuple[int, int, memoryview[int], bool]]
    exact_readers: dict[tuple[int, int], Reader]
    exact_writers: dict[tuple[int, int], Writer]
    plain_reads: set[tuple[int, int]]
    """Those of `exact_readers` that only give a stored value: no line can change by them."""
    _by_byte: dict[int, list[Element]]
    _register_bytes: list[int]
    _exact: dict[tuple[int, int], Element]
    _only_memory: tuple[int, int, memoryview[int], bool] | None

    def _compile(self) -> None:
        self._by_byte = {}
        self._exact = {(e.offset, e.size): e for e in self._elements if e.slot.exact}
        for element in self._elements:
            for byte in range(0 if element.slot.exact else element.size):
                self._by_byte.setdefault(element.offset + byte, []).append(element)
        self._register_bytes = sorted(self._by_byte)
        alone = len(self._memory) == 1 and not self._elements
        self._only_memory = self._memory[0] if alone else None
        self.exact_readers = {}
        self.plain_reads = set()
        self.exact_writers = {}
        conditions = any(element.when is not None for element in self._elements)
        for element in self._elements:
            key = (element.offset, element.size)
            if element.size not in self.sizes:
                continue
            if conditions and not self._stands_alone(element):
                self._compile_choice(key)
                continue
            if element.reader is not None:
                self.exact_readers[key] = element.reader
                if element.changes_nothing:
                    self.plain_reads.add(key)
            if element.writer is not None:
                self.exact_writers[key] = element.writer.whole()

    def _stands_alone(self, element: Element) -> bool:
        """Whether no condition decides who answers at the element's bytes."""
        if element.slot.exact:
            return True
        around = self._by_byte[element.offset]
        return all(other.when is None for other in around)

    def _compile_choice(self, key: tuple[int, int]) -> None:
        """Let conditions choose among registers that share their place and width exactly."""
        offset, size = key
        sharing = [other for byte in range(offset, offset + size) for other in self._by_byte[byte]]
        if key in self.exact_readers or any((o.offset, o.size) != key for o in sharing):
            return
        find = self._find
        nothing = int.from_bytes(bytes((self.gap,)) * size, "little")

        def read() -> int:
            element = find(offset, True)
            return nothing if element is None or element.reader is None else element.reader()

        def write(value: int) -> None:
            element = find(offset, False)
            if element is not None and element.writer is not None:
                element.writer(value)

        self.exact_readers[key] = read
        self.exact_writers[key] = write

    def _find(self, byte: int, reading: bool) -> Element | None:
        for element in self._by_byte.get(byte, ()):
            side = element.reader if reading else element.writer
            if side is not None and (element.when is None or element.when()):
                return element
        return None

    def _find_memory(self, byte: int) -> tuple[int, int, memoryview[int], bool] | None:
        for memory in self._memory:
            if memory[0] <= byte < memory[0] + memory[1]:
                return memory
        return None

    def _next_register(self, byte: int) -> int:
        """The first byte behind ``byte`` that a register has; far away when there is none."""
        index = bisect_right(self._register_bytes, byte)
        return self._register_bytes[index] if index < len(self._register_bytes) else 1 << 64

    def read(self, offset: int, size: int) -> int:
        """Read ``size`` bytes at ``offset``: exact registers at once, all else composed."""
        reader = self.exact_readers.get((offset, size))
        if reader is not None:
            return reader()
        if size not in self.sizes:
            return int.from_bytes(bytes((self.gap,)) * size, "little")
        if self._only_memory is not None:
            start, length, view, _ = self._only_memory
            if start <= offset and offset + size <= start + length:
                return int.from_bytes(view[offset - start : offset - start + size], "little")
        return int.from_bytes(self.read_bytes(offset, size), "little")

    def composed_reader(self, offset: int, size: int) -> Reader | None:
        """What `read` does at ``offset``, compiled; None unless whole registers or parts of them,
        of which no condition decides, are all that is read.
        """
        if size not in self.sizes:
            return None
        parts: list[tuple[Reader, int, int, int]] = []
        position, end = offset, offset + size
        while position < end:
            around = self._by_byte.get(position, ())
            element = next((e for e in around if e.reader is not None), None)
            if element is None or element.reader is None or any(e.when for e in around):
                return None
            first = position - element.offset
            take = min(element.size - first, end - position)
            mask = (1 << 8 * take) - 1
            parts.append((element.reader, 8 * first, mask, 8 * (position - offset)))
            position += take

        def composed() -> int:
            value = 0
            for reader, down, mask, up in parts:
                value |= (reader() >> down & mask) << up
            return value

        return composed

    def write(self, offset: int, size: int, value: int) -> None:
        """Write the low ``size`` bytes of ``value`` at ``offset``."""
        if self._only_memory is not None and size in self.sizes:
            start, length, view, writable = self._only_memory
            if start <= offset and offset + size <= start + length:
                if writable and size == 1:
                    view[offset - start] = value & 0xFF
                elif writable:
                    data = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
                    view[offset - start : offset - start + size] = data
                return
        writer = self.exact_writers.get((offset, size))
        if writer is not None:
            writer(value)
        elif size in self.sizes:
            self.write_bytes(offset, (value & (1 << 8 * size) - 1).to_bytes(size, "little"))

    def read_bytes(self, offset: int, length: int) -> bytes:
        """Read ``length`` bytes, each register touched read once, ascending."""
        out = bytearray((self.gap,)) * length
        position = offset
        end = offset + length
        while position < end:
            element = self._find(position, reading=True)
            if element is not None and element.reader is not None:
                first = position - element.offset
                take = min(element.size - first, end - position)
                value = element.reader() >> 8 * first & (1 << 8 * take) - 1
                out[position - offset : position - offset + take] = value.to_bytes(take, "little")
                position += take
                continue
            memory = self._find_memory(position)
            if memory is None:
                position += 1
                continue
            start, size, view, _ = memory
            take = min(start + size, end, self._next_register(position)) - position
            out[position - offset : position - offset + take] = view[
                position - start : position - start + take
            ]
            position += take
        return bytes(out)

    def write_bytes(self, offset: int, data: bytes | memoryview[int]) -> None:
        """Write ``data``, each register touched written once with its bytes enabled, ascending."""
        position = offset
        end = offset + len(data)
        while position < end:
            element = self._find(position, reading=False)
            if element is not None and element.writer is not None:
                first = position - element.offset
                take = min(element.size - first, end - position)
                part = int.from_bytes(data[position - offset : position - offset + take], "little")
                element.writer(part << 8 * first, ((1 << 8 * take) - 1) << 8 * first)
                position += take
                continue
            memory = self._find_memory(position)
            if memory is None:
                position += 1
                continue
            start, size, view, writable = memory
            take = min(start + size, end, self._next_register(position)) - position
            if writable:
                view[position - start : position - start + take] = data[
                    position - offset : position - offset + take
                ]
            position += take

    def read_string(self, offset: int, size: int, count: int) -> bytes:
        """Read ``count`` elements of ``size`` bytes, all at ``offset`` (a port's `rep ins`)."""
        element = self._exact.get((offset, size)) or self._find(offset, reading=True)
        if (
            element is not None
            and element.block_reader is not None
            and element.offset == offset
            and size in self.sizes
        ):
            data = element.block_reader(size, count)
            if len(data) != size * count:
                raise ValueError(f"block of {len(data)} bytes where {size * count} were asked for")
            return data
        read = self.read
        return b"".join([read(offset, size).to_bytes(size, "little") for _ in range(count)])

    def write_string(self, offset: int, size: int, data: bytes) -> None:
        """Write the elements of ``data``, ``size`` bytes each, all to ``offset``."""
        element = self._exact.get((offset, size)) or self._find(offset, reading=False)
        if (
            element is not None
            and element.block_writer is not None
            and element.offset == offset
            and size in self.sizes
        ):
            element.block_writer(size, data)
            return
        for position in range(0, len(data), size):
            self.write(offset, size, int.from_bytes(data[position : position + size], "little"))

    def is_memory(self, offset: int, length: int) -> bool:
        """Whether all of the bytes are plain memory, so that they may be moved in one piece."""
        memory = self._find_memory(offset)
        if memory is None or offset + length > memory[0] + memory[1]:
            return False
        return offset not in self._by_byte and self._next_register(offset) >= offset + length

    def only_memory(self) -> tuple[int, memoryview[int]] | None:
        """The offset and the bytes of the writable memory that is all there is in the bank."""
        if self._only_memory is None or self.sizes != Bank.sizes:
            return None
        start, _, view, writable = self._only_memory
        return (start, view) if writable else None

    def touched(
        self, offset: int, length: int, reading: bool
    ) -> Iterator[tuple[str, RegisterSlot[Any], int]]:
        """The registers that an access to ``length`` bytes reaches: name, slot and offset of each.

        An element of an array is named with its index.
        """
        exact = self._exact.get((offset, length))
        found: list[Element | None] = [exact]
        if exact is None or (exact.reader if reading else exact.writer) is None:
            some = self._register_bytes
            inside = some[bisect_left(some, offset) : bisect_left(some, offset + length)]
            found = [self._find(byte, reading) for byte in inside]
        for element in dict.fromkeys(one for one in found if one is not None):
            slot, index = element.slot, element.index
            yield slot.name if index is None else f"{slot.name}[{index}]", slot, element.offset

    def describe(self, offset: int) -> str:
        """The name of what lies at ``offset``, for messages and traces."""
        for element in self._by_byte.get(offset, ()):
            if element.when is None or element.when():
                return element.slot.name
        for element in self._elements:
            if element.slot.exact and element.offset == offset:
                return element.slot.name
        memory = self._find_memory(offset)
        if memory is not None:
            return next(n for n, m in self.memories.items() if m.offset == memory[0])
        return f"+{offset:#x}"


def _condition(register: Any, field: str, value: int) -> Callable[[], bool]:
    def holds() -> bool:
        return bool(getattr(register, field) == value)

    return holds
