"""What a construct declaration says about offsets, sizes, struct formats and bit masks.

Both the generator of `protocol.layouts` and the comparison with C headers read declarations here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from construct import (
    Array,
    Bytes,
    Const,
    Default,
    FormatField,
    Padded,
    Rebuild,
    Renamed,
    SizeofError,
    Struct,
    Transformed,
)

__all__ = ["BitField", "Field", "Layout", "inspect_bits", "inspect_layout", "is_struct", "is_word"]

_WORD_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}
_FIXED_SIZE_CODES = str.maketrans("Ll", "Ii")
_TRANSPARENT = (Renamed, Default, Rebuild, Const)


@dataclass(frozen=True)
class BitField:
    """One bit-field: its name, lowest bit and mask within the word that holds it."""

    name: str
    shift: int
    mask: int


@dataclass(frozen=True)
class Field:
    """One field: name (empty for unnamed padding), offset and size in bytes, struct code.

    `order` is the struct module's byte-order character, empty where order means nothing.
    """

    name: str
    offset: int
    size: int
    code: str
    order: str
    bits: tuple[BitField, ...]


@dataclass(frozen=True)
class Layout:
    """The fields of a Struct up to its first field of variable size, if it has one."""

    name: str
    fields: tuple[Field, ...]
    complete: bool

    @property
    def size(self) -> int:
        """Bytes that the fields cover."""
        return sum(field.size for field in self.fields)

    @property
    def format(self) -> str:
        """The fields as a format of the struct module; aggregates appear as bytes.

        Raises:
            ValueError: the fields do not share one byte order.
        """
        orders = {field.order for field in self.fields} - {""}
        if len(orders) > 1:
            raise ValueError(f"{self.name} mixes byte orders")
        return (orders.pop() if orders else "<") + "".join(field.code for field in self.fields)


def is_struct(declaration: object) -> bool:
    """True for a Struct, named or not."""
    return isinstance(_unwrap(declaration), Struct)


def is_word(declaration: object) -> bool:
    """True for a word divided into bit-fields."""
    return isinstance(_unwrap(declaration), Transformed)


def inspect_layout(declaration: Any) -> Layout:
    """Lay out a Struct declaration."""
    fields: list[Field] = []
    offset = 0
    for subcon in _unwrap(declaration).subcons:
        try:
            size = subcon.sizeof()
        except SizeofError:
            return Layout(declaration.name, tuple(fields), complete=False)
        code, order = _struct_code(subcon)
        fields.append(Field(subcon.name or "", offset, size, code, order, inspect_bits(subcon)))
        offset += size
    return Layout(declaration.name, tuple(fields), complete=True)


def _unwrap(declaration: Any) -> Any:
    while isinstance(declaration, _TRANSPARENT):
        declaration = declaration.subcon
    return declaration


def _struct_code(declaration: Any) -> tuple[str, str]:
    """Return the struct code of one field and the byte order that it needs."""
    core = _unwrap(declaration)
    size = core.sizeof()
    if isinstance(core, FormatField):
        order, code = core.fmtstr
        return code.translate(_FIXED_SIZE_CODES), order if size > 1 else ""
    if isinstance(core, Array) and isinstance(_unwrap(core.subcon), FormatField):
        code, order = _struct_code(core.subcon)
        return f"{core.count}{code}", order
    if isinstance(core, Transformed):
        return _WORD_CODES[size], "<" if size > 1 else ""
    if isinstance(core, Padded) and not isinstance(core, Bytes):
        return f"{size}x", ""
    return f"{size}s", ""


def inspect_bits(declaration: Any) -> tuple[BitField, ...]:
    """Find each bit-field of a word, from bit 0 up; nothing in a field that is no such word.

    A mask is what building the word with that field alone set gives.
    """
    word = _unwrap(declaration)
    inner = word
    while isinstance(inner, Transformed):
        inner = inner.subcon
    if inner is word:
        return ()
    widths = {subcon.name: _unwrap(subcon).length for subcon in inner.subcons}
    found = []
    for name, width in reversed(widths.items()):
        only = {other: (1 << width) - 1 if other == name else 0 for other in widths}
        mask = int.from_bytes(word.build(only), "little")
        found.append(BitField(name, (mask & -mask).bit_length() - 1, mask))
    return tuple(found)
