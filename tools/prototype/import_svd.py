"""What CMSIS-SVD calls things, read through cmsis-svd."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dm.errors import ConfigError

from .import_model import Kind, MapField, MapRegister, RegisterMap
from .import_svd_resolve import choose, resolve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["read_svd"]

_ACCESS = {
    "read-write": Kind(stores=True),
    "read-only": Kind(),
    "write-only": Kind(readable=False, passes=True),
}

_ONCE = {"writeOnce": "write-only", "read-writeOnce": "read-write"}


def read_svd(path: Path, peripheral: str | None, library: Callable[[str], Any]) -> RegisterMap:
    """The peripheral ``peripheral`` (None: the only one) of ``path``.

    ``library`` imports the parsers. Raises ConfigError when the file says something impossible.
    """
    parsers = library("cmsis_svd.parser")
    etree = library("lxml.etree")
    try:
        # Nothing but the file is read, and nothing in it grows when it is.
        reader = etree.XMLParser(resolve_entities=False, no_network=True, remove_comments=True)
        tree = etree.parse(str(path), reader)
    except (OSError, etree.XMLSyntaxError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from None
    root = tree.getroot()
    if root.tag != "device":
        raise ConfigError(f"{path} is not a CMSIS-SVD file: it holds a {root.tag}")
    chosen = choose(root, peripheral, path)
    resolve(root, chosen, path)
    try:
        device = parsers.SVDParser(tree).get_device()
        return _peripheral(device, device.peripherals[0])
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: cmsis-svd does not understand it: {error!r}") from error


def _peripheral(device: Any, peripheral: Any) -> RegisterMap:
    found = RegisterMap(peripheral.name.replace("%s", ""), _text(peripheral))
    interrupts = [f"{one.name} ({one.value})" for one in peripheral.interrupts or ()]
    if interrupts:
        found.remarks.append(f"its interrupts, {', '.join(interrupts)}, are not connected")
    if device.address_unit_bits not in (None, 8):
        found.remarks.append(f"an address counts {device.address_unit_bits} bits: taken as 8")
    if device.cpu is not None and device.cpu.endian.value == "big":
        found.remarks.append("it is big-endian: little-endian here")
    blocks = [block for block in peripheral.address_blocks or () if block.size]
    found.size = max(((block.offset or 0) + block.size for block in blocks), default=0)
    for one in peripheral.registers or ():
        _entry(one, found, "", 0, (), moved=0)
    return found


def _entry(
    one: Any,
    found: RegisterMap,
    prefix: str,
    base: int,
    dims: tuple[tuple[int, int], ...],
    *,
    moved: int,
) -> None:
    """Add a register or all of a cluster. ``moved``: what the parser added to its offset."""
    meta = getattr(one, "meta_register", None) or getattr(one, "meta_cluster", None)
    if meta is not None:
        dims = (*dims, (meta.dim, meta.dim_increment or 0))
        one, moved = meta, 0
    name = _plain_name(one.name)
    offset = base + one.address_offset - moved
    if not hasattr(one, "clusters"):
        found.registers.append(_register(one, prefix + name, offset, dims))
        return
    # The parser adds the offset and the name of a cluster that is no array to its registers.
    shift = one.address_offset if one.dim is None else 0
    for child in one.registers:
        if shift or one.dim is None:
            _unprefix(child, f"{one.name}_")
        plain = not hasattr(child, "meta_register")
        _entry(child, found, f"{prefix}{name}_", offset, dims, moved=shift if plain else 0)
    for child in one.clusters:
        _entry(child, found, f"{prefix}{name}_", offset, dims, moved=0)


def _unprefix(register: Any, prefix: str) -> None:
    if not hasattr(register, "meta_register"):
        register.name = register.name.removeprefix(prefix)


def _plain_name(name: str) -> str:
    return name.replace("[%s]", "").replace("%s", "")


def _register(one: Any, name: str, offset: int, dims: tuple[tuple[int, int], ...]) -> MapRegister:
    made = MapRegister(name, offset, one.size or 32, Kind(), dims=dims, text=_text(one))
    made.kind = _kind(one, made.remarks)
    full = (1 << made.width) - 1
    mask = full if one.reset_mask is None else one.reset_mask & full
    made.reset = (one.reset_value or 0) & mask & full
    if mask != full and one.reset_mask & full:
        made.remarks.append(f"after reset the bits {full & ~mask:#x} are undefined: zero here")
    if one.dim_index and [str(index) for index in one.dim_index] != [
        str(i) for i in range(one.dim)
    ]:
        made.text = f"{made.text} Elements: {', '.join(map(str, one.dim_index))}.".strip()
    for field in one.get_fields():
        if not field.is_reserved:
            made.fields.append(_field(field))
    if made.fields:
        made.remarks = [one for one in made.remarks if "after reset" in one]
    return made


def _field(one: Any) -> MapField:
    low = one.bit_offset
    width = 1 if one.bit_width is None else one.bit_width
    made = MapField(one.name, low + width - 1, low, Kind(), text=_text(one))
    made.kind = _kind(one, made.remarks)
    for values in (one.enumerated_values or ())[:1]:
        named = {v.value: v.name or "" for v in values.enumerated_values if v.value is not None}
        made.names = {value: name for value, name in named.items() if value < 1 << width}
    return made


def _kind(one: Any, remarks: list[str]) -> Kind:
    """The access kind of a register or a field; what it lacks is remarked."""
    access = "read-write" if one.access is None else one.access.value
    if access in _ONCE:
        remarks.append(f"{access} is not modelled: written any time here")
        access = _ONCE[access]
    kind = _ACCESS[access]
    write = "modify" if one.modified_write_values is None else one.modified_write_values.value
    if write == "oneToClear" and kind.writable:
        kind = Kind(readable=kind.readable, clears=True)
    elif write != "modify" and kind.writable:
        remarks.append(f"modifiedWriteValues={write} is not modelled: {access} alone here")
    action = "" if one.read_action is None else one.read_action.value
    if action == "clear" and kind.readable:
        kind = kind._replace(read_clears=True)
    elif action and kind.readable:
        remarks.append(f"readAction={action} is not modelled: {access} alone here")
    if one.write_constraint is not None:
        remarks.append("its writeConstraint is not modelled: every value is taken here")
    return kind


def _text(one: Any) -> str:
    return str(one.description or "")
