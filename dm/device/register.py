"""What a register is: named bit fields, access kinds, and the cell of state that holds its value.

A register class declares its fields once; ``at`` and ``array`` place it at an offset of a bank
(`dm.device.bank`). The object that a device sees at ``self.regs.control`` is *live*: its value and
its fields are read from and written to the machine's flat state buffer.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Generic, TypeVar, overload

    R = TypeVar("R", bound="Register")
    F = TypeVar("F", bound=Callable[..., object])

    class _Generic(Generic[R]):
        pass

else:

    class _Generic:
        """Stands in for ``typing.Generic``, whose import the process does not pay for."""

        def __class_getitem__(cls, _item):
            return cls

    R = None

__all__ = [
    "KEPT",
    "RC",
    "RO",
    "RW",
    "W1C",
    "WO",
    "Access",
    "Bit",
    "DeclarationError",
    "Field",
    "Register",
    "RegisterArray",
    "RegisterSlot",
]


class DeclarationError(TypeError):
    """A device declares something impossible; raised while its class is being defined."""


class Access:
    """How a bit answers the guest.

    ``readable``: reads give the stored value (else zero). ``stores``: writes are kept. ``clears``:
    writing one clears. ``passes``: the written value is handed to the write handler but not kept.
    ``read_clears``: reading clears.
    """

    __slots__ = ("clears", "name", "passes", "read_clears", "readable", "stores")

    def __init__(
        self,
        name: str,
        *,
        readable: bool = True,
        stores: bool = False,
        clears: bool = False,
        passes: bool = False,
        read_clears: bool = False,
    ) -> None:
        self.name = name
        self.readable = readable
        self.stores = stores
        self.clears = clears
        self.passes = passes
        self.read_clears = read_clears

    def __repr__(self) -> str:
        return self.name


RW = Access("RW", stores=True)
RO = Access("RO")
WO = Access("WO", readable=False, passes=True)
KEPT = Access("KEPT", readable=False, stores=True)
"""Written and kept, but another register answers the reads at its offset."""
W1C = Access("W1C", clears=True)
RC = Access("RC", read_clears=True)


class Field:
    """Bits ``high`` down to ``low`` of a register.

    On a live register it reads and writes as an integer; on the register class it is this object,
    whose ``of`` extracts the field from a plain integer. ``access`` defaults to the register's.
    ``names`` maps values to names for traces and documentation.
    """

    __slots__ = ("access", "high", "low", "mask", "name", "names")

    def __init__(
        self,
        high: int,
        low: int,
        *,
        access: Access | None = None,
        names: Mapping[int, str] | None = None,
    ) -> None:
        if not 0 <= low <= high < 64:
            raise DeclarationError(f"a field cannot have bits {high}..{low}")
        self.high = high
        self.low = low
        self.access = access
        self.names = names
        self.mask = ((1 << (high - low + 1)) - 1) << low
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    if TYPE_CHECKING:

        @overload
        def __get__(self, register: None, owner: type) -> Field: ...
        @overload
        def __get__(self, register: Register, owner: type) -> int: ...

    def __get__(self, register: Register | None, owner: type) -> Field | int:
        if register is None:
            return self
        return (register._cells[register._index] & self.mask) >> self.low

    def __set__(self, register: Register, value: int) -> None:
        shifted = value << self.low
        if shifted & ~self.mask:
            raise ValueError(f"{value:#x} does not fit into field {self.name}")
        cells, index = register._cells, register._index
        cells[index] = cells[index] & ~self.mask | shifted

    def of(self, value: int) -> int:
        """The field's part of ``value``, an integer of the register's width."""
        return (value & self.mask) >> self.low


class Bit(Field):
    """One bit of a register; reads as 0 or 1."""

    __slots__ = ()

    def __init__(self, position: int, *, access: Access | None = None) -> None:
        super().__init__(position, position, access=access)


class Register:
    """One register. Subclasses name its fields; without fields every bit is the register's own.

    Class keywords: ``width`` in bits (8, 16, 32 or 64; left out, the bank's width), ``reset`` (the
    value after reset) and ``access`` (for every bit that no field claims otherwise). Bits that no
    field of a register with fields names are reserved: they keep their reset value.
    """

    __slots__ = ("_cells", "_index")
    _cells: memoryview[int]
    _index: int

    fields: Mapping[str, Field] = {}
    masks: Mapping[Access | None, int] = {}
    """The bits of all fields that have the same access; None: the slot's."""
    default_width: int | None = None
    default_reset: int = 0
    default_access: Access = RW

    def __init_subclass__(
        cls,
        width: int | None = None,
        reset: int | None = None,
        access: Access | None = None,
    ) -> None:
        super().__init_subclass__()
        fields = dict(cls.fields)
        masks: dict[Access | None, int] = {}
        claimed = 0
        for name, value in cls.__dict__.items():
            if isinstance(value, Field):
                fields[name] = value
        for field in fields.values():
            if field.name in Register.__dict__ or field.name in object.__dict__:
                raise DeclarationError(f"{cls.__name__}.{field.name}: the name is the kit's own")
            if claimed & field.mask:
                raise DeclarationError(f"{cls.__name__}.{field.name} overlaps another field")
            claimed |= field.mask
            masks[field.access] = masks.get(field.access, 0) | field.mask
        cls.fields = fields
        cls.masks = masks
        if width is not None:
            cls.default_width = width
        if reset is not None:
            cls.default_reset = reset
        if access is not None:
            cls.default_access = access

    def __init__(self, cells: memoryview[int], index: int) -> None:
        object.__setattr__(self, "_cells", cells)
        object.__setattr__(self, "_index", index)

    def __setattr__(self, name: str, value: object) -> None:
        if name != "value" and name not in self.fields:
            raise AttributeError(f"{type(self).__name__} has no field {name!r}")
        object.__setattr__(self, name, value)

    @property
    def value(self) -> int:
        """The stored value: all bits, no access rule applied."""
        return self._cells[self._index]

    @value.setter
    def value(self, value: int) -> None:
        self._cells[self._index] = value

    def __repr__(self) -> str:
        fields = " ".join(
            f"{name}={field.of(self.value):#x}" for name, field in self.fields.items()
        )
        return f"<{type(self).__name__} {self.value:#x}{' ' if fields else ''}{fields}>"

    @classmethod
    def at(
        cls: type[R],
        offset: int,
        *,
        width: int | None = None,
        reset: int | None = None,
        access: Access | None = None,
        when: tuple[RegisterSlot[Any], Field, int] | None = None,
        writable: int | None = None,
        exact: bool = False,
    ) -> RegisterSlot[R]:
        """Place this register ``offset`` bytes into a bank.

        ``when``: the register answers only while another register's field has a value (see
        `RegisterSlot.has`); several registers may then share an offset. ``writable``: a mask that
        replaces the writable bits that the fields give. ``exact``: only an access of exactly this
        offset and width reaches the register, so that it may overlap registers of other widths.
        """
        return RegisterSlot(cls, offset, width, reset, access, when, writable, exact=exact)

    @classmethod
    def array(
        cls: type[R],
        offset: int,
        count: int,
        *,
        stride: int | None = None,
        width: int | None = None,
        reset: int | None = None,
        access: Access | None = None,
    ) -> RegisterArray[R]:
        """Place ``count`` of this register, ``stride`` bytes apart (default: its own width)."""
        return RegisterArray(cls, offset, count, stride, width, reset, access)


class RegisterSlot(_Generic[R]):
    """A register at its place in a bank: the masks that its declaration implies.

    On the bank class it offers the handler decorators; on a bank of a running device the attribute
    is the live register.
    """

    def __init__(
        self,
        register: type[R],
        offset: int,
        width: int | None,
        reset: int | None,
        access: Access | None,
        when: tuple[RegisterSlot[Any], Field, int] | None = None,
        writable: int | None = None,
        *,
        exact: bool = False,
    ) -> None:
        self.register = register
        self.offset = offset
        self.width = width if width is not None else register.default_width
        self.reset = register.default_reset if reset is None else reset
        self.access = register.default_access if access is None else access
        self.when = when
        self.writable = writable
        self.exact = exact
        self.name = ""
        self.origin: RegisterSlot[Any] = self

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def variant(self, *, reset: int | None = None, writable: int | None = None) -> RegisterSlot[R]:
        """The same register with another reset value or other writable bits.

        Handlers that were declared for the original serve the variant too.
        """
        slot = RegisterSlot(
            self.register,
            self.offset,
            self.width,
            self.reset if reset is None else reset,
            self.access,
            self.when,
            self.writable if writable is None else writable,
            exact=self.exact,
        )
        slot.name = self.name
        slot.origin = self.origin
        return slot

    def has(self, field: Field, value: int = 1) -> tuple[RegisterSlot[Any], Field, int]:
        """A condition for ``when``: this register's ``field`` equals ``value``."""
        return (self, field, value)

    if TYPE_CHECKING:

        @overload
        def __get__(self, bank: None, owner: type) -> RegisterSlot[R]: ...
        @overload
        def __get__(self, bank: object, owner: type) -> R: ...

    def __get__(self, bank: object | None, owner: type) -> RegisterSlot[R] | R:
        if bank is not None:
            raise AttributeError(f"bank {owner.__name__} belongs to no running device")
        return self

    @property
    def size(self) -> int:
        """Bytes that the register occupies."""
        return (self.width or 0) // 8

    @property
    def full_mask(self) -> int:
        """All bits of the register's width."""
        return (1 << (self.width or 0)) - 1

    def mask(self, kind: str) -> int:
        """The bits whose access has the property ``kind`` (an attribute of `Access`)."""
        if self.writable is not None and kind == "stores":
            return self.writable
        masks = self.register.masks
        if not masks:
            return self.full_mask if getattr(self.access, kind) else 0
        bits = declared = 0
        for access, mask in masks.items():
            declared |= mask
            if getattr(access or self.access, kind):
                bits |= mask
        return bits | self.full_mask & ~declared if kind == "readable" else bits

    def on_write(self, handler: F) -> F:
        """Call ``handler(self, new, old)`` after a write; integers, access rules applied.

        Bits with access WO are in ``new`` as written, though they are not kept.
        """
        return _handles(handler, self, "write")

    def on_read(self, handler: F) -> F:
        """Ask ``handler(self) -> int`` for the value of each read instead of the stored one."""
        return _handles(handler, self, "read")

    def computed(self, handler: F) -> F:
        """The same, where the value only depends on state and the handler changes none."""
        return _handles(handler, self, "compute")

    def on_read_block(self, handler: F) -> F:
        """Ask ``handler(self, size, count) -> bytes`` for ``count`` elements of ``size`` bytes."""
        return _handles(handler, self, "read_block")

    def on_write_block(self, handler: F) -> F:
        """Hand ``handler(self, size, data)`` the elements of a string write, as bytes."""
        return _handles(handler, self, "write_block")


class RegisterArray(_Generic[R]):
    """``count`` registers of one class at equal distances; handlers get the index first."""

    def __init__(
        self,
        register: type[R],
        offset: int,
        count: int,
        stride: int | None,
        width: int | None,
        reset: int | None,
        access: Access | None,
    ) -> None:
        if count < 1:
            raise DeclarationError("a register array needs at least one element")
        self.element = RegisterSlot(register, offset, width, reset, access)
        self.count = count
        self.stride = stride
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name
        self.element.name = name

    if TYPE_CHECKING:

        @overload
        def __get__(self, bank: None, owner: type) -> RegisterArray[R]: ...
        @overload
        def __get__(self, bank: object, owner: type) -> tuple[R, ...]: ...

    def __get__(self, bank: object | None, owner: type) -> RegisterArray[R] | tuple[R, ...]:
        if bank is not None:
            raise AttributeError(f"bank {owner.__name__} belongs to no running device")
        return self

    def on_write(self, handler: F) -> F:
        """Call ``handler(self, index, new, old)`` after a write to element ``index``."""
        return _handles(handler, self.element, "write")

    def on_read(self, handler: F) -> F:
        """Ask ``handler(self, index) -> int`` for the value of each read of element ``index``."""
        return _handles(handler, self.element, "read")


def _handles(handler: F, slot: RegisterSlot[Any], event: str) -> F:
    """Mark ``handler``; the device class finds the mark when it is defined."""
    marks = list(getattr(handler, "_register_events", ()))
    marks.append((slot.origin, event))
    handler._register_events = marks  # type: ignore[attr-defined]
    return handler
