"""What the authors of devices test with: a scripted bus and the generic tests.

Never imported by ioreqd-dm. Names are loaded when they are first used, so that the pytest plugin,
which every test run of the environment loads, costs those runs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .generic import generic_device_tests, rules_of
    from .plugin import with_device
    from .scripted import MachineOf, ScriptedBus, ScriptedCharacter, ScriptedMemory

__all__ = [
    "MachineOf",
    "ScriptedBus",
    "ScriptedCharacter",
    "ScriptedMemory",
    "generic_device_tests",
    "rules_of",
    "with_device",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import generic, scripted

    if name == "with_device":
        from .plugin import with_device as found

        return found
    return getattr(generic if hasattr(generic, name) else scripted, name)
