"""What is built is parsed back, and the generated struct formats read the same values."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from construct import ConstructError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol.inspection import inspect_layout, is_struct, is_word
from tests.unit.protocol.c_facts import declarations
from tests.unit.protocol.c_names import MODULES
from tests.unit.protocol.strategies import values

# Structures whose count of elements lies in another structure or is checked: tested on their own.
COUNTED = ("STATE_CONTAINER", "HVM_E820_TABLE")

DECLARATIONS = {
    name: value
    for module in MODULES
    for name, value in declarations(module)
    if is_struct(value) or is_word(value)
}
BUILDABLE = [name for name in DECLARATIONS if name not in COUNTED and name != "DM_OP"]
FIXED = [
    name
    for name in BUILDABLE
    if is_struct(DECLARATIONS[name]) and inspect_layout(DECLARATIONS[name]).complete
]

quick = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.large_base_example]
)


def contains(parsed: Any, given_value: Any) -> bool:
    """True if what was parsed has everything that was given."""
    if isinstance(given_value, dict):
        return all(contains(parsed[key], item) for key, item in given_value.items())
    if isinstance(given_value, list):
        return len(parsed) == len(given_value) and all(map(contains, parsed, given_value))
    return bool(parsed == given_value)


def flattened(item: Any, declaration: Any) -> tuple[Any, ...]:
    """The values that the struct module gives for one field of this value."""
    if isinstance(item, list) and all(isinstance(element, int) for element in item):
        return tuple(item)
    if isinstance(item, int | bytes):
        return (item,)
    built = declaration.build(item)
    return (int.from_bytes(built, "little") if is_word(declaration.subcon) else built,)


@pytest.mark.parametrize("name", BUILDABLE)
@quick
@given(data=st.data())
def test_parse_returns_what_build_was_given(name: str, data: st.DataObject) -> None:
    declaration = DECLARATIONS[name]
    value = data.draw(values(declaration))
    built = declaration.build(value)
    parsed = declaration.parse(built)
    assert contains(parsed, value)
    assert declaration.build(parsed) == built


@pytest.mark.parametrize("name", FIXED)
@quick
@given(data=st.data())
def test_struct_format_reads_what_construct_builds(name: str, data: st.DataObject) -> None:
    declaration = DECLARATIONS[name]
    parsed = declaration.parse(declaration.build(data.draw(values(declaration))))
    expected: list[Any] = []
    for subcon in declaration.subcons:
        if subcon.name:
            expected.extend(flattened(parsed[subcon.name], subcon))
    layout = inspect_layout(declaration)
    assert struct.calcsize(layout.format) == layout.size == declaration.sizeof()
    assert list(struct.unpack(layout.format, declaration.build(parsed))) == expected


@pytest.mark.parametrize("name", DECLARATIONS)
@quick
@given(data=st.binary(max_size=200))
def test_any_bytes_parse_or_are_refused(name: str, data: bytes) -> None:
    try:
        DECLARATIONS[name].parse(data)
    except ConstructError:
        pass
