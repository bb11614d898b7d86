"""What a device declares beside its registers: state, timers and options.

Everything a guest can observe later must be in a register or in one of these; a device refuses
attributes that nobody declared.
"""

from __future__ import annotations

from dm.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Generic, TypeVar, overload

    from .cells import DeviceCells, Layout

    F = TypeVar("F", bound=Callable[..., object])
    T = TypeVar("T", bound=int | str)

    class _Generic(Generic[T]):
        pass

else:

    class _Generic:
        """Stands in for ``typing.Generic``, whose import the process does not pay for."""

        def __class_getitem__(cls, _item):
            return cls

    T = None

__all__ = ["Fifo", "LiveFifo", "LiveTimer", "Memory", "Option", "Timer", "Transient", "Word"]


class Word:
    """``name = Word(bits)``: an unsigned integer that is part of the device's state."""

    def __init__(self, bits: int = 32, *, reset: int = 0) -> None:
        self.bits = bits
        self.reset = reset
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    if TYPE_CHECKING:

        @overload
        def __get__(self, device: None, owner: type) -> Word: ...
        @overload
        def __get__(self, device: Any, owner: type) -> int: ...

    def __get__(self, device: Any, owner: type) -> Word | int:
        if device is None:
            return self
        view, index = device._words[self.name]
        value: int = view[index]
        return value

    def __set__(self, device: Any, value: int) -> None:
        view, index = device._words[self.name]
        if value >> self.bits:
            raise ValueError(f"{self.name}: {value:#x} does not fit into {self.bits} bits")
        view[index] = value

    def layout(self, layout: Layout) -> None:
        """Add the cell."""
        layout.word(self.name, self.bits, self.reset)


class Memory:
    """``name = Memory(length)``: bytes that are part of the device's state, seen as a view."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    if TYPE_CHECKING:

        def __get__(self, device: Any, owner: type) -> memoryview[int]: ...

    def layout(self, layout: Layout) -> None:
        """Add the cell."""
        layout.memory(self.name, self.length)

    def bind(self, cells: DeviceCells) -> memoryview[int]:
        """The live view."""
        return cells.memory(self.name)


class Fifo:
    """``name = Fifo(capacity)``: a queue of bytes that is part of the device's state."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    if TYPE_CHECKING:

        def __get__(self, device: Any, owner: type) -> LiveFifo: ...

    def layout(self, layout: Layout) -> None:
        """Add the cells: read position, fill level, and the bytes."""
        layout.word(f"{self.name}.head", 32)
        layout.word(f"{self.name}.count", 32)
        layout.memory(f"{self.name}.bytes", self.capacity)

    def bind(self, cells: DeviceCells) -> LiveFifo:
        """The live queue."""
        head, count = cells.typed(f"{self.name}.head"), cells.typed(f"{self.name}.count")
        return LiveFifo(head, count, cells.memory(f"{self.name}.bytes"))


class LiveFifo:
    """The queue of a running device. Positions are taken modulo the capacity, whatever they say."""

    __slots__ = ("_bytes", "_count", "_head", "_words", "capacity")

    def __init__(
        self,
        head: tuple[memoryview[int], int],
        count: tuple[memoryview[int], int],
        data: memoryview[int],
    ) -> None:
        self._words = head[0]
        self._head = head[1]
        self._count = count[1]
        self._bytes = data
        self.capacity = len(data)

    def __len__(self) -> int:
        return min(self._words[self._count], self.capacity)

    @property
    def room(self) -> int:
        """How many bytes can be pushed."""
        return self.capacity - len(self)

    def push(self, byte: int) -> bool:
        """Append ``byte``; False (and nothing kept) when the queue is full."""
        count = len(self)
        if count >= self.capacity:
            return False
        self._bytes[(self._words[self._head] + count) % self.capacity] = byte
        self._words[self._count] = count + 1
        return True

    def peek(self) -> int:
        """The oldest byte; the queue must not be empty."""
        if not len(self):
            raise IndexError("the queue is empty")
        return self._bytes[self._words[self._head] % self.capacity]

    def pop(self) -> int:
        """Remove and give the oldest byte; the queue must not be empty."""
        byte = self.peek()
        self._words[self._head] = (self._words[self._head] + 1) % self.capacity
        self._words[self._count] = len(self) - 1
        return byte

    def clear(self) -> None:
        """Forget all bytes."""
        self._words[self._head] = 0
        self._words[self._count] = 0


class Timer:
    """``name = Timer()``: fires once at an absolute guest time; part of the device's state."""

    def __init__(self) -> None:
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    if TYPE_CHECKING:

        @overload
        def __get__(self, device: None, owner: type) -> Timer: ...
        @overload
        def __get__(self, device: Any, owner: type) -> LiveTimer: ...
        def __get__(self, device: Any, owner: type) -> Timer | LiveTimer: ...

    def layout(self, layout: Layout) -> None:
        """Add the cells: whether it is armed, and its deadline in nanoseconds of guest time."""
        layout.word(f"{self.name}.armed", 1)
        layout.word(f"{self.name}.deadline", 64)

    def expired(self, handler: F) -> F:
        """Call ``handler(self)`` when the timer fires."""
        handler._timer = self  # type: ignore[attr-defined]
        return handler


class LiveTimer:
    """The timer of a running device."""

    __slots__ = ("_armed", "_changed", "_deadline", "_now", "handler")

    def __init__(
        self,
        armed: tuple[memoryview[int], int],
        deadline: tuple[memoryview[int], int],
        now: Callable[[], int],
        changed: Callable[[LiveTimer], None],
        handler: Callable[[], object],
    ) -> None:
        self._armed = armed
        self._deadline = deadline
        self._now = now
        self._changed = changed
        self.handler = handler

    @property
    def armed(self) -> bool:
        """Whether it will fire."""
        view, index = self._armed
        return bool(view[index])

    @property
    def deadline(self) -> int:
        """When it fires: nanoseconds of guest time; meaningful while it is armed."""
        view, index = self._deadline
        return view[index]

    def start_at(self, deadline: int) -> None:
        """Fire at ``deadline``, nanoseconds of guest time (at once when that is past)."""
        view, index = self._deadline
        view[index] = min(max(deadline, 0), (1 << 64) - 1)
        view, index = self._armed
        view[index] = 1
        self._changed(self)

    def start_in(self, delay: int) -> None:
        """Fire ``delay`` nanoseconds from now."""
        self.start_at(self._now() + delay)

    def stop(self) -> None:
        """Do not fire."""
        view, index = self._armed
        view[index] = 0
        self._changed(self)


class Option(_Generic[T]):
    """``name = Option(int, default, "what it is")``: set by whoever adds the device.

    The attribute is the value. Integers are accepted decimal or with 0x, booleans as on/off.
    """

    def __init__(self, kind: type[T], default: T, doc: str) -> None:
        self.kind = kind
        self.default = default
        self.doc = doc
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    if TYPE_CHECKING:

        @overload
        def __get__(self, device: None, owner: type) -> Option[T]: ...
        @overload
        def __get__(self, device: Any, owner: type) -> T: ...
        def __get__(self, device: Any, owner: type) -> Option[T] | T: ...

    def parse(self, text: str) -> T:
        """The value that ``text`` means; ConfigError when it means none."""
        if self.kind is str:
            return text  # type: ignore[return-value]
        if self.kind is bool:
            values = {
                "on": True,
                "yes": True,
                "true": True,
                "off": False,
                "no": False,
                "false": False,
            }
            if text in values:
                return values[text]  # type: ignore[return-value]
            raise ConfigError(f"option {self.name}: {text!r} is neither on nor off")
        try:
            return int(text, 0)  # type: ignore[return-value]
        except ValueError:
            raise ConfigError(f"option {self.name}: {text!r} is not a number") from None


class Transient:
    """``name = Transient()``: a host-side attribute that no guest can observe and no save keeps."""

    def __init__(self) -> None:
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    if TYPE_CHECKING:

        def __get__(self, device: Any, owner: type) -> Any: ...
        def __set__(self, device: Any, value: Any) -> None: ...
