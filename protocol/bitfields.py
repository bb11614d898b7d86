"""How bit-fields of C and of registers, listed from bit 0 upwards, are declared to construct."""

from __future__ import annotations

from typing import Any

from construct import BitsInteger, BitStruct, ByteSwapped, Default

__all__ = ["bitfields", "is_padding"]


def is_padding(name: str) -> bool:
    """True for a field that the interface reserves: `pad…`, `reserved…` or a leading underscore."""
    return name.startswith(("_", "pad", "reserved"))


def bitfields(**widths: int) -> Any:
    """Declare a little-endian word that is divided into bit-fields.

    Construct writes bit-fields from the most significant bit down; C on x86-64 (System V ABI) and
    data sheets count from bit 0, and so does this.

    Args:
        widths: name and width in bits of each field, least significant first. Reserved fields are
            built as zero when no value is given.

    Raises:
        ValueError: the widths do not add up to 8, 16, 32 or 64 bits.
    """
    total = sum(widths.values())
    if total not in (8, 16, 32, 64):
        raise ValueError(f"bit-fields add up to {total} bits, not to a word")
    return ByteSwapped(BitStruct(*(_field(name, widths[name]) for name in reversed(list(widths)))))


def _field(name: str, width: int) -> Any:
    integer = BitsInteger(width)
    return name / (Default(integer, 0) if is_padding(name) else integer)
