"""How a register map becomes a device file: read, fitted to the kit, written out."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, NamedTuple

from dm.errors import ConfigError

from .import_code import device_code
from .import_fit import camel, fit
from .import_rdl import read_rdl

if TYPE_CHECKING:
    from pathlib import Path

    from .import_model import RegisterMap

__all__ = ["PLACES", "Imported", "import_map"]

PLACES = ("pci", "mmio")
"""Where the imported registers may lie: behind BAR 0 of a PCI function, or at a fixed address."""

LARGEST_FILE = 16 << 20
"""Bytes of a map; vendors' largest have 4 MiB."""


class Imported(NamedTuple):
    """The text of the device file, its class, and what could not be carried over."""

    text: str
    name: str
    warnings: list[str]


def import_map(
    path: Path, *, peripheral: str | None = None, name: str | None = None, place: str = "pci"
) -> Imported:
    """Make a device file of the block ``peripheral`` in the SystemRDL or CMSIS-SVD file ``path``.

    ``name``: of the class (default: made from the block's). ``place``: one of `PLACES`. Raises
    ConfigError when the file cannot be read, names no such block, or the library is missing.
    """
    found = _read(path, peripheral)
    fit(found)
    device = name or camel(found.name)
    return Imported(device_code(found, device, place, path.name), device, _warnings(found))


def _read(path: Path, peripheral: str | None) -> RegisterMap:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    if size > LARGEST_FILE:
        raise ConfigError(f"{path} has {size} bytes; {LARGEST_FILE} are too many already")
    if path.suffix == ".rdl":
        return read_rdl(path, peripheral, _library)
    if path.suffix == ".svd":
        from .import_svd import read_svd

        return read_svd(path, peripheral, _library)
    raise ConfigError(f"{path} is neither a .rdl nor a .svd file")


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        needed = name.partition(".")[0]
        raise ConfigError(f"this needs {needed}: pip install 'ioreqd[maps]'") from None


def _warnings(found: RegisterMap) -> list[str]:
    """Every remark, with what it is about; the same ones are comments in the file."""
    told = list(found.remarks)
    for register in found.registers:
        told += [f"{register.name}: {remark}" for remark in register.remarks]
        for one in register.fields:
            told += [f"{register.name}.{one.name}: {remark}" for remark in one.remarks]
    return told
