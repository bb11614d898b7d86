"""Which declarations of a bank are refused: what is misplaced, too wide, or overlaps in silence."""

from __future__ import annotations

from .register import RO, DeclarationError, RegisterSlot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .bank import Bank

__all__ = ["check_declaration"]

WIDTHS = (8, 16, 32, 64)


def check_declaration(cls: type[Bank]) -> None:
    """Complete widths and refuse registers that are misplaced or overlap in silence."""
    spans: dict[str, list[tuple[int, int, str]]] = {"read": [], "write": []}
    exact: dict[tuple[int, int, str], str] = {}
    if not 0 <= cls.gap <= 0xFF:
        raise DeclarationError(f"{cls.__name__}: the gap {cls.gap:#x} is not a byte")
    # The last base but `object` is `Bank` itself.
    own = cls.__mro__[-2].__dict__
    for name in (*cls.slots, *cls.memories):
        if name in own or name in object.__dict__:
            raise DeclarationError(f"{cls.__name__}.{name}: the name is the kit's own")
    for name, memory in cls.memories.items():
        end = memory.offset + memory.length
        if memory.offset < 0 or memory.length < 1 or (cls.size and end > cls.size):
            raise DeclarationError(f"{cls.__name__}.{name} lies outside the bank")
    for slot in cls.slots.values():
        single = slot if isinstance(slot, RegisterSlot) else slot.element
        if single.width is None:
            single.width = cls.default_width
        if single.width not in WIDTHS:
            raise DeclarationError(f"{cls.__name__}.{single.name}: {single.width} bits wide")
        wide = [f.name for f in single.register.fields.values() if f.mask & ~single.full_mask]
        if wide or (single.reset | (single.writable or 0)) & ~single.full_mask:
            raise DeclarationError(f"{cls.__name__}.{single.name}: wider than {single.width} bits")
    for name, slot, offset, _ in cls.registers():
        if offset < 0 or (cls.size and offset + slot.size > cls.size):
            raise DeclarationError(f"{cls.__name__}.{name} lies outside the bank")
        if slot.when is not None:
            _check_condition(cls, name, slot)
            continue
        for side, used in (("read", slot.access.readable), ("write", slot.access is not RO)):
            if used and exact.setdefault((offset, slot.size, side), name) != name:
                other = exact[offset, slot.size, side]
                raise DeclarationError(f"{cls.__name__}: {name} overlaps {other}")
            if used and not slot.exact:
                spans[side].append((offset, offset + slot.size, name))
    for taken in spans.values():
        _check_overlaps(cls, sorted(taken))


def _check_overlaps(cls: type[Bank], spans: list[tuple[int, int, str]]) -> None:
    free, holder = 0, ""
    for offset, end, name in spans:
        if offset < free:
            raise DeclarationError(f"{cls.__name__}: {name} overlaps {holder}")
        free, holder = end, name


def _check_condition(cls: type[Bank], name: str, slot: RegisterSlot[Any]) -> None:
    """A condition speaks of a field of a register in the same bank."""
    other, field, value = slot.when or (slot, None, 0)
    known = any(
        isinstance(s, RegisterSlot) and s.origin is other.origin for s in cls.slots.values()
    )
    if not known or field is None or other.register.fields.get(field.name) is not field:
        raise DeclarationError(f"{cls.__name__}.{name}: its condition is not of this bank")
    if value << field.low & ~field.mask:
        raise DeclarationError(f"{cls.__name__}.{name}: {field.name} is never {value:#x}")
