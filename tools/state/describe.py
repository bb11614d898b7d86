"""Saved state with names: which register a field is, how wide, and what its bits are called.

The names come from the device's class. A file says which class that is, and may say anything:
only classes of the package `devices` and of modules that the user vouched for are imported.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from dm.device.device import Device
from dm.device.register import Field
from dm.device.window import Window
from dm.errors import ConfigError
from dm.machine.snapshot import DeviceState, Snapshot

__all__ = ["DeviceView", "FieldView", "StateView", "plain", "view"]

OWN_PACKAGE = "devices"

SHOWN_BYTES = 32
"""Longer memory is summed up instead of shown."""


class FieldView(NamedTuple):
    """One field: its value, its width in bits (0 when unknown), and its named bits."""

    name: str
    value: int | memoryview[int]
    width: int
    bits: dict[str, int]
    meanings: dict[str, str]

    @property
    def text(self) -> str:
        """The value in hexadecimal; long memory as its length and checksum."""
        if isinstance(self.value, int):
            return f"{self.value:#0{2 + -(-self.width // 4)}x}"
        if len(self.value) <= SHOWN_BYTES:
            return self.value.hex(" ")
        return f"{len(self.value)} bytes, crc32 {zlib.crc32(self.value):08x}"

    @property
    def bits_text(self) -> str:
        """The named bits, as ``enable=1 mode=3 (turbo)``."""
        return " ".join(self.bit_text(name) for name in self.bits)

    def bit_text(self, name: str) -> str:
        """One of them."""
        value, meaning = self.bits[name], self.meanings.get(name)
        digits = f"{value:#x}" if value > 9 else f"{value}"
        return f"{name}={digits} ({meaning})" if meaning else f"{name}={digits}"


class DeviceView(NamedTuple):
    """One device. ``known``: its class was found, so that its registers have bits."""

    name: str
    class_name: str
    version: int
    known: bool
    fields: dict[str, FieldView]


class StateView(NamedTuple):
    """A whole container: machine type, guest time in nanoseconds, length in bytes."""

    kind: str
    guest_time: int
    size: int
    devices: dict[str, DeviceView]


def view(snapshot: Snapshot, modules: Collection[str] = ()) -> StateView:
    """``snapshot`` with names; ``modules`` may be imported beside those of `devices`."""
    devices = {
        name: _device_view(state, _find_class(state.class_name, modules))
        for name, state in snapshot.devices.items()
    }
    return StateView(snapshot.kind, snapshot.guest_time, snapshot.size, devices)


def plain(name: str) -> str:
    """``name`` as it can be printed: a file's text must not steer a terminal."""
    return ascii(name)[1:-1]


def _find_class(class_name: str, modules: Collection[str]) -> type[Device] | None:
    """The class, if it may be imported, can be, and is a device's.

    Raises:
        ConfigError: one of ``modules`` cannot be imported.
    """
    module_name, _, name = class_name.rpartition(".")
    words = module_name.split(".")
    if words[0] != OWN_PACKAGE and module_name not in modules:
        return None
    if not all(word.isidentifier() for word in words):
        return None
    try:
        found = getattr(importlib.import_module(module_name), name, None)
    except Exception as error:
        if module_name in modules:
            raise ConfigError(f"module {module_name} cannot be imported: {error!r}") from error
        return None
    return found if isinstance(found, type) and issubclass(found, Device) else None


def _device_view(state: DeviceState, cls: type[Device] | None) -> DeviceView:
    registers = {} if cls is None else _registers(cls)
    widths = {} if cls is None else {n: c.mask for n, c in cls._layout.cells.items()}
    fields = {}
    for name, value in state.fields.items():
        named = registers.get(name, {}) if isinstance(value, int) else {}
        fields[name] = FieldView(
            name,
            value,
            widths.get(name, 0).bit_length(),
            {key: field.of(value) for key, field in named.items()}
            if isinstance(value, int)
            else {},
            _meanings(named, value),
        )
    return DeviceView(state.name, state.class_name, state.version, cls is not None, fields)


def _registers(cls: type[Device]) -> dict[str, Mapping[str, Field]]:
    """The bit fields of every register of the class, by the name of its cell."""
    found: dict[str, Mapping[str, Field]] = {}
    declared: dict[str, Any] = cls._declared
    for prefix, declaration in declared.items():
        if isinstance(declaration, Window):
            for name, slot, _, _ in declaration.bank.registers():
                found[f"{prefix}.{name}"] = slot.register.fields
    return found


def _meanings(named: Mapping[str, Field], value: int | memoryview[int]) -> dict[str, str]:
    """What the class calls the values of the fields."""
    if not isinstance(value, int):
        return {}
    return {
        name: field.names[field.of(value)]
        for name, field in named.items()
        if field.names is not None and field.of(value) in field.names
    }
