"""Loads the text of a device file, as a module of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dm import Device

__all__ = ["load_class"]


def load_class(text: str, name: str) -> type[Device]:
    """The class ``name`` of the file ``text``."""
    names: dict[str, Any] = {"__name__": f"imported_{name}"}
    exec(compile(text, f"{name}.py", "exec"), names)
    found: type[Device] = names[name]
    return found
