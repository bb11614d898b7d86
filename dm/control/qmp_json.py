"""JSON as QEMU's monitor reads and writes it: a stream of values with nothing between them.

A client need not end its messages with a newline, may use single quotes, and after a malformed
message goes on with the next one; the wording of the errors is QEMU's. Sizes are bounded.
Source: QEMU 7.2, qobject/json-lexer.c, json-streamer.c, json-parser.c; the installed QEMU agrees
in a test.
"""

from __future__ import annotations

import re
from json.encoder import encode_basestring_ascii
from typing import Any

__all__ = ["MESSAGE_BYTES", "NESTING", "JsonError", "Reader", "write"]

# The longest message, its deepest nesting (QEMU's MAX_NESTING) and the most tokens it may have.
MESSAGE_BYTES = 1 << 20
NESTING = 1024
_TOKENS = 1 << 16
# The longest number or keyword; each arriving piece of one is looked at from its beginning.
_WORD_BYTES = 1024

_STRUCTURE = b"{}[]:,"
_DIGITS = b"0123456789"
_SPACE = re.compile(rb"[ \t\r\n]+")
_STRING_BODY = {
    0x22: re.compile(rb"(?:[^\x00-\x1f\"\\\xfe\xff]|\\[\x20-\xfd])*"),
    0x27: re.compile(rb"(?:[^\x00-\x1f'\\\xfe\xff]|\\[\x20-\xfd])*"),
}
_NUMBER = re.compile(
    rb"-?(?:0(?:\.[0-9]+(?:[eE][+-]?[0-9]+)?)?|[1-9][0-9]*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)"
)
_NUMBER_BEGUN = re.compile(
    rb"-?(?:0(?:\.(?:[0-9]+(?:[eE][+-]?[0-9]*)?)?)?"
    rb"|[1-9][0-9]*(?:\.(?:[0-9]+(?:[eE][+-]?[0-9]*)?)?|[eE][+-]?[0-9]*)?)?"
)
_KEYWORD = re.compile(rb"[a-z]+")
# After an error input is skipped up to something that can begin or end a message.
_SKIPPED = re.compile(rb"[^\x00-\x1f{}\[\]:,\xfe\xff]*")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_ESCAPED = {
    '"': '"',
    "'": "'",
    "\\": "\\",
    "/": "/",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
}
_KEYWORDS: dict[bytes, bool | None] = {b"true": True, b"false": False, b"null": None}


class JsonError(Exception):
    """A malformed or oversized message; the text is the description that QEMU answers."""


class Reader:
    """Cuts a stream of bytes into values. What is incomplete waits for the next :meth:`feed`."""

    def __init__(self) -> None:
        self._input = bytearray()
        self._scanned = 0
        self._skipping = False
        self._reset()

    def _reset(self) -> None:
        self._tokens: list[bytes] = []
        self._size = 0
        self._braces = self._brackets = 0

    def feed(self, data: bytes) -> list[Any]:
        """Takes what arrived; returns the values and :class:`JsonError` objects it completes."""
        self._input += data
        results: list[Any] = []
        position = 0
        while position < len(self._input):
            start = position
            try:
                position = self._next(position)
                if position > start and self._tokens and self._complete():
                    tokens = self._tokens
                    self._reset()
                    results.append(_parse(tokens))
            except _StrayError as stray:
                position = stray.end
                self._reset()
                self._scanned, self._skipping = 0, True
                results.append(JsonError(stray.text))
            except JsonError as error:
                self._reset()
                results.append(error)
            if position == start:
                break
        del self._input[:position]
        return results

    def _complete(self) -> bool:
        """Whether the tokens so far are all of a message, well-formed or not."""
        braces, brackets = self._braces, self._brackets
        return braces < 0 or brackets < 0 or not (braces or brackets)

    def _next(self, start: int) -> int:
        """Takes one token or a stretch of space; returns where the next begins, or ``start``."""
        if self._skipping:
            end = _match(_SKIPPED, self._input, start)
            self._skipping = end == len(self._input)
            if end > start:
                return end
        first = self._input[start]
        if first in b" \t\r\n":
            return _match(_SPACE, self._input, start)
        if first in _STRUCTURE:
            return self._take(start, start + 1)
        if first in b"\"'":
            return self._string(start, first)
        if 0x61 <= first <= 0x7A:
            end = _match(_KEYWORD, self._input, start)
            return self._word(start, end)
        if first == 0x2D or first in _DIGITS:
            return self._number(start)
        raise _StrayError(self._input, start, start + 1)

    def _string(self, start: int, quote: int) -> int:
        """A string token; how far it was looked at is kept, so that no byte is seen twice."""
        position = _match(_STRING_BODY[quote], self._input, start + max(1, self._scanned))
        if self._size + position - start > MESSAGE_BYTES:
            raise _StrayError(self._input, start, position, "JSON token size limit exceeded")
        if position == len(self._input):
            self._scanned = position - start
            return start
        follows = self._input[position]
        if follows == quote:
            return self._take(start, position + 1)
        if follows == 0x5C:
            if position + 1 == len(self._input):
                self._scanned = position - start
                return start
            position += 1
        raise _StrayError(self._input, start, position + 1)

    def _number(self, start: int) -> int:
        end = _match(_NUMBER_BEGUN, self._input, start)
        if end == len(self._input):
            return self._word(start, end)
        zero_goes_on = self._input[start:end].lstrip(b"-") == b"0" and self._input[end] in _DIGITS
        if zero_goes_on or not _NUMBER.fullmatch(self._input, start, end):
            raise _StrayError(self._input, start, end + 1)
        return self._word(start, end)

    def _word(self, start: int, end: int) -> int:
        """A number or keyword, which only what follows it ends."""
        if end - start > _WORD_BYTES:
            raise _StrayError(self._input, start, end, "JSON token size limit exceeded")
        if end == len(self._input):
            return start
        return self._take(start, end)

    def _take(self, start: int, end: int) -> int:
        """Adds a token; raises JsonError when a limit is passed."""
        token = bytes(self._input[start:end])
        self._scanned = 0
        self._size += len(token)
        if self._size > MESSAGE_BYTES:
            raise _StrayError(self._input, start, end, "JSON token size limit exceeded")
        if len(self._tokens) >= _TOKENS:
            raise _StrayError(self._input, start, end, "JSON token count limit exceeded")
        self._braces += (token == b"{") - (token == b"}")
        self._brackets += (token == b"[") - (token == b"]")
        if self._braces + self._brackets > NESTING:
            raise _StrayError(self._input, start, end, "JSON nesting depth limit exceeded")
        self._tokens.append(token)
        return end


class _StrayError(Exception):
    """Input that cannot be a token; ``end``: where reading goes on."""

    def __init__(self, data: bytearray, start: int, end: int, text: str = "") -> None:
        super().__init__()
        self.end = end
        shown = bytes(data[start : min(end, start + 4096)]).partition(b"\0")[0]
        self.text = text or f"JSON parse error, stray '{shown.decode(errors='replace')}'"


def _match(pattern: re.Pattern[bytes], data: bytearray, start: int) -> int:
    """Where a match that begins at ``start`` ends; ``start`` when there is none."""
    found = pattern.match(data, start)
    return found.end() if found else start


def _error(text: str) -> JsonError:
    return JsonError("JSON parse error, " + text)


def _parse(tokens: list[bytes]) -> Any:
    """The value that the tokens of one message spell; raises JsonError. Not recursive."""
    position = 0
    # Containers that are open, each with the key whose value is awaited.
    open_: list[tuple[Any, str]] = []
    while True:
        token = _at(tokens, position)
        position += 1
        value: Any
        if token in (b"{", b"["):
            value = {} if token == b"{" else []
            if _at(tokens, position) == (b"}" if token == b"{" else b"]"):
                position += 1
            else:
                key = ""
                if token == b"{":
                    key, position = _key(tokens, position)
                open_.append((value, key))
                continue
        else:
            value = _scalar(token)
        while open_:
            container, key = open_[-1]
            _put(container, key, value)
            is_object = isinstance(container, dict)
            token = _at(tokens, position)
            position += 1
            if token == b",":
                if is_object:
                    key, position = _key(tokens, position)
                    open_[-1] = (container, key)
                break
            if token != (b"}" if is_object else b"]"):
                raise _error("expected separator in " + ("dict" if is_object else "list"))
            value = container
            open_.pop()
        else:
            return value


def _at(tokens: list[bytes], position: int) -> bytes:
    if position >= len(tokens):
        raise _error("premature EOI")
    return tokens[position]


def _put(container: Any, key: str, value: Any) -> None:
    if isinstance(container, list):
        container.append(value)
    elif key in container:
        raise _error("duplicate key")
    else:
        container[key] = value


def _key(tokens: list[bytes], position: int) -> tuple[str, int]:
    """The key at ``position`` and where its value begins."""
    token = _at(tokens, position)
    if token[:1] in (b"[", b"{") or not isinstance(key := _scalar(token), str):
        raise _error("key is not a string in object")
    if _at(tokens, position + 1) != b":":
        raise _error("missing : in object pair")
    return key, position + 2


def _scalar(token: bytes) -> Any:
    first = token[0]
    if first in b"\"'":
        return _text(token)
    if 0x61 <= first <= 0x7A:
        if token not in _KEYWORDS:
            raise _error(f"invalid keyword '{token.decode()}'")
        return _KEYWORDS[token]
    if first in _STRUCTURE:
        raise _error("expecting value")
    if not any(letter in token for letter in (b".", b"e", b"E")):
        number = int(token)
        if -(1 << 63) <= number < 1 << 64:
            return number
    return float(token)


def _text(token: bytes) -> str:
    """The string that a token spells; raises JsonError with QEMU's words."""
    try:
        # QEMU's "modified UTF-8" has two bytes for the character NUL.
        text = token[1:-1].replace(b"\xc0\x80", b"\0").decode()
    except UnicodeDecodeError:
        raise _error("invalid UTF-8 sequence in string") from None
    if "\\" not in text:
        return text
    parts: list[str] = []
    position = 0
    closing = chr(token[0])
    while (found := text.find("\\", position)) >= 0:
        parts.append(text[position:found])
        character, position = _unescape(text, found, closing)
        parts.append(character)
    parts.append(text[position:])
    return "".join(parts)


def _unescape(text: str, start: int, closing: str) -> tuple[str, int]:
    """The character that the escape at ``start`` stands for, and where it ends."""
    found = _ESCAPE.match(text, start)
    code = _unit(found)
    if code is None:
        letter = text[start + 1]
        if letter == "u":
            raise _error(f"{(text + closing)[start : start + 6]} is not a valid Unicode character")
        if letter not in _ESCAPED:
            raise _error("invalid escape sequence in string")
        return _ESCAPED[letter], start + 2
    if 0xD800 <= code < 0xDC00:
        low = _unit(_ESCAPE.match(text, start + 6))
        if low is not None and 0xDC00 <= low < 0xE000:
            return chr(0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)), start + 12
    if 0xD800 <= code < 0xE000:
        raise _error(f"{text[start : start + 6]} is not a valid Unicode character")
    return chr(code), start + 6


def _unit(found: re.Match[str] | None) -> int | None:
    """The UTF-16 code unit of a ``\\uXXXX``, or None for anything else."""
    if found is None or found.group(1) is None:
        return None
    return int(found.group(1), 16)


def write(value: Any) -> str:
    """The value on one line, in ASCII, as QEMU spaces it. Not recursive."""
    parts: list[str] = []
    # Texts to be written as they are, and values still to be turned into text, last one first.
    todo: list[tuple[bool, Any]] = [(False, value)]
    while todo:
        literal, item = todo.pop()
        if literal:
            parts.append(item)
        elif isinstance(item, dict):
            todo.append((True, "}"))
            for number, (key, one) in reversed(list(enumerate(item.items()))):
                todo.append((False, one))
                name = encode_basestring_ascii(key)
                todo.append((True, f"{', ' if number else ''}{name}: "))
            todo.append((True, "{"))
        elif isinstance(item, (list, tuple)):
            todo.append((True, "]"))
            for number, one in reversed(list(enumerate(item))):
                todo.append((False, one))
                if number:
                    todo.append((True, ", "))
            todo.append((True, "["))
        else:
            parts.append(_atom(item))
    return "".join(parts)


def _atom(item: Any) -> str:
    if item is None:
        return "null"
    if isinstance(item, bool):
        return "true" if item else "false"
    if isinstance(item, str):
        return encode_basestring_ascii(item).replace("\x7f", "\\u007f")
    if isinstance(item, float):
        return f"{item:.17g}"
    return str(int(item))
