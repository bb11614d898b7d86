"""Values that a construct declaration can build, made from the declaration."""

from __future__ import annotations

from typing import Any

from construct import (
    Array,
    BitsInteger,
    Bytes,
    Const,
    Default,
    FixedSized,
    FormatField,
    Rebuild,
    Renamed,
    Struct,
    Switch,
    Transformed,
)
from hypothesis import strategies as st

_LONGEST = 40


def values(declaration: Any) -> st.SearchStrategy[Any]:
    """Values of one declaration; a Struct's are dictionaries without what it fills in itself."""
    core = _core(declaration)
    if isinstance(core, Struct):
        return st.fixed_dictionaries(
            {
                subcon.name: values(subcon)
                for subcon in core.subcons
                if subcon.name and not isinstance(subcon.subcon, Rebuild | Const)
            }
        )
    if isinstance(core, Transformed):
        return values(core.subcon)
    if isinstance(core, FormatField):
        bits = 8 * core.sizeof()
        if core.fmtstr[-1].islower():
            return st.integers(-(1 << bits - 1), (1 << bits - 1) - 1)
        return st.integers(0, (1 << bits) - 1)
    if isinstance(core, BitsInteger):
        return st.integers(0, 2**core.length - 1)
    if isinstance(core, Bytes):
        length = core.length
        return st.binary(max_size=_LONGEST) if callable(length) else _bytes(length)
    if isinstance(core, Array):
        if callable(core.count):
            return st.lists(values(core.subcon), max_size=3)
        return _repeated(values(core.subcon), core.count)
    if isinstance(core, FixedSized) and isinstance(core.subcon, Switch):
        return _bytes(core.length)
    raise TypeError(f"no values for {core!r}")


def _repeated(elements: st.SearchStrategy[Any], count: int) -> st.SearchStrategy[list[Any]]:
    """Lists of a length that hypothesis would not draw element by element."""
    pool = st.lists(elements, min_size=1, max_size=min(count, 7))
    return pool.map(lambda few: [few[index % len(few)] for index in range(count)])


def _bytes(length: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=length, max_size=length)


def _core(declaration: Any) -> Any:
    while isinstance(declaration, Renamed | Default):
        declaration = declaration.subcon
    return declaration
