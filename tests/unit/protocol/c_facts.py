"""Turns the declarations of protocol/ into a C program that prints what the headers say instead."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

from protocol.inspection import Layout, inspect_bits, inspect_layout, is_struct, is_word
from tests.unit.protocol.c_names import (
    CONSTANT_NAMES,
    ENUM_PATTERNS,
    HEADERS,
    MACRO_STRUCTS,
    MEMBER_NAMES,
    NOT_IN_HEADERS,
    SIZE_EXPRESSIONS,
    WORD_MASKS,
)

_PROLOGUE = """
#define __XEN_TOOLS__ 1
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
"""

# Reads a word out of an object of which nothing but that word may be set.
_WORD = """
static uint64_t word(const void *object, size_t total, size_t offset, size_t size)
{
    const unsigned char *bytes = object;
    uint64_t value = 0;
    for (size_t i = 0; i < total; i++) {
        if (i >= offset && i < offset + size)
            value |= (uint64_t)bytes[i] << (8 * (i - offset));
        else if (bytes[i])
            return 0;
    }
    return value;
}
"""


@dataclass(frozen=True)
class Fact:
    """What one declaration states, and the C expression that states the same."""

    label: str
    expression: str
    expected: int


def declarations(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Everything public in a module, apart from its functions."""
    for name in module.__all__:
        value = getattr(module, name)
        if isinstance(value, type) or not callable(value) or is_struct(value) or is_word(value):
            yield name, value


def facts(module: ModuleType) -> Iterator[Fact]:
    """What a module states and headers can confirm.

    Raises:
        LookupError: nothing says how C names a declaration.
    """
    for name, value in declarations(module):
        if name not in NOT_IN_HEADERS:
            yield from facts_of(name, value)


def facts_of(name: str, value: Any) -> Iterator[Fact]:
    """What one declaration states.

    Raises:
        LookupError: nothing says how C names it.
    """
    if isinstance(value, type) and issubclass(value, Enum):
        yield from _enum_facts(name, value)
    elif name in MACRO_STRUCTS:
        yield from _macro_struct_facts(name, inspect_layout(value))
    elif is_struct(value):
        yield from _struct_facts(name, inspect_layout(value))
    elif is_word(value):
        for bit in inspect_bits(value):
            yield Fact(f"{name}.{bit.name}", WORD_MASKS[name][bit.name], bit.mask)
    elif name == "XENSTORE_ERRORS":
        yield from _error_facts(value)
    else:
        yield Fact(name, CONSTANT_NAMES[name], value)


def evaluate(expressions: list[str], folder: Path) -> list[int]:
    """Compile a program of the expressions against the headers, run it, return their values."""
    source, program = folder / "facts.c", folder / "facts"
    prints = "".join(
        f'    printf("%llu\\n", (unsigned long long)({expression}));\n'
        for expression in expressions
    )
    source.write_text(f"{_includes()}{_WORD}int main(void)\n{{\n{prints}    return 0;\n}}\n")
    command = ["gcc", "-w", "-std=gnu11", "-o", str(program), str(source)]
    subprocess.run(command, check=True, timeout=60)
    output = subprocess.run([str(program)], check=True, timeout=60, capture_output=True, text=True)
    return [int(line) for line in output.stdout.split()]


def macros(folder: Path) -> set[str]:
    """Names of all object-like macros that the headers define."""
    source = folder / "macros.c"
    source.write_text(_includes())
    command = ["gcc", "-std=gnu11", "-dM", "-E", str(source)]
    output = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True)
    names = (line.split()[1] for line in output.stdout.splitlines())
    return {name for name in names if "(" not in name}


def headers_present(folder: Path) -> bool:
    """True if the compiler finds every header."""
    source = folder / "probe.c"
    source.write_text(_includes())
    command = ["gcc", "-std=gnu11", "-E", "-o", str(folder / "probe.i"), str(source)]
    return subprocess.run(command, check=False, timeout=60, capture_output=True).returncode == 0


def _includes() -> str:
    return _PROLOGUE + "".join(f"#include <{header}>\n" for header in HEADERS)


def _enum_facts(name: str, enum: type[Enum]) -> Iterator[Fact]:
    for member, item in enum.__members__.items():
        label = f"{name}.{member}"
        if label in NOT_IN_HEADERS:
            continue
        pattern = MEMBER_NAMES.get(label, ENUM_PATTERNS[name])
        expression = pattern.format(upper=member, lower=member.lower())
        yield Fact(label, expression, item.value)


def _struct_facts(name: str, layout: Layout) -> Iterator[Fact]:
    tag = f"struct {layout.name}"
    yield Fact(f"sizeof {name}", SIZE_EXPRESSIONS.get(name, f"sizeof({tag})"), layout.size)
    for field in layout.fields:
        label = f"{name}.{field.name}"
        if not field.name:
            continue
        for bit in field.bits:
            code = f"{tag} v; memset(&v, 0, sizeof v); v.{bit.name} = ~0;"
            read = f"word(&v, sizeof v, {field.offset}, {field.size});"
            yield Fact(f"{label}.{bit.name}", f"({{ {code} {read} }})", bit.mask)
        if field.bits:
            continue
        size = SIZE_EXPRESSIONS.get(label, f"sizeof((({tag} *)0)->{field.name})")
        yield Fact(f"offset {label}", f"offsetof({tag}, {field.name})", field.offset)
        yield Fact(f"sizeof {label}", size, field.size)


def _macro_struct_facts(name: str, layout: Layout) -> Iterator[Fact]:
    size, offsets = MACRO_STRUCTS[name]
    yield Fact(f"sizeof {name}", size, layout.size)
    for field in layout.fields:
        if field.name and field.name != "reserved":
            yield Fact(f"offset {name}.{field.name}", offsets[field.name], field.offset)


def _error_facts(names: tuple[str, ...]) -> Iterator[Fact]:
    yield Fact("XENSTORE_ERRORS", "sizeof(xsd_errors) / sizeof(xsd_errors[0])", len(names))
    for index, name in enumerate(names):
        expression = f'!strcmp(xsd_errors[{index}].errstring, "{name}")'
        yield Fact(f"XENSTORE_ERRORS[{index}] is {name}", expression, 1)
