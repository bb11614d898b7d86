"""How a machine becomes a state container and a container becomes a machine's state again.

Knows how cells become fields of the format that `protocol.state` declares; what the cells mean is
their devices' knowledge. A container comes from a file that anybody may have touched: everything
is checked before a byte of the machine changes. Loaded only for a save or a load.
"""

from __future__ import annotations

import struct
import zlib

from dm.device.state import Option
from dm.errors import ConfigError
from protocol import layouts

from .snapshot import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dm.device.cells import Cell
    from dm.device.device import Device

    from .machine import Machine
    from .snapshot import DeviceState

    Value = int | bytes | memoryview[int]

__all__ = ["INLINE_LIMIT", "load", "save"]

INLINE_LIMIT = 256
"""Memory cells of at most this many bytes are fields of their device; others are records."""

NAME_LIMIT = 255
"""Bytes of a device's, class's or field's name; the format counts them in eight bits."""


def save(machine: Machine) -> bytes:
    """Write the state of ``machine``, which the caller has stopped, as one container.

    Raises:
        ConfigError: a name is too long for the format.
    """
    bodies: list[tuple[int, bytes]] = [(layouts.STATE_RECORD_TYPE_MACHINE, _machine_body(machine))]
    for device in machine.devices:
        bodies.append((layouts.STATE_RECORD_TYPE_DEVICE, _device_body(device)))
        for cell in device.cells.layout.cells.values():
            if not _is_field(cell):
                body = _memory_body(device, cell)
                bodies.append((layouts.STATE_RECORD_TYPE_MEMORY, body))
    records = b"".join([_record(kind, body) for kind, body in bodies])
    header = struct.pack(
        layouts.STATE_HEADER_FORMAT,
        layouts.STATE_MAGIC,
        layouts.STATE_VERSION,
        0,
        len(bodies) + 1,
        0,
        len(records) + len(_end(0)),
    )
    return b"".join((header, records, _end(zlib.crc32(records, zlib.crc32(header)))))


def load(machine: Machine, data: bytes | bytearray | memoryview[int]) -> None:
    """Give ``machine`` the state that the container ``data`` holds.

    Raises:
        ConfigError: the container is damaged, or it is not this machine's; the machine is as
            before.
    """
    snapshot = parse(data)
    if snapshot.kind != machine.kind:
        raise ConfigError(
            f"saved state is of a machine {snapshot.kind!r}, this one is {machine.kind!r}"
        )
    present = {device.name for device in machine.devices}
    for name in snapshot.devices:
        if name not in present:
            raise ConfigError(f"saved state has a device {name!r} that this machine does not have")
    for device in machine.devices:
        if device.name not in snapshot.devices:
            raise ConfigError(f"saved state has nothing for device {device.name!r}")
    regions = [
        (position, _new_region(device, snapshot.devices[device.name], size))
        for device, position, size in machine.regions()
    ]
    _apply(machine, regions, snapshot.guest_time)


def _class_name(device: Device) -> str:
    return f"{type(device).__module__}.{type(device).__qualname__}"


def _is_field(cell: Cell) -> bool:
    return not cell.bulk or cell.size <= INLINE_LIMIT


def _encoded(name: str) -> bytes:
    data = name.encode()
    if len(data) > NAME_LIMIT:
        raise ConfigError(f"{name[:40]!r}…: a name in saved state has at most {NAME_LIMIT} bytes")
    return data


def _machine_body(machine: Machine) -> bytes:
    name = _encoded(machine.kind)
    head = struct.pack(layouts.STATE_MACHINE_HEAD_FORMAT, machine.clock.now(), len(name))
    return head + name


def _device_body(device: Device) -> bytes:
    name, class_name = _encoded(device.name), _encoded(_class_name(device))
    cells = [cell for cell in device.cells.layout.cells.values() if _is_field(cell)]
    head = struct.pack(
        layouts.STATE_DEVICE_HEAD_FORMAT, device.version, len(cells), len(name), len(class_name)
    )
    return b"".join([head, name, class_name, *(_field(device, cell) for cell in cells)])


def _field(device: Device, cell: Cell) -> bytes:
    kind = layouts.STATE_FIELD_KIND_BYTES if cell.bulk else layouts.STATE_FIELD_KIND_UNSIGNED
    name = _encoded(cell.name)
    head = struct.pack(layouts.STATE_FIELD_HEAD_FORMAT, kind, len(name), cell.size)
    return b"".join((head, name, _cell_bytes(device, cell)))


def _memory_body(device: Device, cell: Cell) -> bytes:
    name = f"{device.name}.{cell.name}".encode()
    head = struct.pack(layouts.STATE_MEMORY_HEAD_FORMAT, len(name), 0, cell.size)
    return b"".join((head, name, _cell_bytes(device, cell)))


def _cell_bytes(device: Device, cell: Cell) -> memoryview[int]:
    return device.cells.region[cell.offset : cell.offset + cell.size]


def _record(kind: int, body: bytes) -> bytes:
    head = struct.pack(layouts.STATE_RECORD_HEAD_FORMAT, kind, len(body), zlib.crc32(body), 0)
    return head + body + bytes(-len(body) % layouts.STATE_ALIGNMENT)


def _end(crc: int) -> bytes:
    return _record(layouts.STATE_RECORD_TYPE_END, struct.pack(layouts.STATE_END_FORMAT, crc))


def _new_region(device: Device, saved: DeviceState, size: int) -> bytes:
    """Make a device's region of the flat buffer out of what was saved; ``size`` in bytes."""
    if saved.class_name != _class_name(device):
        raise ConfigError(
            f"device {device.name!r} was saved by class {saved.class_name!r},"
            f" this one is {_class_name(device)!r}"
        )
    fields: dict[str, Value] = dict(saved.fields)
    if saved.version != device.version:
        fields = _upgraded(device, saved)
    cells = device.cells.layout.cells
    region = bytearray(size)
    for name in fields:
        if name not in cells:
            raise ConfigError(f"device {device.name!r}: saved field {name!r} is unknown")
    for name, cell in cells.items():
        if name not in fields:
            raise ConfigError(f"device {device.name!r}: field {name!r} was not saved")
        region[cell.offset : cell.offset + cell.size] = _cell_value(device, cell, fields[name])
    return bytes(region)


def _cell_value(device: Device, cell: Cell, value: Value) -> bytes | memoryview[int]:
    """The bytes of a cell whose saved value is ``value``."""
    where = f"device {device.name!r}, field {cell.name!r}"
    if isinstance(value, int):
        if cell.bulk:
            raise ConfigError(f"{where}: a number was saved, {cell.size} bytes are needed")
        if value < 0 or value & ~cell.mask:
            raise ConfigError(f"{where}: {value:#x} is beyond {cell.mask:#x}")
        return value.to_bytes(cell.size, "little")
    if not cell.bulk:
        raise ConfigError(f"{where}: bytes were saved, a number is needed")
    if len(value) != cell.size:
        raise ConfigError(f"{where}: {len(value)} bytes were saved, {cell.size} are needed")
    return value


def _upgraded(device: Device, saved: DeviceState) -> dict[str, Value]:
    """Have the class read fields of an older version, on an object that has no machine."""
    if saved.version > device.version:
        raise ConfigError(
            f"device {device.name!r} was saved by version {saved.version},"
            f" this one is {device.version}"
        )
    options = {
        name: getattr(device, name)
        for name, declaration in device._declared.items()
        if isinstance(declaration, Option)
    }
    fields = {
        name: value if isinstance(value, int) else bytes(value)
        for name, value in saved.fields.items()
    }
    try:
        return dict(type(device)(device.name, **options).upgrade(saved.version, fields))
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"device {device.name!r}: state of version {saved.version} cannot be read: {error!r}"
        ) from error


def _apply(machine: Machine, regions: list[tuple[int, bytes]], guest_time: int) -> None:
    """Copy the new state over and re-derive the rest; all is put back if a device objects."""
    buffer, clock = machine.buffer, machine.clock
    before = [(position, bytes(buffer[position : position + len(r)])) for position, r in regions]
    time_before = clock.now()
    try:
        _copy(machine, regions, guest_time)
    except Exception as error:
        _copy(machine, before, time_before)
        raise ConfigError(f"saved state was refused while it was applied: {error}") from error


def _copy(machine: Machine, regions: list[tuple[int, bytes]], guest_time: int) -> None:
    for position, region in regions:
        machine.buffer[position : position + len(region)] = region
    machine.clock.set(guest_time)
    machine.after_load()
