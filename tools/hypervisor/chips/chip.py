"""What every chip is: a set of numbers that it declares, saves and takes back after a check."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

__all__ = ["Chip", "StateError"]

_FARTHEST = 1 << 63


class StateError(ValueError):
    """A saved state that is not one: one readable line."""


class Chip:
    """Base of the chips.

    `STATE` names the attributes that are the chip's whole state, each with its largest value (the
    smallest is 0) or with both; an attribute may be a list of such numbers, of fixed length.
    `TIMES` names those that are instants of guest time in nanoseconds. `PARTS` names attributes
    that are chips or lists of chips themselves.
    """

    STATE: ClassVar[Mapping[str, int | tuple[int, int]]] = {}
    TIMES: ClassVar[tuple[str, ...]] = ()
    PARTS: ClassVar[tuple[str, ...]] = ()

    def save(self) -> dict[str, Any]:
        """The state, as a dictionary of numbers, lists of numbers and such dictionaries."""
        out: dict[str, Any] = {}
        for name in (*self.STATE, *self.TIMES):
            value = getattr(self, name)
            out[name] = list(value) if isinstance(value, list) else value
        for name, parts in self._parts():
            saved = [part.save() for part in parts]
            out[name] = saved if isinstance(getattr(self, name), list) else saved[0]
        return out

    def load(self, state: object, shift: int = 0) -> None:
        """Take over a saved state, whose instants are moved by ``shift`` nanoseconds.

        Raises StateError, and then has changed nothing.
        """
        self.check(state)
        self.apply(state, shift)
        self.settle()

    def check(self, state: object, where: str = "") -> None:
        """Raise StateError unless ``state`` is one of this chip's; ``where`` leads to it."""
        label = where or type(self).__name__
        if not isinstance(state, dict):
            raise StateError(f"{label} is no dictionary")
        names = {*self.STATE, *self.TIMES, *self.PARTS}
        if wrong := names ^ set(state):
            raise StateError(f"{label} lacks or has too much of {min(map(str, wrong))!r}")
        for name, limits in self.STATE.items():
            least, largest = limits if isinstance(limits, tuple) else (0, limits)
            self._check_numbers(f"{label}.{name}", name, state[name], least, largest)
        for name in self.TIMES:
            self._check_numbers(f"{label}.{name}", name, state[name], -_FARTHEST, _FARTHEST)
        for name, parts in self._parts():
            values = state[name] if isinstance(getattr(self, name), list) else [state[name]]
            if not isinstance(values, list) or len(values) != len(parts):
                raise StateError(f"{label}.{name} is not a list of {len(parts)}")
            for part, value in zip(parts, values, strict=True):
                part.check(value, f"{label}.{name}")

    def apply(self, state: Any, shift: int) -> None:
        """Set the attributes from a state that was checked."""
        for name in self.STATE:
            value = state[name]
            setattr(self, name, list(value) if isinstance(value, list) else value)
        for name in self.TIMES:
            value = state[name]
            moved = [one + shift for one in value] if isinstance(value, list) else value + shift
            setattr(self, name, moved)
        for name, parts in self._parts():
            values = state[name] if isinstance(getattr(self, name), list) else [state[name]]
            for part, value in zip(parts, values, strict=True):
                part.apply(value, shift)

    def settle(self) -> None:
        """Have each part, then the chip itself, derive what follows from the state."""
        for _, parts in self._parts():
            for part in parts:
                part.settle()
        self.after_load()

    def after_load(self) -> None:
        """Arm timers and set outputs again; what is derived from the state is not saved."""

    def _parts(self) -> list[tuple[str, list[Chip]]]:
        out = []
        for name in self.PARTS:
            value = getattr(self, name)
            out.append((name, value if isinstance(value, list) else [value]))
        return out

    def _check_numbers(self, label: str, name: str, value: Any, least: int, largest: int) -> None:
        present = getattr(self, name)
        values = [value]
        if isinstance(present, list):
            if not isinstance(value, list) or len(value) != len(present):
                raise StateError(f"{label} is not a list of {len(present)} numbers")
            values = value
        for one in values:
            if type(one) is not int or not least <= one <= largest:
                raise StateError(f"{label} is no number from {least} to {largest}")
