"""How the arguments of a command are declared, and QEMU's words for those that do not fit.

Source: QEMU 7.2, qapi/qobject-input-visitor.c.
"""

from __future__ import annotations

from typing import Any

from dm.control.qmp_error import QmpError

__all__ = ["ANYTHING", "Schema", "check"]

# Argument -> type; a trailing "?" marks an optional one, "a|b" an enumeration, "[T]" a list of T.
Schema = dict[str, str]
# A command whose arguments only it can judge.
ANYTHING: Schema = {"*": ""}

_NAMES = {
    "str": "string",
    "int": "integer",
    "bool": "boolean",
    "dict": "object",
}
_CLASSES = {"str": str, "int": int, "bool": bool, "dict": dict}


def check(schema: Schema, arguments: dict[str, Any]) -> None:
    """Raises QmpError if the arguments are not what the schema declares."""
    if schema is ANYTHING:
        return
    for name, declared in schema.items():
        kind = declared.removesuffix("?")
        if name in arguments:
            _check_one(name, kind, arguments[name])
        elif kind == declared:
            raise QmpError(f"Parameter '{name}' is missing")
    for name in arguments:
        if name not in schema:
            raise QmpError(f"Parameter '{name}' is unexpected")


def _check_one(name: str, kind: str, value: Any) -> None:
    if kind.startswith("["):
        if not isinstance(value, list):
            raise QmpError(f"Invalid parameter type for '{name}', expected: array")
        for number, one in enumerate(value):
            _check_one(f"{name}[{number}]", kind[1:-1], one)
        return
    enumeration = kind not in _CLASSES
    wanted = "str" if enumeration else kind
    fits = isinstance(value, _CLASSES[wanted])
    if wanted == "int":
        fits = fits and not isinstance(value, bool) and -(1 << 63) <= value < 1 << 63
    if not fits:
        raise QmpError(f"Invalid parameter type for '{name}', expected: {_NAMES[wanted]}")
    if enumeration and value not in kind.split("|"):
        # QEMU has no name for an element of a list here.
        shown = "null" if name.endswith("]") else name
        raise QmpError(f"Parameter '{shown}' does not accept value '{value}'")
