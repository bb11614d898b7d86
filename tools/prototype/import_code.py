"""How a register map looks as a device file: declarations as the formatter would lay them out.

Lines break at 88 columns, exploded calls end in a comma: formatters leave that alone whether they
are set to 88 columns or to more.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from .import_fit import camel, kind_of, unique
from .import_model import Kind, MapRegister

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .import_model import MapField, MapMemory, RegisterMap

__all__ = ["device_code"]

COLUMNS = 88
INDENT = "    "

_KNOWN = {
    Kind(stores=True): "RW",
    Kind(): "RO",
    Kind(readable=False, passes=True): "WO",
    Kind(clears=True): "W1C",
    Kind(read_clears=True): "RC",
}
"""Kinds that `dm` has a name for."""

_OWN = {
    Kind(stores=True, read_clears=True): "RW_RC",
    Kind(readable=False, clears=True): "WO_W1C",
    Kind(clears=True, read_clears=True): "W1C_RC",
}
"""Kinds that the file declares for itself."""

_IMPORTED = (
    *("Access", "Bank", "BankMemory", "Bit", "Device", "Field", "MmioBar", "MmioWindow", "Option"),
    *("PciDevice", "PciIdentity", "Register", *_KNOWN.values(), *_OWN.values()),
)
"""Names that a class of the file may not take."""

_PLACES = {"pci": "MmioBar", "mmio": "MmioWindow"}


class _Code:
    """The file under way: names that it needs from `dm`, its register classes and their lines."""

    def __init__(self, found: RegisterMap, device: str, place: str) -> None:
        self.found = found
        self.device = device
        self.place = place
        self.taken = {device, "Registers", *_IMPORTED}
        self.needs = {"Bank", _PLACES[place]}
        self.own: dict[str, Kind] = {}
        self.classes: dict[tuple[str, ...], str] = {}
        self.lines: list[str] = []
        widths = [register.width for register in found.registers]
        self.width = max(sorted(set(widths)), key=widths.count, default=32)

    def access(self, kind: Kind) -> str:
        """The name of an access kind, declared where need be."""
        if kind in _KNOWN:
            self.needs.add(_KNOWN[kind])
            return _KNOWN[kind]
        self.needs.add("Access")
        self.own[_OWN[kind]] = kind
        return _OWN[kind]


def device_code(found: RegisterMap, device: str, place: str, source: str) -> str:
    """The text of a file with class ``device`` over the fitted map ``found``.

    ``place``: ``pci`` or ``mmio``. ``source``: the imported file's name, for the docstring.
    """
    code = _Code(found, device, place)
    bank = list(_bank(code))
    body = [*code.lines, *bank, "", "", *_device(code)]
    head = list(_head(code, source))
    return "\n".join([*head, *body]) + "\n"


def _head(code: _Code, source: str) -> Iterator[str]:
    title = f"{code.found.name}: {_clean(code.found.text) or 'an imported register map'}"
    lines = textwrap.wrap(title.rstrip(".") + ".", COLUMNS - 4)
    yield f'"""{lines[0]}'
    yield from lines[1:]
    yield ""
    yield from textwrap.wrap(f"Sources: imported from {_clean(source)}.", COLUMNS)
    yield "Not modelled: all that its registers do; so far they keep what is written."
    if code.found.remarks:
        yield "What could not be imported:"
        for remark in code.found.remarks:
            yield from textwrap.wrap(
                _clean(remark), COLUMNS, initial_indent="- ", subsequent_indent="  "
            )
    yield from ('"""', "", "from __future__ import annotations", "")
    yield "from dm import ("
    yield from (f"{INDENT}{name}," for name in sorted(code.needs, key=_import_order))
    yield ")"
    if code.own:
        yield ""
    for name, kind in code.own.items():
        given = [f'"{name}"'] + [
            f"{key}={value}"
            for key, value in kind._asdict().items()
            if value != Kind._field_defaults[key]
        ]
        yield from _call(f"{name} = Access", given, "")
    yield from ("", "")


def _import_order(name: str) -> tuple[int, str]:
    """Constants first, then classes, as the linters have it."""
    return (0 if name.isupper() or name == "W1C" else 1, name)


def _device(code: _Code) -> Iterator[str]:
    pci = code.place == "pci"
    base = "PciDevice" if pci else "Device"
    yield f"class {code.device}({base}):"
    yield f'{INDENT}"""{_clean(code.found.name)}, with nothing behind its registers yet."""'
    yield ""
    if pci:
        yield f"{INDENT}# Choose the numbers that your guest's driver looks for."
        yield f"{INDENT}identity = PciIdentity(vendor=0x1AF4, device=0x10F0, class_code=0x088000)"
        yield ""
        yield f"{INDENT}registers = MmioBar(Registers, index=0)"
    else:
        yield f'{INDENT}addr = Option(int, 0xFE000000, "address of its registers")'
        yield ""
        yield f"{INDENT}registers = MmioWindow(Registers, at=addr)"
    written = next((r for r in code.found.registers if kind_of(r).stores and not r.dims), None)
    if written is not None:
        yield ""
        yield f"{INDENT}# What a register does goes into a handler:"
        yield f"{INDENT}# @Registers.{written.name}.on_write"
        yield f"{INDENT}# def _{written.name}_written(self, new: int, old: int) -> None: ..."
    code.needs |= {"PciDevice", "PciIdentity"} if pci else {"Device", "Option"}


def _bank(code: _Code) -> Iterator[str]:
    found = code.found
    given = ["Bank", f"size={_hex(found.size)}"]
    given += [f"width={code.width}"] if code.width != 32 else []
    yield from _call("class Registers", given, "", ":")
    yield from _docstring(found.text or f"The registers of {found.name}.", INDENT)
    yield ""
    for register in found.registers:
        yield from _placed(code, register)
    for memory in found.memories:
        yield from _memory(code, memory)


def _placed(code: _Code, register: MapRegister) -> Iterator[str]:
    kind = kind_of(register) if register.fields else register.kind
    given = [_hex(register.offset)]
    if register.fields:
        name = _register_class(code, register)
    else:
        name = "Register"
        code.needs.add(name)
        given += [f"access={code.access(kind)}"] if _KNOWN.get(kind) != "RW" else []
    if register.dims:
        count, stride = register.dims[0]
        given.insert(1, str(count))
        given += [f"stride={_hex(stride)}"] if stride != register.width // 8 else []
    given += [f"width={register.width}"] if register.width != code.width else []
    given += [f"reset={_hex(register.reset)}"] if register.reset else []
    yield from _comments(register.remarks)
    place = "array" if register.dims else "at"
    yield from _call(f"{register.name} = {name}.{place}", given, INDENT)
    yield from _docstring(register.text, INDENT)


def _memory(code: _Code, memory: MapMemory) -> Iterator[str]:
    code.needs.add("BankMemory")
    given = [_hex(memory.offset), _hex(memory.length)]
    given += [] if memory.writable else ["writable=False"]
    yield from _call(f"{memory.name} = BankMemory", given, INDENT)
    yield from _docstring(memory.text, INDENT)


def _register_class(code: _Code, register: MapRegister) -> str:
    """The class of the register's fields; registers with the same share it."""
    common = kind_of(register)
    default = {(True, False): "RO", (False, True): "WO"}.get((common.readable, common.stores), "RW")
    body = [line for one in register.fields for line in _field(code, one, default)]
    key = (default, *body)
    if key in code.classes:
        return code.classes[key]
    name = unique(camel(register.name), code.taken)
    code.classes[key] = name
    code.needs |= {"Register", default} - {"RW"}
    given = ["Register"] + ([f"access={default}"] if default != "RW" else [])
    code.lines += _call(f"class {name}", given, "", ":")
    code.lines += _docstring(f"The fields of {register.name}.", INDENT)
    code.lines += ["", *body, "", ""]
    return name


def _field(code: _Code, one: MapField, default: str) -> Iterator[str]:
    single = one.high == one.low and not one.names
    given = [str(one.high)] if single else [str(one.high), str(one.low)]
    if _KNOWN.get(one.kind) != default:
        given.append(f"access={code.access(one.kind)}")
    if one.names:
        given.append(_names(one.names))
    kind = "Bit" if single else "Field"
    code.needs.add(kind)
    yield from _comments(one.remarks)
    yield from _call(f"{one.name} = {kind}", given, INDENT)
    yield from _docstring(one.text, INDENT)


def _names(names: dict[int, str]) -> str:
    pairs = [f'{_hex(value)}: "{_clean(name)[:40]}"' for value, name in sorted(names.items())]
    line = f"names={{{', '.join(pairs)}}}"
    if len(line) + 2 * len(INDENT) + 1 <= COLUMNS:
        return line
    inner = "".join(f"{INDENT * 3}{pair},\n" for pair in pairs)
    return f"names={{\n{inner}{INDENT * 2}}}"


def _hex(value: int) -> str:
    """A number as the formatter writes it."""
    return f"0x{value:X}"


def _call(head: str, given: Sequence[str], indent: str, tail: str = "") -> Iterator[str]:
    """``head(given)`` in one line, or each argument on its own."""
    line = f"{indent}{head}({', '.join(given)}){tail}"
    if len(line) <= COLUMNS and "\n" not in line:
        yield line
        return
    yield f"{indent}{head}("
    for argument in given:
        yield from f"{indent}{INDENT}{argument},".split("\n")
    yield f"{indent}){tail}"


def _comments(remarks: Iterable[str]) -> Iterator[str]:
    for remark in remarks:
        yield from textwrap.wrap(
            f"TODO: {_clean(remark)}.",
            COLUMNS,
            initial_indent=f"{INDENT}# ",
            subsequent_indent=f"{INDENT}# ",
        )


def _docstring(text: str, indent: str) -> Iterator[str]:
    text = _clean(text)
    if not text:
        return
    if len(text) + len(indent) + 6 <= COLUMNS:
        yield f'{indent}"""{text}"""'
        return
    lines = textwrap.wrap(text, COLUMNS - len(indent) - 3)
    yield f'{indent}"""{lines[0]}'
    yield from (f"{indent}{line}" for line in lines[1:])
    yield f'{indent}"""'


def _clean(text: str) -> str:
    """Text that may stand in a docstring, a comment or a string: one line, nothing to escape."""
    plain = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(plain.replace("\\", "/").replace('"', "'").split())
