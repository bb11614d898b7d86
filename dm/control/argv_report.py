"""What an argument vector asks for and this project does not model: one line for each thing."""

from __future__ import annotations

from dm.control.argv_table import MACHINE_PROPERTIES, MACHINE_TYPES, OPTIONS
from dm.control.argv_values import keyval, record
from dm.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

    from dm.control.argv import Options

__all__ = ["check", "unmodelled", "user_device"]


def user_device(driver: str) -> tuple[str, str] | None:
    """The (place, class name) of a user's own device, or None for one of QEMU's drivers.

    A place is the path of a Python file or the dotted name of a module:
    ``PATH.py:Class`` and ``package.module:Class``.
    """
    place, colon, name = driver.rpartition(":")
    if not colon or not name.isidentifier():
        return None
    if place.endswith(".py") or all(part.isidentifier() for part in place.split(".")):
        return place, name
    return None


def unmodelled(options: Options, known: Container[str]) -> list[str]:
    """One line for each thing that is accepted and has no effect, naming option and device.

    :param known: what the caller models beyond the table: QEMU's driver names (``isa-serial``), and
        options with their dash (``-drive``).
    """
    lines = list(options.warnings)
    for name, argument in options.given:
        line = f"-{name}" if argument is None else f"-{name} {argument}"
        effect = _effect(name, argument or "", known)
        if effect:
            lines.append(f"{line}: {effect}")
    return lines


def _effect(name: str, argument: str, known: Container[str]) -> str:
    """What happens instead of what the option asks for, or "" when it is honoured."""
    if name == "device":
        return _device_effect(argument, known)
    if name in ("machine", "M"):
        return _machine_effect(argument)
    _, _, _, effect, harmless = OPTIONS[name]
    if not effect or f"-{name}" in known or argument in harmless:
        return ""
    return f"not modelled; {effect}"


def _device_effect(argument: str, known: Container[str]) -> str:
    driver = record("device", argument, "driver").get("driver", "")
    if driver in known or user_device(driver):
        return ""
    return "this device is not modelled; the guest starts without it"


def _machine_effect(argument: str) -> str:
    values = keyval(argument, "type")
    effects = []
    kind = values.get("type", "xenfv")
    if not any(kind == known or kind.startswith(known + "-") for known in MACHINE_TYPES):
        effects.append(f"type={kind} is not modelled; xenfv is used instead")
    for key, value in values.items():
        effect = MACHINE_PROPERTIES.get(key, "it has no effect")
        if effect and value not in ("off", "no", "false"):
            effects.append(f"{key}={value} is not modelled; {effect}")
    return "; ".join(effects)


def check(options: Options, known: Container[str]) -> list[str]:
    """The lines of :func:`unmodelled`; raises ConfigError instead if ``strict=on`` was given."""
    lines = unmodelled(options, known)
    if lines and options.strict:
        raise ConfigError("strict=on: " + " | ".join(lines))
    return lines
