"""A device's register map as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .doc_model import RegisterDoc

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .doc_model import DeviceDoc, FieldDoc, MemoryDoc, WindowDoc

__all__ = [
    "FIELD_COLUMNS",
    "REGISTER_COLUMNS",
    "location",
    "markdown",
    "size_words",
    "values_text",
]

REGISTER_COLUMNS = ("Offset", "Name", "Width", "Access", "Reset", "Meaning")
FIELD_COLUMNS = ("Bits", "Field", "Access", "Reset", "Meaning")


def markdown(device: DeviceDoc) -> str:
    """The page, with a final newline."""
    return "\n".join(_page(device)) + "\n"


def _page(device: DeviceDoc) -> Iterator[str]:
    yield f"# {device.name}{f': {device.summary}' if device.summary else ''}"
    if device.text:
        yield from ("", device.text)
    for section in device.sections:
        yield from ("", f"## {section.title}", "")
        yield from _table(section.columns, section.rows)
    for window in device.windows:
        yield from _window(window)


def _window(window: WindowDoc) -> Iterator[str]:
    yield from ("", f"## Window `{window.name}`: {window.place}, {size_words(window.size)}", "")
    if window.text:
        yield from (window.text, "")
    yield from (" ".join(window.remarks), "")
    yield from _table(REGISTER_COLUMNS, [_row(entry) for entry in window.entries])
    for register in window.registers:
        if register.fields:
            yield from ("", f"### `{register.name}` at {location(register)}", "")
            yield from _table(FIELD_COLUMNS, [_field_row(one) for one in register.fields])


def _row(entry: RegisterDoc | MemoryDoc) -> tuple[str, ...]:
    if not isinstance(entry, RegisterDoc):
        length = f"{entry.length} bytes"
        return (f"{entry.offset:#x}", f"`{entry.name}`", length, entry.access, "0", entry.text)
    name = f"{entry.name}[0..{entry.count - 1}]" if entry.count > 1 else entry.name
    reset = f"{entry.reset:#0{entry.width // 4 + 2}x}"
    return (location(entry), f"`{name}`", str(entry.width), entry.access, reset, entry.meaning)


def _field_row(one: FieldDoc) -> tuple[str, ...]:
    bits = f"{one.high}:{one.low}" if one.high > one.low else str(one.low)
    text = "; ".join(part for part in (one.text, values_text(one)) if part)
    return (bits, f"`{one.name}`", one.access, f"{one.reset:#x}", text)


def values_text(one: FieldDoc) -> str:
    """The names of a field's values, in a line."""
    return ", ".join(f"{value:#x} = {name}" for value, name in one.values.items())


def location(register: RegisterDoc) -> str:
    """A register's offset, with the distance of an array's elements."""
    each = f" + {register.stride:#x}·n" if register.count > 1 else ""
    return f"{register.offset:#x}{each}"


def size_words(size: int) -> str:
    """A size in bytes, with its unit where it is a whole number of one."""
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size >> shift and not size & ((1 << shift) - 1):
            return f"{size >> shift} {unit} ({size:#x})"
    return f"{size} byte{'' if size == 1 else 's'}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(map(_cell, row))} |"


def _cell(text: str) -> str:
    """Text that keeps inside its cell."""
    return " ".join(text.split()).replace("|", "\\|")
