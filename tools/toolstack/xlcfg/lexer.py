"""The tokens of xl's configuration language, and where in a file each of them is.

The rules are those of Xen's tools/libs/util/libxlu_cfg_l.l (4.17 to 4.23). As there, a comment
needs its newline, a carriage return is no blank, and words have no capitals. Two escapes that xl's
reader announces but does not carry out (``\\x41`` is always refused, ``\\101`` yields nothing) are
refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tools.toolstack.errors import ToolstackError

__all__ = ["END", "IDENT", "NEWLINE", "NUMBER", "STRING", "Place", "Token", "tokens"]

IDENT, NUMBER, STRING, NEWLINE, END = "a name", "a number", "a string", "the end of the line", "end"

_TOKEN = re.compile(
    r"""(?P<blank>[ \t]+)
      | (?P<ident>[a-z][._0-9a-z]*)
      | (?P<number>[0-9][0-9a-fx]*)
      | (?P<newline>(?:\#[^\n]*)?\n)
      | (?P<string>'(?:[^'\\\n]|\\[^\n])*'|"(?:[^"\\\n]|\\[^\n])*")
      | (?P<punctuation>\+=|[,\[\]=;])""",
    re.VERBOSE,
)
_KINDS = {"ident": IDENT, "number": NUMBER, "newline": NEWLINE, "string": STRING}
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = dict(zip("\"'\\abfnrtv", "\"'\\\a\b\f\n\r\t\v", strict=True))
_NOT_HERE = {
    "\r": "a carriage return; xl takes files with plain newlines only",
    "\0": "a NUL character",
    "#": "a comment at the end of the file without its newline, which xl refuses",
    "'": "a string that is not closed on its line",
    '"': "a string that is not closed on its line",
}


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a file: its name, line and column, both from 1."""

    source: str
    line: int
    column: int

    def __str__(self) -> str:
        """``FILE:LINE:COLUMN``, as compilers write it."""
        return f"{self.source}:{self.line}:{self.column}"

    def error(self, message: str) -> ToolstackError:
        """Return the exception that reports ``message`` for this place, in one line."""
        return ToolstackError(f"{self}: {message}")


@dataclass(frozen=True, slots=True)
class Token:
    """One token: its kind (a name above, or the punctuation itself), its text, its place."""

    kind: str
    text: str
    place: Place


def tokens(text: str, source: str) -> Iterator[Token]:
    """Yield the tokens of ``text``, the last of kind END; raise ToolstackError at what is none."""
    line, line_start, offset = 1, 0, 0
    while offset < len(text):
        place = Place(source, line, offset - line_start + 1)
        match = _TOKEN.match(text, offset)
        if match is None:
            raise _no_token(text[offset], place)
        group, word = str(match.lastgroup), match[0]
        offset = match.end()
        if group == "string":
            yield Token(STRING, _unquote(word, place), place)
        elif group != "blank":
            yield Token(_KINDS.get(group, word), word, place)
        if group == "newline":
            line, line_start = line + 1, offset
    yield Token(END, "", Place(source, line, offset - line_start + 1))


def _no_token(character: str, place: Place) -> ToolstackError:
    what = _NOT_HERE.get(character)
    if what is not None:
        return place.error(what)
    shown = "\\" if character == "\\" else ascii(character).strip("'\"")
    return place.error(f"'{shown}' outside a string means nothing in xl's language")


def _unquote(word: str, place: Place) -> str:
    """Return what a quoted string stands for."""
    nul = word.find("\0")
    if nul >= 0:
        raise Place(place.source, place.line, place.column + nul).error("a NUL character")

    def replace(match: re.Match[str]) -> str:
        letter = match[1]
        if letter not in _ESCAPES:
            raise Place(place.source, place.line, place.column + match.start() + 1).error(
                f"{ascii(match[0])[1:-1].replace(chr(92) * 2, chr(92))} is no escape; there are "
                + " ".join(f"\\{one}" for one in _ESCAPES)
            )
        return _ESCAPES[letter]

    return _ESCAPE.sub(replace, word[1:-1])
