"""What the sub-syntaxes of xl's strings share: how they refuse, how they read numbers and words."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["SpecError", "integer", "leading_integer", "one_of", "quoted"]

_INTEGER = re.compile(r"[ \t\n\v\f\r]*([+-]?)(?:0[xX]([0-9a-fA-F]+)|(0[0-7]*)|([1-9][0-9]*))")
_LEADING = re.compile(r"[ \t\n\v\f\r]*[+-]?[0-9]{1,18}")
_DIGITS = 32


class SpecError(ValueError):
    """A string that xl's sub-syntax does not allow; the message has no place in a file yet."""


def integer(text: str) -> int:
    """Read a number as C's strtol does with base 0: decimal, 0x…, or octal with a leading 0.

    Raises SpecError for what is no number from its first to its last character.
    """
    match = _INTEGER.fullmatch(text)
    if match is None or len(text) > _DIGITS:
        raise SpecError(f"{quoted(text)} is not a number")
    sign, hexadecimal, octal, decimal = match.groups()
    if hexadecimal:
        value = int(hexadecimal, 16)
    else:
        value = int(octal, 8) if octal else int(decimal)
    return -value if sign == "-" else value


def leading_integer(text: str) -> int:
    """Read the number that a string begins with as C's atoi does; 0 if there is none."""
    match = _LEADING.match(text)
    return int(match[0]) if match else 0


def one_of(text: str, what: str, allowed: Sequence[str]) -> str:
    """Return ``text`` if it is allowed; raise SpecError that lists what is."""
    if text not in allowed:
        raise SpecError(f"{what} {quoted(text)} is none of {', '.join(allowed)}")
    return text


def quoted(text: str) -> str:
    """Return ``text`` for a message: one line, printable, not endless."""
    return ascii(text if len(text) <= 60 else f"{text[:57]}...")
