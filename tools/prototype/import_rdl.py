"""What SystemRDL 2.0 calls things, read through systemrdl-compiler.

Embedded Perl is refused: the map may be a stranger's.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from dm.errors import ConfigError

from .import_model import Kind, MapField, MapMemory, MapRegister, RegisterMap

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["read_rdl"]

_KINDS = {
    ("rw", "", ""): Kind(stores=True),
    ("r", "", ""): Kind(),
    ("w", "", ""): Kind(readable=False, passes=True),
    ("r", "rclr", ""): Kind(read_clears=True),
    ("rw", "rclr", ""): Kind(stores=True, read_clears=True),
    ("rw", "", "woclr"): Kind(clears=True),
    ("w", "", "woclr"): Kind(readable=False, clears=True),
    ("rw", "rclr", "woclr"): Kind(clears=True, read_clears=True),
}
"""(sw, onread, onwrite) of a field (SystemRDL 2.0, 9.6) that the kit has an access kind for."""

_ONCE = {"rw1": "rw", "w1": "w"}

_HARDWARE = {
    "counter": "counts by itself",
    "intr": "is an interrupt source",
    "swwe": "is writable at times only (swwe)",
    "swwel": "is writable at times only (swwel)",
}
"""Properties that software notices and no access kind has."""


def read_rdl(path: Path, peripheral: str | None, library: Callable[[str], Any]) -> RegisterMap:
    """The block ``peripheral`` (an instance or a definition; None: the last addrmap) of ``path``.

    ``library`` imports the compiler. Raises ConfigError with the first message of the compiler's.
    """
    rdl = library("systemrdl")
    messages: Any = library("systemrdl.messages")
    base: Any = messages.MessagePrinter
    told: list[str] = []

    class Printer(base):  # type: ignore[misc] # the library is not imported for types
        """Keeps the messages."""

        def print_message(self, severity: Any, text: str, source: Any) -> None:
            """Keep an error as one line."""
            if severity >= messages.Severity.ERROR:
                line = getattr(source, "line", None)
                place = f"{path}:{line}" if line else str(path)
                told.append(f"{place}: {' '.join(text.split())}")

    try:
        _refuse_perl(path, set())
        compiler = rdl.RDLCompiler(message_printer=Printer())
        compiler.compile_file(str(path))
        top = _block(compiler, peripheral, rdl)
    except rdl.RDLCompileError as error:
        raise ConfigError(told[0] if told else f"{path}: {error}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from None
    found = RegisterMap(top.inst_name, _text(top))
    found.size = top.size
    _walk(top, found, "", 0, (), rdl)
    return found


def _refuse_perl(path: Path, seen: set[Path]) -> None:
    """ConfigError when the file, or one that it includes, has Perl for the preprocessor to run."""
    seen.add(path)
    text = path.read_text("utf-8", errors="replace")
    if "<%" in text:
        raise ConfigError(f"{path}: embedded Perl (<% … %>) is not run")
    for name in re.findall(r'`include\s+"([^"\n]+)"', text):
        inner = path.parent / name
        if inner.is_file() and inner not in seen:
            _refuse_perl(inner, seen)


def _block(compiler: Any, peripheral: str | None, rdl: Any) -> Any:
    """The addrmap or regfile to import."""
    if peripheral is not None and peripheral in compiler.root.comp_defs:
        return compiler.elaborate(top_def_name=peripheral).top
    top = compiler.elaborate().top
    if peripheral in (None, top.inst_name):
        return top
    blocks = [
        n for n in top.descendants() if isinstance(n, rdl.node.AddrmapNode | rdl.node.RegfileNode)
    ]
    for node in blocks:
        if peripheral in (node.inst_name, node.get_path()):
            return node
    names = ", ".join(dict.fromkeys([top.inst_name, *(node.inst_name for node in blocks)]))
    raise ConfigError(f"there is no block {peripheral} (there is: {names})")


def _walk(
    node: Any,
    found: RegisterMap,
    prefix: str,
    base: int,
    dims: tuple[tuple[int, int], ...],
    rdl: Any,
) -> None:
    """Add everything below ``node``, which lies at ``base`` of the block."""
    for child in node.children():
        if isinstance(child, rdl.node.SignalNode):
            continue
        name, offset = prefix + child.inst_name, base + child.raw_address_offset
        inner = (*dims, *_dimensions(child))
        if isinstance(child, rdl.node.RegNode):
            found.registers.append(_register(child, name, offset, inner))
        elif isinstance(child, rdl.node.MemNode):
            _memory(child, name, offset, inner, found)
        else:
            _walk(child, found, f"{name}_", offset, inner, rdl)


def _dimensions(node: Any) -> list[tuple[int, int]]:
    """(count, stride) of each dimension; only the innermost stride is declared (5.1.2.2)."""
    dims: list[tuple[int, int]] = []
    stride = node.array_stride if node.is_array else 0
    for count in reversed(node.array_dimensions or []):
        dims.insert(0, (count, stride))
        stride *= count
    return dims


def _register(node: Any, name: str, offset: int, dims: tuple[tuple[int, int], ...]) -> MapRegister:
    register = MapRegister(
        name, offset, node.get_property("regwidth"), Kind(), dims=dims, text=_text(node)
    )
    if node.is_alias:
        register.remarks.append("it is an alias in the file: here it has bits of its own")
    for child in node.fields():
        register.fields.append(_field(child))
        reset = child.get_property("reset")
        if isinstance(reset, int):
            register.reset |= reset << child.low
        elif reset is not None:
            register.fields[-1].remarks.append("its reset value comes from elsewhere: zero here")
    return register


def _field(node: Any) -> MapField:
    encoding = node.get_property("encode")
    names = {} if encoding is None else {one.value: one.name for one in encoding}
    made = MapField(node.inst_name, node.high, node.low, Kind(), names, _text(node))
    software = node.get_property("sw").name
    if software in _ONCE:
        made.remarks.append(f"sw={software}, written once, is not modelled: written any time here")
        software = _ONCE[software]
    read, write = (_name(node.get_property(p)) for p in ("onread", "onwrite"))
    if node.get_property("singlepulse") and "w" in software:
        software, write = "w", ""
        made.remarks.append("it is a single pulse: a write handler sees it, a read gives zero")
    kind = _KINDS.get((software, read, write))
    if kind is None:
        effects = [f"{p}={v}" for p, v in (("onread", read), ("onwrite", write)) if v]
        kind = _KINDS[(software, "", "")]
        made.remarks.append(f"{' and '.join(effects)} is not modelled: sw={software} alone here")
    made.kind = kind
    for name, meaning in _HARDWARE.items():
        if node.get_property(name):
            made.remarks.append(f"it {meaning}, which the device's code must do")
    return made


def _name(value: Any) -> str:
    return "" if value is None else str(value.name)


def _memory(
    node: Any, name: str, offset: int, dims: tuple[tuple[int, int], ...], found: RegisterMap
) -> None:
    if dims:
        found.remarks.append(
            f"{name} at {offset:#x}: only the first of an array of memories is here"
        )
    length = node.get_property("memwidth") // 8 * node.get_property("mementries")
    writable = "w" in node.get_property("sw").name
    found.memories.append(MapMemory(name, offset, length, writable, _text(node)))


def _text(node: Any) -> str:
    """Name and description as somebody wrote them; a name that is only the instance's is none."""
    name, text = node.get_property("name"), node.get_property("desc")
    title = "" if name == node.inst_name else name.strip().rstrip(".") + "."
    return f"{title} {text or ''}".strip()
