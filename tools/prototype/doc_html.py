"""A device's register map as one HTML file, with a picture of the bits of each register."""

from __future__ import annotations

import re
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from .doc_markdown import FIELD_COLUMNS, REGISTER_COLUMNS, location, size_words, values_text
from .doc_model import FieldDoc, RegisterDoc

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .doc_model import DeviceDoc, MemoryDoc, WindowDoc

__all__ = ["html"]

ROW_BITS = 32
"""Bits in one row of a picture."""


def html(device: DeviceDoc) -> str:
    """The page: no script, nothing from elsewhere, readable on light and dark."""
    style = files(__package__).joinpath("data", "doc.css").read_text("utf-8")
    title = escape(f"{device.name}: {device.summary}" if device.summary else device.name)
    body = "\n".join(_body(device, title))
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _body(device: DeviceDoc, title: str) -> Iterator[str]:
    yield f"<h1>{title}</h1>"
    yield from _paragraphs(device.text)
    yield "<nav><ul>"
    for window in device.windows:
        yield f'<li><a href="#{escape(window.name)}">{escape(window.name)}</a></li>'
    yield "</ul></nav>"
    for section in device.sections:
        yield f"<h2>{escape(section.title)}</h2>"
        yield from _table(
            section.columns, [[_inline(cell) for cell in row] for row in section.rows]
        )
    for window in device.windows:
        yield from _window(window)


def _window(window: WindowDoc) -> Iterator[str]:
    name = escape(window.name)
    yield f'<h2 id="{name}">Window <code>{name}</code></h2>'
    yield f"<p>{_inline(window.place)}, {escape(size_words(window.size))}.</p>"
    yield from _paragraphs(window.text)
    yield f"<p>{_inline(' '.join(window.remarks))}</p>"
    yield from _table(REGISTER_COLUMNS, [_row(window, entry) for entry in window.entries])
    for register in window.registers:
        if register.fields:
            yield from _register(window, register)


def _row(window: WindowDoc, entry: RegisterDoc | MemoryDoc) -> list[str]:
    if not isinstance(entry, RegisterDoc):
        name = f"<code>{escape(entry.name)}</code>"
        size = f"{entry.length} bytes"
        return [f"{entry.offset:#x}", name, size, entry.access, "0", _inline(entry.text)]
    shown = f"{entry.name}[0..{entry.count - 1}]" if entry.count > 1 else entry.name
    name = f"<code>{escape(shown)}</code>"
    if entry.fields:
        name = f'<a href="#{_anchor(window, entry)}">{name}</a>'
    reset = f"{entry.reset:#0{entry.width // 4 + 2}x}"
    return [
        location(entry),
        name,
        str(entry.width),
        escape(entry.access),
        reset,
        _inline(entry.meaning),
    ]


def _register(window: WindowDoc, register: RegisterDoc) -> Iterator[str]:
    yield (
        f'<h3 id="{_anchor(window, register)}"><code>{escape(register.name)}</code>'
        f" at {location(register)}</h3>"
    )
    yield from _paragraphs(register.text)
    yield from _picture(register)
    rows = [
        [
            f"{one.high}:{one.low}" if one.high > one.low else str(one.low),
            f"<code>{escape(one.name)}</code>",
            escape(one.access),
            f"{one.reset:#x}",
            _inline("; ".join(part for part in (one.text, values_text(one)) if part)),
        ]
        for one in register.fields
    ]
    yield from _table(FIELD_COLUMNS, rows)


def _picture(register: RegisterDoc) -> Iterator[str]:
    """The bits from the most significant on, a row for each 32; fields span their cells."""
    top = register.width - 1
    while top >= 0:
        bottom = max(top - ROW_BITS + 1, 0)
        numbers = "".join(f"<th>{bit}</th>" for bit in range(top, bottom - 1, -1))
        cells = "".join(
            f'<td colspan="{high - low + 1}" class="{_kind(one)}">{_cell(one, high, low)}</td>'
            for one, high, low in _spans(register.fields, top, bottom)
        )
        yield f'<table class="bits"><tr>{numbers}</tr><tr>{cells}</tr></table>'
        top = bottom - 1


def _spans(
    fields: Sequence[FieldDoc], top: int, bottom: int
) -> Iterator[tuple[FieldDoc | None, int, int]]:
    """The fields and the reserved gaps between ``top`` and ``bottom``, from the top."""
    at = top
    for one in sorted(fields, key=lambda one: -one.low):
        high, low = min(one.high, top), max(one.low, bottom)
        if high < low:
            continue
        if at > high:
            yield None, at, high + 1
        yield one, high, low
        at = low - 1
    if at >= bottom:
        yield None, at, bottom


def _cell(one: FieldDoc | None, high: int, low: int) -> str:
    if one is None:
        return ""
    part = f" {high - one.low}:{low - one.low}" if (high, low) != (one.high, one.low) else ""
    title = escape(f"{one.name}{part} ({one.access})")
    return f'<span title="{title}">{escape(one.name + part)}</span>'


def _kind(one: FieldDoc | None) -> str:
    return "reserved" if one is None else "access-" + re.sub(r"\W", "-", one.access.lower())


def _anchor(window: WindowDoc, register: RegisterDoc) -> str:
    return escape(f"{window.name}.{register.name}")


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """``rows`` are HTML already."""
    yield f"<table><thead><tr>{''.join(f'<th>{name}</th>' for name in columns)}</tr></thead><tbody>"
    for row in rows:
        yield f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>"
    yield "</tbody></table>"


def _paragraphs(text: str) -> Iterator[str]:
    for part in re.split(r"\n\s*\n", text):
        if part.strip():
            yield f"<p>{_inline(part)}</p>"


def _inline(text: str) -> str:
    """Escaped text in which `code` is code."""
    return re.sub(r"``?([^`]+)``?", r"<code>\1</code>", escape(text))
