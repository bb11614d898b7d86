"""What of a register map the kit can declare, under which names; the rest becomes remarks.

The rules are those of `dm.device.bank_rules`, applied before there is a class to refuse.
"""

from __future__ import annotations

import keyword
import re
from typing import TYPE_CHECKING

from dm.device.bank import Bank
from dm.device.register import Register
from dm.errors import ConfigError

from .import_model import Kind, MapMemory, MapRegister

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .import_model import RegisterMap

__all__ = ["camel", "fit", "kind_of", "snake", "unique"]

WIDTHS = (8, 16, 32, 64)
LONGEST_NAME = 40
MOST_ELEMENTS = 1 << 14
"""Registers of a bank, elements of arrays counted: each is a cell of state."""
LARGEST = 1 << 24
"""Bytes of a bank, and of memory in it, which is saved with the device."""
PAGE = 0x1000

_BANK_NAMES = frozenset(dir(Bank)) | frozenset(Bank.__annotations__)
_REGISTER_NAMES = frozenset(dir(Register)) | frozenset(Register.__annotations__)


def fit(found: RegisterMap) -> None:
    """Change ``found`` until the kit can declare it; what goes is told in remarks.

    Raises ConfigError when there is nothing to declare or far too much.
    """
    for register in found.registers:
        _fit_fields(register)
    _move_to_zero(found)
    registers = [one for register in found.registers for one in _fit_shape(found, register)]
    count = sum(_count(register) for register in registers)
    if count > MOST_ELEMENTS:
        raise ConfigError(
            f"{found.name} has {count} registers; {MOST_ELEMENTS} are too many already"
        )
    found.registers = list(_without_overlaps(found, registers))
    found.memories = list(_fit_memories(found))
    if not found.registers and not found.memories:
        raise ConfigError(f"{found.name} has no registers that could be declared")
    _name_all(found)
    ends = [register.offset + _extent(register) for register in found.registers]
    ends += [memory.offset + memory.length for memory in found.memories]
    found.size = 1 << (max(*ends, found.size if found.size <= LARGEST else 0, 16) - 1).bit_length()


def kind_of(register: MapRegister) -> Kind:
    """What the register's bits have in common, for the kit's question who answers at an offset."""
    kinds = [one.kind for one in register.fields] or [register.kind]
    return kinds[0]._replace(
        readable=any(kind.readable for kind in kinds),
        stores=any(kind.writable for kind in kinds),
        clears=False,
        passes=False,
        read_clears=False,
    )


def _fit_fields(register: MapRegister) -> None:
    register.fields.sort(key=lambda one: one.low)
    claimed, kept = 0, []
    for one in register.fields:
        mask = (1 << one.high + 1) - (1 << one.low) if 0 <= one.low <= one.high else 0
        if not mask or one.high >= register.width:
            register.remarks.append(
                f"{one.name}, bits {one.high}:{one.low}, lies outside: left out"
            )
        elif mask & claimed:
            register.remarks.append(f"{one.name}, bits {one.high}:{one.low}, overlaps: left out")
        else:
            claimed |= mask
            kept.append(one)
    register.fields = kept
    full = (1 << register.width) - 1
    if register.reset & ~full:
        register.remarks.append(f"the reset value {register.reset:#x} is too wide: cut")
        register.reset &= full


def _move_to_zero(found: RegisterMap) -> None:
    """Count offsets from the first page that has something."""
    entries: list[MapRegister | MapMemory] = [*found.registers, *found.memories]
    base = min((entry.offset for entry in entries), default=0) // PAGE * PAGE
    if base:
        found.remarks.append(f"offsets count from {base:#x} of the file's block")
        found.size = max(found.size - base, 0)
    for entry in entries:
        entry.offset -= base


def _fit_shape(found: RegisterMap, register: MapRegister) -> Iterator[MapRegister]:
    """The register with one dimension at most: outer dimensions become registers of their own."""
    where = f"{register.name} at {register.offset:#x}"
    if register.width not in WIDTHS:
        found.remarks.append(f"{where} is {register.width} bits wide: left out")
        return
    merged: list[tuple[int, int]] = []
    for count, stride in register.dims:
        if merged and merged[-1][1] == count * stride:
            merged[-1] = (merged[-1][0] * count, stride)
        else:
            merged.append((count, stride))
    merged = [(count, stride) for count, stride in merged if count != 1]
    total = 1
    for count, stride in merged:
        total *= count
        if count < 1 or stride < register.width // 8:
            found.remarks.append(f"{where}: its elements overlap: left out")
            return
    if total > MOST_ELEMENTS:
        raise ConfigError(f"{where} has {total} elements; {MOST_ELEMENTS} are too many already")
    shapes = [("", register.offset)]
    for count, stride in merged[:-1]:
        shapes = [(f"{s}_{i}", at + i * stride) for s, at in shapes for i in range(count)]
    for suffix, offset in shapes:
        yield MapRegister(
            register.name + suffix,
            offset,
            register.width,
            register.kind,
            register.reset,
            register.fields,
            tuple(merged[-1:]),
            register.text,
            register.remarks,
        )


def _count(register: MapRegister) -> int:
    return register.dims[0][0] if register.dims else 1


def _extent(register: MapRegister) -> int:
    count, stride = register.dims[0] if register.dims else (1, 0)
    return (count - 1) * stride + register.width // 8


def _bytes(register: MapRegister) -> Iterator[int]:
    count, stride = register.dims[0] if register.dims else (1, 0)
    for index in range(count):
        first = register.offset + index * stride
        yield from range(first, first + register.width // 8)


def _sides(register: MapRegister) -> list[bool]:
    """Which accesses the kit takes the register to answer: True for reads, False for writes."""
    if not register.fields:
        used = ((True, register.kind.readable), (False, register.kind != Kind()))
    else:
        common = kind_of(register)
        both = common.readable == common.stores
        used = ((True, both or common.readable), (False, both or common.stores))
    return [side for side, is_used in used if is_used]


def _without_overlaps(found: RegisterMap, registers: list[MapRegister]) -> Iterator[MapRegister]:
    """The registers of which no two answer the same access at the same byte."""
    taken: dict[tuple[int, bool], str] = {}
    for register in sorted(registers, key=lambda one: one.offset):
        where = f"{register.name} at {register.offset:#x}"
        sides = _sides(register)
        if register.offset + _extent(register) > LARGEST:
            found.remarks.append(f"{where} lies beyond {LARGEST:#x}: left out")
            continue
        claims = [(byte, side) for byte in _bytes(register) for side in sides]
        other = next((taken[claim] for claim in claims if claim in taken), None)
        if other is not None:
            found.remarks.append(f"{where} overlaps {other}: left out")
            continue
        taken.update(dict.fromkeys(claims, register.name))
        yield register


def _fit_memories(found: RegisterMap) -> Iterator[MapMemory]:
    for memory in found.memories:
        if memory.length < 1 or memory.offset + memory.length > LARGEST:
            where = f"{memory.name}, {memory.length} bytes of memory at {memory.offset:#x}"
            found.remarks.append(f"{where}, has no room: left out")
        else:
            yield memory


def _name_all(found: RegisterMap) -> None:
    taken: set[str] = set()
    entries: list[MapRegister | MapMemory] = [*found.registers, *found.memories]
    for entry in entries:
        entry.name = unique(snake(entry.name, _BANK_NAMES), taken)
    for fields in {id(r.fields): r.fields for r in found.registers}.values():
        taken = set()
        for one in fields:
            one.name = unique(snake(one.name, _REGISTER_NAMES), taken)


def snake(text: str, reserved: frozenset[str] = frozenset()) -> str:
    """``text`` as the name of an attribute: ``IntEnable`` is ``int_enable``."""
    words = re.sub(r"[^0-9A-Za-z]+", "_", text)
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", words).lower().strip("_")
    name = re.sub(r"_+", "_", words)[:LONGEST_NAME].strip("_") or "unnamed"
    if name[0].isdigit():
        name = f"n{name}"
    return f"{name}_" if keyword.iskeyword(name) or name in reserved else name


def camel(text: str) -> str:
    """``text`` as the name of a class: ``int_enable`` is ``IntEnable``."""
    return "".join(part[:1].upper() + part[1:] for part in snake(text).split("_"))


def unique(name: str, taken: set[str]) -> str:
    """``name``, or with a number behind it when it is taken; it is taken afterwards."""
    joint = "" if name[:1].isupper() else "_"
    candidate, number = name, 2
    while candidate in taken or keyword.iskeyword(candidate):
        candidate = f"{name.rstrip('_')}{joint}{number}"
        number += 1
    taken.add(candidate)
    return candidate
