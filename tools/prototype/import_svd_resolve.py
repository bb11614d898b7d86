"""What a CMSIS-SVD file leaves unsaid, said: inheritance, derivation and numbers.

cmsis-svd 0.6 reads the elements of the format, but gets these wrong without a word: properties of a
cluster do not reach its registers, what is derived needs a description of its own, and binary
numbers are nothing. So its parser is given one peripheral in which every element is explicit.

Source: CMSIS-SVD 1.3, "registerPropertiesGroup", "dimElementGroup", "derivedFrom".
"""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

from dm.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["choose", "resolve"]

INHERITED = ("size", "access", "resetValue", "resetMask")
"""What a register takes from its cluster, that from its peripheral, that from the chip."""

EFFECTS = ("access", "modifiedWriteValues", "readAction")
"""Properties that a field takes from its register."""

NUMBERS = (
    *("size", "resetValue", "resetMask", "addressOffset", "baseAddress", "offset", "dim"),
    *("dimIncrement", "bitOffset", "bitWidth", "lsb", "msb"),
)
DIMENSION = ("dim", "dimIncrement", "dimIndex", "dimName", "dimArrayIndex")
ACCESSES = ("read-only", "write-only", "read-write", "writeOnce", "read-writeOnce")
DERIVABLE = ("peripheral", "cluster", "register", "field", "enumeratedValues")

MOST_NODES = 200_000
"""Elements that derivation may copy: a few lines can ask for more than there is memory."""
MOST_ELEMENTS = 1 << 14
"""Elements of one array."""


def choose(root: Any, name: str | None, path: Path) -> Any:
    """The peripheral element called ``name``, or the only one. ConfigError when there is none."""
    found = {_text(node, "name"): node for node in root.findall("./peripherals/peripheral")}
    if name is None and len(found) == 1:
        return next(iter(found.values()))
    for known, node in found.items():
        pattern = re.escape(known).replace("%s", r"\w*").replace("\\[", "").replace("\\]", "")
        if name is not None and (name == known or re.fullmatch(pattern, name)):
            return node
    names = ", ".join(list(found)[:40]) + (", …" if len(found) > 40 else "")
    what = "which --peripheral?" if name is None else f"there is no peripheral {name}"
    raise ConfigError(f"{path}: {what} (there is: {names or 'none'})")


def resolve(root: Any, peripheral: Any, path: Path) -> None:
    """Make everything in ``peripheral`` explicit and remove the others from the tree."""
    resolver = _Resolver(root, path)
    resolver.derive(peripheral)
    inherited = {tag: _text(root, tag) for tag in INHERITED}
    resolver.inherit(peripheral, inherited)
    for node in root.findall("./peripherals/peripheral"):
        if node is not peripheral:
            node.getparent().remove(node)
    for tag in (*DIMENSION, "prependToName", "appendToName"):
        for node in peripheral.findall(tag):
            peripheral.remove(node)
    resolver.numbers(peripheral)


class _Resolver:
    """One file's derivations."""

    def __init__(self, root: Any, path: Path) -> None:
        self._root = root
        self._path = path
        self._under_way: list[Any] = []
        self._copied = 0

    def _wrong(self, node: Any, what: str) -> ConfigError:
        return ConfigError(f"{self._path}:{node.sourceline}: {what}")

    def derive(self, node: Any) -> None:
        """Copy into ``node`` and all below it what they are derived from."""
        source = node.attrib.pop("derivedFrom", None)
        if source is not None:
            self._under_way.append(node)
            origin = self._find(node, source)
            if origin in self._under_way:
                raise self._wrong(node, f"{source} is derived from itself")
            self.derive(origin)
            self._copy(origin, node)
            self._under_way.pop()
        for child in [one for one in node.iter(*DERIVABLE) if "derivedFrom" in one.attrib]:
            if "derivedFrom" in child.attrib:
                self.derive(child)

    def _find(self, node: Any, source: str) -> Any:
        """The element of the same kind that ``source`` names: a sibling's name, or a path
        from any of the elements around it."""
        for near in node.getparent().findall(node.tag):
            if near is not node and _text(near, "name") == source:
                return near
        found = [
            place
            for scope in node.iterancestors()
            for place in _reached(scope, source.split("."))
            if place.tag == node.tag and place is not node
        ]
        if not found and node.tag == "enumeratedValues":
            everywhere = self._root.iter("enumeratedValues")
            found = [n for n in everywhere if n is not node and _text(n, "name") == source]
        if not found:
            raise self._wrong(node, f"there is no {node.tag} {source} to derive from")
        return found[0]

    def _copy(self, origin: Any, node: Any) -> None:
        own = {child.tag: child for child in node}
        array = "%s" in _text(node, "name")
        for child in origin:
            if child.tag in ("registers", "fields") and child.tag in own:
                names = {_text(one, "name") for one in own[child.tag]}
                for one in child:
                    if _text(one, "name") not in names:
                        self._add(own[child.tag], one)
            elif child.tag in ("register", "cluster"):
                names = {_text(one, "name") for one in node.findall(child.tag)}
                if _text(child, "name") not in names:
                    self._add(node, child)
            elif child.tag not in own and (array or child.tag not in DIMENSION):
                self._add(node, child)

    def _add(self, parent: Any, child: Any) -> None:
        self._copied += sum(1 for _ in child.iter())
        if self._copied > MOST_NODES:
            raise self._wrong(parent, f"derivation makes more than {MOST_NODES} elements")
        parent.append(copy.deepcopy(child))

    def inherit(self, node: Any, above: dict[str, str]) -> None:
        """Give every register below ``node`` the properties that it has not itself."""
        here = {tag: _text(node, tag) or above[tag] for tag in above}
        for child in (*node.findall("./registers/*"), *node.findall("cluster"), *_direct(node)):
            if child.tag == "cluster":
                self.inherit(child, here)
            elif child.tag == "register":
                self._complete(child, here)

    def _complete(self, register: Any, above: dict[str, str]) -> None:
        for tag, value in above.items():
            _set_default(register, tag, value)
        effects = {tag: _text(register, tag) for tag in EFFECTS}
        for field in register.findall("./fields/field"):
            for tag, value in effects.items():
                _set_default(field, tag, value)
        for one in (register, *register.findall("./fields/field")):
            access = _text(one, "access")
            if access and access not in ACCESSES:
                raise self._wrong(one, f"{access!r} is no access")

    def numbers(self, peripheral: Any) -> None:
        """Write every number as a decimal; drop named values that stand for several."""
        for node in peripheral.iter(*NUMBERS):
            node.text = str(self._number(node))
            if node.tag == "dim" and not 1 <= int(node.text) <= MOST_ELEMENTS:
                raise self._wrong(node, f"an array of {node.text} elements")
        for value in list(peripheral.iter("enumeratedValue")):
            number = value.find("value")
            if number is None or "x" in (number.text or "").lower().removeprefix("0x"):
                value.getparent().remove(value)
            else:
                number.text = str(self._number(number))

    def _number(self, node: Any) -> int:
        """A scaledNonNegativeInteger of the schema; bits that are `x` are zero."""
        text = (node.text or "").strip().lower().removeprefix("+")
        match = re.fullmatch(r"(?:0b|#)([01x]+)|0x([0-9a-f]+)|([0-9]+)([kmgt]?)", text)
        if match is None:
            raise self._wrong(node, f"{node.tag}: {text[:40]!r} is no number")
        binary, hexadecimal, decimal, unit = match.groups()
        if binary is not None:
            return int(binary.replace("x", "0"), 2)
        if hexadecimal is not None:
            return int(hexadecimal[:32], 16)
        return int(decimal[:32]) << 10 * (" kmgt".index(unit) if unit else 0)


def _reached(scope: Any, names: list[str]) -> list[Any]:
    """The elements that the path ``names`` leads to from ``scope``."""
    places = [scope]
    for name in names:
        places = [
            child
            for place in places
            for child in _named_children(place)
            if _text(child, "name") == name
        ]
    return places


def _named_children(place: Any) -> Iterator[Any]:
    """The elements that a dotted path can go on with below ``place``."""
    for child in place:
        if child.tag in ("peripherals", "registers", "fields"):
            yield from child
        elif child.tag in DERIVABLE:
            yield child


def _direct(node: Any) -> list[Any]:
    """The registers of a cluster, which has no container for them."""
    found: list[Any] = node.findall("register") if node.tag == "cluster" else []
    return found


def _set_default(node: Any, tag: str, value: str) -> None:
    if value and node.find(tag) is None:
        made = node.makeelement(tag)
        made.text = value
        node.append(made)


def _text(node: Any, tag: str) -> str:
    return (node.findtext(tag) or "").strip()
