"""What a first device file is: a template for each kind of place, under a chosen name."""

from __future__ import annotations

import ast
import builtins
import keyword
import sys
from importlib.resources import files
from typing import TYPE_CHECKING

from dm.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["KINDS", "class_name", "new_device", "new_guest", "write_new_file"]

KINDS = ("pci", "mmio", "ports")
"""Where the device's registers can lie; each has a template in ``data``."""

_CLASS, _MODULE = "MyDevice", "my_device"
"""What the templates say in place of the names that are chosen."""

_OURS = ("dm", "devices", "protocol", "tools", "tests")


def new_device(path: Path, kind: str) -> str:
    """Write the template of ``kind`` (one of `KINDS`) to ``path``; gives the name of its class.

    Raises ConfigError when the file is there, cannot be written, or has a name that would not do.
    """
    template = files(__package__).joinpath("data", f"new_{kind}.py.in").read_text("utf-8")
    name = class_name(path)
    if name in _names_bound(template) or hasattr(builtins, name):
        raise ConfigError(f"{path}: the class would be called {name}, which means something else")
    write_new_file(path, template.replace(_CLASS, name).replace(_MODULE, path.stem))
    return name


def new_guest(path: Path, kind: str) -> Path:
    """Write the first guest of the device file at ``path``, beside it; gives its path.

    Raises ConfigError when it is there or cannot be written.
    """
    template = files(__package__).joinpath("data", f"new_{kind}.c.in").read_text("utf-8")
    guest = path.with_suffix(".c")
    text = template.replace(_CLASS, class_name(path)).replace(_MODULE, path.stem)
    write_new_file(guest, text)
    return guest


def class_name(path: Path) -> str:
    """``MyDevice`` for ``…/my_device.py``. ConfigError when Python could not import the file."""
    stem = path.stem
    if path.suffix != ".py" or not stem.isidentifier() or keyword.iskeyword(stem):
        raise ConfigError(f"{path}: a device file is named like my_device.py")
    if stem in sys.stdlib_module_names or stem in _OURS:
        raise ConfigError(f"{path}: there is a module named {stem}; choose another name")
    name = "".join(part[:1].upper() + part[1:] for part in stem.split("_"))
    if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("Test"):
        raise ConfigError(f"{path}: {stem} makes no name for a class")
    return name


def write_new_file(path: Path, text: str) -> None:
    """Create ``path`` with ``text``; ConfigError when it is there or cannot be written."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{path} is there already, and is left as it is") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None


def _names_bound(template: str) -> set[str]:
    """The names that the template uses for something else."""
    tree = ast.parse(template)
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Name):
            names.add(node.id)
    return names - {_CLASS}
