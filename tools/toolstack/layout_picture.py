"""How a guest's memory layout is shown to people: as a table of text, and as a picture (SVG)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from tools.toolstack.memory_layout import FOUR_GIB, SPECIAL_PAGES, VGA_WINDOW, MemoryLayout

__all__ = ["Segment", "as_svg", "as_table", "segments"]

_IOREQ_PAGES = (0xFEFF0000, SPECIAL_PAGES[0])
_UNITS = (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the guest-physical address space: start, end (exclusive), what it is.

    ``kind`` is ram, hidden (RAM over a reserved region), reserved, mmio, special or nothing.
    """

    start: int
    end: int
    kind: str
    text: str


def segments(layout: MemoryLayout) -> tuple[Segment, ...]:
    """Return the address space from 0 to the end of all that is known, without a gap."""
    paint = list(_paint(layout))
    cuts = sorted({edge for one in paint for edge in (one.start, one.end)})
    result: list[Segment] = []
    for start, end in pairwise(cuts):
        top = next(one for one in reversed(paint) if one.start <= start and end <= one.end)
        if result and (result[-1].kind, result[-1].text) == (top.kind, top.text):
            result[-1] = Segment(result[-1].start, end, top.kind, top.text)
        else:
            result.append(Segment(start, end, top.kind, top.text))
    return tuple(result)


def _paint(layout: MemoryLayout) -> Iterator[Segment]:
    """What is where; the later lies on top."""
    regions = (*layout.exposed, *layout.hidden)
    top = max(FOUR_GIB, layout.highmem_end, *(entry.end for entry in regions), 0)
    yield Segment(0, top, "nothing", "nothing")
    yield Segment(0, layout.lowmem_end, "ram", "RAM")
    if layout.kind == "hvm":
        yield Segment(*VGA_WINDOW, "mmio", "VGA window")
    yield Segment(layout.mmio_start, FOUR_GIB, "mmio", "MMIO hole")
    yield Segment(*_IOREQ_PAGES, "special", "more ioreq servers' pages")
    yield Segment(*SPECIAL_PAGES, "special", "special pages: xenstore, console, …")
    if layout.highmem_end:
        yield Segment(FOUR_GIB, layout.highmem_end, "ram", "RAM")
    for entry in layout.hidden:
        text = f"RAM; the guest is not told of a reserved region ({entry.policy})"
        yield Segment(entry.start, entry.end, "hidden", text)
    for entry in layout.exposed:
        yield Segment(
            entry.start, entry.end, "reserved", f"reserved device memory ({entry.policy})"
        )


def _size(size: int) -> str:
    """Bytes in the largest unit that leaves at most two decimals."""
    for name, unit in _UNITS:
        if size >= unit:
            return f"{size / unit:.2f}".rstrip("0").rstrip(".") + f" {name}"
    return f"{size} B"


def as_table(layout: MemoryLayout) -> str:
    """Return the layout as lines of text: the segments, then what the domain builder is told."""
    rows = [
        (f"0x{one.start:09x}", f"0x{one.end - 1:09x}", _size(one.end - one.start), one.text)
        for one in segments(layout)
    ]
    lines = [f"{'FIRST':<12}{'LAST':<12}{'SIZE':>12}  WHAT"]
    lines += [f"{first:<12}{last:<12}{size:>12}  {text}" for first, last, size, text in rows]
    high = f"0x{layout.highmem_end:x}" if layout.highmem_end else "none"
    lines += [
        "",
        f"lowmem_end 0x{layout.lowmem_end:x}, highmem_end {high}, "
        f"mmio_start 0x{layout.mmio_start:x}, RAM {_size(layout.ram_size)}",
    ]
    return "\n".join(lines) + "\n"


_WIDTH, _LEFT, _COLUMN, _TOP, _LEAST = 760, 130, 190, 56, 24
_STYLE = """
  text { font: 13px ui-monospace, Menlo, Consolas, monospace; fill: #1f2933; }
  .title { font-size: 15px; font-weight: bold; }
  .address, .boundary { font-size: 11px; fill: #66727f; }
  rect { stroke: #66727f; stroke-width: 1; }
  .ram { fill: #bfdbf7; } .hidden { fill: url(#hatch); } .reserved { fill: #f2b8a0; }
  .mmio { fill: #dfe3e8; } .special { fill: #d9c8ef; }
  .nothing { fill: none; stroke-dasharray: 3 3; }
  .line { stroke: #b3261e; stroke-dasharray: 6 3; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6e9ed; } .address, .boundary { fill: #9aa5b1; }
    .ram { fill: #28527a; } .reserved { fill: #8a3f24; } .mmio { fill: #3a424c; }
    .special { fill: #55407a; }
  }
"""
_HATCH = (
    '<pattern id="hatch" width="8" height="8" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><rect class="ram" width="8" height="8" stroke="none"/>'
    '<path d="M0 0V8" stroke="#b3261e" stroke-width="3"/></pattern>'
)


def as_svg(layout: MemoryLayout, title: str) -> str:
    """Return the layout as an SVG picture, the highest address on top, named ``title``.

    Heights grow with the logarithm of the sizes; addresses stand left, what is there right.
    """
    shown = segments(layout)[::-1]
    heights = [_height(one) for one in shown]
    total = _TOP + sum(heights) + 30
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {total}" '
        f'width="{_WIDTH}" height="{total}" role="img">',
        f"<title>{_xml(title)}</title>",
        f"<style>{_STYLE}</style><defs>{_HATCH}</defs>",
        f'<text class="title" x="20" y="26">{_xml(title)}</text>',
    ]
    y = _TOP
    for one, height in zip(shown, heights, strict=True):
        middle = y + height // 2 + 5
        what = f"{_size(one.end - one.start)}, {_xml(one.text)}"
        lines += [
            f'<rect class="{one.kind}" x="{_LEFT}" y="{y}" width="{_COLUMN}" height="{height}"/>',
            _address(y, one.end),
            f'<text x="{_LEFT + _COLUMN + 14}" y="{middle}">{what}</text>',
        ]
        if one.start < layout.boundary <= one.end:
            part = (one.end - layout.boundary) / (one.end - one.start)
            lines += _boundary(y + round(part * height))
        y += height
    lines += [_address(y, 0), "</svg>"]
    return "\n".join(lines) + "\n"


def _height(segment: Segment) -> int:
    return _LEAST + round(4 * max(0.0, math.log2((segment.end - segment.start) / (1 << 20))))


def _boundary(y: int) -> list[str]:
    return [
        f'<path class="line" d="M{_LEFT} {y}h{_COLUMN}"/>',
        f'<text class="boundary" x="{_LEFT + 6}" y="{y - 4}">rdm_mem_boundary</text>',
    ]


def _address(y: int, address: int) -> str:
    place = f'x="{_LEFT - 8}" y="{y + 4}" text-anchor="end"'
    return f'<text class="address" {place}>0x{address:x}</text>'


def _xml(text: str) -> str:
    """Return ``text`` for XML: escaped, and without what no XML file may contain."""
    return escape("".join(one if one.isprintable() else "�" for one in text))
