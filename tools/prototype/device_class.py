"""How a device class is named to a tool: a catalog name, ``file.py:Class`` or ``module:Class``."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from dm.control.device_file import load_device_file, place_of, told
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
        module = _from_file(place)
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


def _from_file(path: str) -> ModuleType:
    try:
        return load_device_file(path)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{place_of(path, error)}: {told(error)}") from error


def _from_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{name}: {told(error)}") from error


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
