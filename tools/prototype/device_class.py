"""How a device class is named to a tool: a catalog name, ``file.py:Class`` or ``module:Class``.

The class is loaded for reading, not for running: its module stays in ``sys.modules``, so that its
source can be found again.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dm.device.device import Device
from dm.errors import ConfigError

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["find_device_class"]


def find_device_class(text: str) -> type[Device]:
    """The device class that ``text`` names; of a file with one device, the file is enough.

    Raises ConfigError, one line, when it cannot be found or loaded, or is no device class.
    """
    drivers: dict[str, str] = importlib.import_module("devices.catalog").DRIVERS
    place, colon, name = drivers.get(text, text).rpartition(":")
    if not colon:
        place, name = name, ""
    if place.endswith(".py"):
        module = _from_file(Path(place))
    elif colon and all(part.isidentifier() for part in place.split(".")):
        module = _from_module(place)
    else:
        known = ", ".join(sorted(drivers))
        raise ConfigError(f"{text}: neither my.py:MyDevice, package.module:MyDevice nor {known}")
    found: Any = getattr(module, name, None) if name else _only_device(module, place)
    if not isinstance(found, type) or not issubclass(found, Device):
        devices = ", ".join(one.__name__ for one in _devices(module)) or "none"
        raise ConfigError(f"{place} has no device {name} (it has: {devices})")
    return found


def _from_file(path: Path) -> ModuleType:
    name = f"ioreqd_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ConfigError(f"{path}{_line_of(error, path)}: {_told(error)}") from error
    return module


def _from_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{name}: {_told(error)}") from error


def _told(error: BaseException) -> str:
    """An error in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    return " ".join(f"{type(error).__name__}: {message}".split())


def _line_of(error: BaseException, path: Path) -> str:
    """``:LINE`` of the file where it failed, "" when it failed elsewhere."""
    if isinstance(error, SyntaxError):
        return f":{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return f":{lines[-1]}" if lines else ""


def _devices(module: ModuleType) -> list[type[Device]]:
    """The device classes that the module itself defines."""
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Device)
        and value.__module__ == module.__name__
    ]


def _only_device(module: ModuleType, place: str) -> type[Device]:
    found = _devices(module)
    if len(found) == 1:
        return found[0]
    names = ", ".join(f"{place}:{one.__name__}" for one in found) or "no device"
    raise ConfigError(f"{place}: which one? It has {names}")
