"""What a figure is, and how a table of them is printed: medians, their ratio, and the spread."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

__all__ = ["Figure", "Table", "render"]

UNKNOWN = "-"
HEADINGS = ("spread", "expected", "")


@dataclass(frozen=True)
class Figure:
    """One quantity, measured on both sides.

    ``base`` and ``ours`` hold one value for each round, in ``unit``. ``expected`` is the largest
    ratio ours / base that is good enough, None where nothing is demanded.
    """

    name: str
    unit: str
    base: Sequence[float]
    ours: Sequence[float]
    expected: float | None = None

    @property
    def ratio(self) -> float | None:
        """The ratio of the medians; None when a side has no value or the base is zero."""
        if not self.base or not self.ours or not median(self.base):
            return None
        return median(self.ours) / median(self.base)

    @property
    def spread(self) -> tuple[float, float] | None:
        """The smallest and the largest ratio of two values of the same round."""
        pairs = zip(self.base, self.ours, strict=False)
        ratios = [ours / base for base, ours in pairs if base]
        return (min(ratios), max(ratios)) if ratios else None

    @property
    def good(self) -> bool | None:
        """Whether the expectation holds; None without one, or without a ratio."""
        ratio = self.ratio
        if self.expected is None or ratio is None:
            return None
        return ratio <= self.expected


@dataclass(frozen=True)
class Table:
    """Figures that belong together. ``base`` and ``ours`` name the two sides."""

    title: str
    base: str
    ours: str
    figures: Sequence[Figure]
    notes: Sequence[str] = field(default=())

    def rows(self) -> list[tuple[str, ...]]:
        """The heading and a row of texts for each figure."""
        heading = ("", self.base, self.ours, "ratio", *HEADINGS)
        return [heading, *(_row(figure) for figure in self.figures)]


def _row(figure: Figure) -> tuple[str, ...]:
    ratio, spread = figure.ratio, figure.spread
    verdict = {None: "", True: "yes", False: "NO"}[figure.good]
    return (
        figure.name,
        _value(figure.base, figure.unit),
        _value(figure.ours, figure.unit),
        UNKNOWN if ratio is None else f"{ratio:.2f}",
        UNKNOWN if spread is None else f"{spread[0]:.2f} to {spread[1]:.2f}",
        "" if figure.expected is None else f"≤ {figure.expected:.2f}",
        verdict,
    )


def _value(values: Sequence[float], unit: str) -> str:
    if not values:
        return UNKNOWN
    middle = median(values)
    digits = 0 if abs(middle) >= 100 else 1 if abs(middle) >= 10 else 3 if unit == "µs" else 2
    return f"{middle:.{digits}f} {unit}"


def render(tables: Iterable[Table], *, markdown: bool = False) -> str:
    """The tables as text for a terminal, or as Markdown."""
    return "\n".join(_markdown(table) if markdown else _plain(table) for table in tables)


def _plain(table: Table) -> str:
    rows = table.rows()
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [table.title, ""]
    for row in rows:
        first = row[0].ljust(widths[0])
        rest = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([first, *rest]).rstrip())
    return "\n".join([*lines, "", *table.notes, ""])


def _markdown(table: Table) -> str:
    rows = table.rows()
    lines = [f"### {table.title}", ""]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(3, "|---" + "|---:" * (len(rows[0]) - 1) + "|")
    return "\n".join([*lines, "", *(f"- {note}" for note in table.notes), ""])
