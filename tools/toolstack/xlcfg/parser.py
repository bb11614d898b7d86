"""The grammar of xl's configuration language: a file is assignments, a value is an atom or a list.

The grammar is that of Xen's tools/libs/util/libxlu_cfg_y.y (4.17 to 4.23): an assignment ends at
the end of its line or at a semicolon, a value starts on the line of its ``=``, inside brackets
newlines are free, a comma may follow the last item. ``+=`` joins a string to a string or a list to
a list and assigns where there is nothing yet; the last assignment of a name counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from tools.toolstack.xlcfg.lexer import (
    END,
    IDENT,
    NEWLINE,
    NUMBER,
    STRING,
    Place,
    Token,
    tokens,
)
from tools.toolstack.xlcfg.spec import quoted

__all__ = ["Atom", "Items", "Setting", "Value", "parse"]

_DEEPEST = 64


@dataclass(frozen=True, slots=True)
class Atom:
    """A string or a number, which xl does not distinguish, as text."""

    text: str
    place: Place


@dataclass(frozen=True, slots=True)
class Items:
    """A list; each item is a value."""

    items: tuple[Value, ...]
    place: Place


Value = Atom | Items


@dataclass(frozen=True, slots=True)
class Setting:
    """What a name has in the end, where the name stands, and whether ``+=`` made it."""

    name: str
    value: Value
    place: Place
    appended: bool


def parse(text: str, source: str) -> tuple[dict[str, Setting], Place]:
    """Return the settings of ``text`` by name, and the place of its end.

    ``source`` names the text in errors. Raises ToolstackError at the first place that is wrong.
    """
    return _Parser(text, source).file()


class _Parser:
    def __init__(self, text: str, source: str) -> None:
        self._tokens = tokens(text, source)
        self._token = next(self._tokens)
        self._settings: dict[str, Setting] = {}

    def file(self) -> tuple[dict[str, Setting], Place]:
        while self._token.kind != END:
            if self._token.kind not in (NEWLINE, ";"):
                self._assignment()
                if self._token.kind == END:
                    break
            self._take("';' or the end of the line after a value", NEWLINE, ";")
        return self._settings, self._token.place

    def _next(self) -> Token:
        token = self._token
        if token.kind != END:
            self._token = next(self._tokens)
        return token

    def _take(self, expected: str, *kinds: str) -> Token:
        if self._token.kind not in kinds:
            raise self._token.place.error(f"expected {expected}, found {_shown(self._token)}")
        return self._next()

    def _assignment(self) -> None:
        name = self._take("the name of a setting", IDENT)
        appended = self._take("'=' or '+=' after a name", "=", "+=").kind == "+="
        value = self._value(1)
        before = self._settings.get(name.text)
        if appended and before is not None:
            value = _joined(name.text, before.value, value)
        self._settings[name.text] = Setting(name.text, value, name.place, appended)

    def _value(self, depth: int) -> Value:
        if self._token.kind == "[":
            return self._items(depth)
        token = self._take("a value: a number, a string or a list", NUMBER, STRING)
        return Atom(token.text, token.place)

    def _items(self, depth: int) -> Items:
        place = self._next().place
        if depth > _DEEPEST:
            raise place.error(f"a list more than {_DEEPEST} deep in others")
        items: list[Value] = []
        self._newlines()
        while self._token.kind not in ("]", END):
            items.append(self._value(depth + 1))
            self._newlines()
            if self._token.kind != ",":
                break
            self._next()
            self._newlines()
        if self._token.kind == END:
            raise self._token.place.error(f"the list of line {place.line} has no ']'")
        self._take("',' or ']' in a list", "]")
        return Items(tuple(items), place)

    def _newlines(self) -> None:
        while self._token.kind == NEWLINE:
            self._next()


def _shown(token: Token) -> str:
    if token.kind == END:
        return "the end of the file"
    if token.kind in (IDENT, NUMBER):
        return f"{token.kind}, {quoted(token.text)}"
    return token.kind if token.kind in (STRING, NEWLINE) else f"'{token.kind}'"


def _joined(name: str, before: Value, added: Value) -> Value:
    if isinstance(before, Atom) and isinstance(added, Atom):
        return Atom(before.text + added.text, added.place)
    if isinstance(before, Items) and isinstance(added, Items):
        return Items(before.items + added.items, added.place)
    raise added.place.error(f"{name[:60]}: += cannot join a list and a single value")
