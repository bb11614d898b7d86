"""How QEMU writes values on a command line: key=value lists, sizes, numbers, switches.

Source: QEMU 7.2, util/qemu-option.c and util/cutils.c.
"""

from __future__ import annotations

from dm.errors import ConfigError

__all__ = ["as_number", "as_size", "as_switch", "keyval", "record"]

_SWITCHES = {
    "on": True,
    "yes": True,
    "true": True,
    "y": True,
    "off": False,
    "no": False,
    "false": False,
    "n": False,
}
_SUFFIXES = "bkmgtpe"
# A NUL byte cannot occur in an argument vector, so it can stand for an escaped comma.
_ESCAPED = "\0"


def _pieces(text: str) -> list[str]:
    """The parts between single commas; two commas stand for one that belongs to the value."""
    if ",," not in text:
        return text.split(",")
    return [part.replace(_ESCAPED, ",") for part in text.replace(",,", _ESCAPED).split(",")]


def _bare(part: str, first_key: str | None) -> tuple[str, str]:
    """The key and value that a part without ``=`` stands for."""
    if first_key is not None:
        return first_key, part
    if part.startswith("no") and len(part) > 2:
        return part[2:], "off"
    return part, "on"


def keyval(text: str, implied: str | None = None) -> dict[str, str]:
    """Splits ``a=1,b=2`` into an ordered dict of strings; the last of two equal keys wins.

    :param implied: the key of a first part that has no ``=``.
    A later part without ``=`` is a switch: ``server`` is server=on, ``nowait`` is wait=off.
    """
    result: dict[str, str] = {}
    if not text:
        return result
    for part in _pieces(text):
        key, equals, value = part.partition("=")
        if not equals:
            key, value = _bare(part, implied)
        implied = None
        if key:
            result[key] = value
    return result


def as_switch(option: str, key: str, value: str) -> bool:
    """The truth of ``key=value``; raises ConfigError when it is neither on nor off."""
    try:
        return _SWITCHES[value]
    except KeyError:
        raise ConfigError(f"{option}: parameter '{key}' expects 'on' or 'off'") from None


def as_number(option: str, text: str, low: int = 0, high: int = 2**64 - 1) -> int:
    """A number in C's notation within [low, high]; raises ConfigError naming the option."""
    try:
        number = int(text, 0) if text[:2] in ("0x", "0X") else int(text, 10)
    except ValueError:
        raise ConfigError(f"{option}: expected a number, not '{text}'") from None
    if not low <= number <= high:
        raise ConfigError(f"{option}: {number} is outside {low}..{high}")
    return number


def as_size(option: str, text: str, unit: int = 1) -> int:
    """A size in bytes: a number with an optional suffix b, k, M, G, T, P or E.

    :param unit: bytes that a number without suffix counts in.
    """
    digits, suffix = text, ""
    if text[-1:].lower() in _SUFFIXES and text[-1:] and not text.lower().startswith("0x"):
        digits, suffix = text[:-1], text[-1].lower()
    scale = 1 << (10 * _SUFFIXES.index(suffix)) if suffix else unit
    whole, point, fraction = digits.partition(".")
    number = as_number(option, whole) * scale
    if point:
        number += scale * as_number(option, fraction or "0") // 10 ** len(fraction)
    if number >= 1 << 64:
        raise ConfigError(f"{option}: {text} is too large")
    return number


def record(name: str, text: str, implied: str | None) -> dict[str, str]:
    """A dict from ``a=1,b=2`` or, as QEMU 7.2 also takes it, from a JSON object of scalars.

    :param name: the option without its dash, for messages.
    """
    if not text.startswith("{"):
        return keyval(text, implied)
    import json

    try:
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError
    except (ValueError, RecursionError):
        raise ConfigError(f"-{name}: the argument is not a JSON object") from None
    return {str(key): _scalar(value) for key, value in values.items()}


def _scalar(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)
