"""How a device on the command line becomes an object: by QEMU's name, module, or Python file."""

from __future__ import annotations

import sys

from dm.device.device import Device
from dm.errors import ConfigError

from .argv_report import user_device
from .device_file import load_device_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from dm.machine.configuration import Configuration

__all__ = ["board", "known_drivers", "make_device"]

CATALOG = "devices.catalog"


def board(kind: str, configuration: Configuration) -> list[Device]:
    """The devices of machine type ``kind``; those of ``xenfv`` when it is not known."""
    machines: dict[str, str] = _module(CATALOG).MACHINES
    found: list[Device] = _named(machines.get(kind, machines["xenfv"]))(configuration)
    return found


def known_drivers() -> set[str]:
    """The names that ``-device`` knows, without those of other distributions."""
    return set(_module(CATALOG).DRIVERS)


def make_device(driver: str, options: dict[str, str], number: int) -> Device | None:
    """The device that ``-device driver,options`` asks for; None when there is no such driver.

    ``id`` names the device; the chardev option is the caller's. Raises ConfigError when a file or
    class cannot be loaded or does not take an option.
    """
    device_class = _find_class(driver)
    if device_class is None:
        return None
    values = {key.replace("-", "_"): value for key, value in options.items()}
    name = values.pop("id", "") or f"{device_class.__name__.lower()}{number}"
    values.pop("chardev", None)
    try:
        return device_class(name, **values)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"-device {driver}: {_told(error)}") from error


def _find_class(driver: str) -> type[Device] | None:
    own = user_device(driver)
    if own is not None:
        place, name = own
        return _checked(
            _from_file(place, name) if place.endswith(".py") else _named(f"{place}:{name}"), driver
        )
    drivers: dict[str, str] = _module(CATALOG).DRIVERS
    if driver in drivers:
        return _checked(_named(drivers[driver]), driver)
    return None


def _checked(found: Any, driver: str) -> type[Device]:
    if not isinstance(found, type) or not issubclass(found, Device):
        raise ConfigError(f"-device {driver}: that is not a subclass of dm.Device")
    return found


def _from_file(path: str, name: str) -> Any:
    try:
        module = load_device_file(path)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"-device {path}:{name}: {_told(error)}") from error
    if not hasattr(module, name):
        raise ConfigError(f"-device {path}:{name}: the file has no {name}")
    return getattr(module, name)


def _told(error: BaseException) -> str:
    """The error in one line, with the place where it was raised, as far as that is in a file."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    if isinstance(error, SyntaxError) or error.__traceback__ is None:
        return f"{type(error).__name__}: {error}".partition("\n")[0]
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
    return f"{type(error).__name__}: {error} ({place})".replace("\n", " ")


def _named(place: str) -> Any:
    module, _, name = place.partition(":")
    try:
        return getattr(_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"-device {place}: {error}") from error


def _module(name: str) -> Any:
    __import__(name)
    return sys.modules[name]
