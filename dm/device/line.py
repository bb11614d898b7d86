"""Interrupt lines: a level that is derived from the device's state, and driven when it changes."""

from __future__ import annotations

from .register import DeclarationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from .cells import Layout
    from .state import Option

    F = TypeVar("F", bound=Callable[..., object])

__all__ = ["IsaLine", "LiveLine"]


class IsaLine:
    """``name = IsaLine(irq)``: an ISA interrupt, ``irq`` a number 0..15 or an option.

    ``@name.level`` marks the method that derives the level; it must be a pure function of state.
    """

    def __init__(self, irq: int | Option[int]) -> None:
        if isinstance(irq, int) and not 0 <= irq <= 15:
            raise DeclarationError(f"there is no ISA interrupt {irq}")
        self.irq = irq
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def level(self, method: F) -> F:
        """Derive the line's level from ``method(self)``."""
        method._line = self  # type: ignore[attr-defined]
        return method

    def layout(self, layout: Layout) -> None:
        """Add the cell that holds the level which was driven last."""
        layout.word(f"{self.name}.driven", 1)

    def number(self, device: Any) -> int:
        """The ISA interrupt of ``device``'s line."""
        if isinstance(self.irq, int):
            return self.irq
        number: int = getattr(device, self.irq.name)
        return number


class LiveLine:
    """A line of a running device."""

    __slots__ = ("_drive", "_driven", "_index", "_level")

    def __init__(
        self,
        level: Callable[[], object],
        driven: tuple[memoryview[int], int],
        drive: Callable[[int], object],
    ) -> None:
        self._level = level
        self._driven, self._index = driven
        self._drive = drive

    def settler(self) -> Callable[[], None]:
        """A function that drives the line if its derived level is not what was driven last."""
        level, driven, index, drive = self._level, self._driven, self._index, self._drive

        def settle() -> None:
            now = 1 if level() else 0
            if now != driven[index]:
                drive(now)
                driven[index] = now

        return settle

    def lower(self) -> None:
        """Drive the line low if it is high, whatever the device asks for."""
        if self._driven[self._index]:
            self._drive(0)
            self._driven[self._index] = 0

    def redrive(self) -> None:
        """Drive the line whatever was driven last (after a reset or a load)."""
        level = 1 if self._level() else 0
        self._drive(level)
        self._driven[self._index] = level
