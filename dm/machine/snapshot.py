"""What a saved state container says: reads one without a machine, and trusts nothing in it.

Knows the container's frame (declared in `protocol.state`): records, checksums, names. Whether the
devices and fields are those of a machine is `dm.machine.container`'s business. A hostile container
costs memory in proportion to its own length, and no more than `ENTRY_LIMIT` names.
"""

from __future__ import annotations

import struct
import zlib

from dm.errors import ConfigError
from protocol import layouts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ENTRY_LIMIT", "LATEST", "DeviceState", "Snapshot", "parse"]

ENTRY_LIMIT = 1 << 18
"""Records that a container may have, and fields that all its DEVICE records may have."""

LATEST = 1 << 62
"""Nanoseconds, 146 years."""

_INTEGER_SIZES = (1, 2, 4, 8)


class DeviceState:
    """What a container says of one device.

    ``fields``: by name, integers and memory of any size; memory is a view of the container.
    """

    __slots__ = ("class_name", "fields", "name", "version")

    def __init__(self, name: str, class_name: str, version: int) -> None:
        self.name = name
        self.class_name = class_name
        self.version = version
        self.fields: dict[str, int | memoryview[int]] = {}


class Snapshot:
    """A container that was read and found intact.

    ``kind`` names the machine type, ``guest_time`` is in nanoseconds, ``size`` is the container's
    length in bytes.
    """

    __slots__ = ("devices", "guest_time", "kind", "size")

    def __init__(self, kind: str, guest_time: int, size: int) -> None:
        self.kind = kind
        self.guest_time = guest_time
        self.size = size
        self.devices: dict[str, DeviceState] = {}


def parse(data: bytes | bytearray | memoryview[int]) -> Snapshot:
    """Read a container without a machine: what it says, checked as far as the format goes.

    Raises:
        ConfigError: ``data`` is not an intact container; the message names the offset in bytes.
    """
    view = memoryview(data).toreadonly()
    records = list(_records(view))
    first_kind, first = records[0]
    if first_kind != layouts.STATE_RECORD_TYPE_MACHINE:
        raise first.error("the first record is not the machine's")
    guest_time, name_length = first.unpack(layouts.STATE_MACHINE_HEAD_FORMAT)
    if guest_time > LATEST:
        raise ConfigError(f"saved state: guest time {guest_time} is further than any guest comes")
    snapshot = Snapshot(first.text(name_length), guest_time, len(view))
    first.finish()
    room = ENTRY_LIMIT
    device: DeviceState | None = None
    for kind, reader in records[1:]:
        if kind == layouts.STATE_RECORD_TYPE_DEVICE:
            device = _parse_device(reader, snapshot, room)
            room -= len(device.fields)
        elif kind == layouts.STATE_RECORD_TYPE_MEMORY and device is not None:
            _parse_memory(reader, device)
        else:
            raise reader.error(f"unexpected record of type {kind}")
    return snapshot


class _Reader:
    """Reads on within one piece of a container; ``base`` is the piece's offset in it."""

    __slots__ = ("_base", "_position", "_view", "_what")

    def __init__(self, view: memoryview[int], base: int, what: str) -> None:
        self._view = view
        self._base = base
        self._what = what
        self._position = 0

    def error(self, problem: str) -> ConfigError:
        """The error that names where the reader stands."""
        return ConfigError(
            f"saved state is damaged at offset {self._base + self._position:#x}"
            f" ({self._what}): {problem}"
        )

    @property
    def left(self) -> int:
        """Bytes that were not read yet."""
        return len(self._view) - self._position

    def take(self, length: int) -> memoryview[int]:
        """The next ``length`` bytes."""
        if length > self.left:
            raise self.error(f"{length} bytes expected, {self.left} left")
        taken = self._view[self._position : self._position + length]
        self._position += length
        return taken

    def unpack(self, layout: str) -> tuple[int, ...]:
        """The next bytes as the struct format ``layout`` says."""
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def text(self, length: int) -> str:
        """The next ``length`` bytes as UTF-8."""
        try:
            return str(self.take(length), "utf-8")
        except UnicodeDecodeError:
            raise self.error("a name is not UTF-8") from None

    def finish(self) -> None:
        """Check that nothing is left."""
        if self.left:
            raise self.error(f"{self.left} bytes too many")


def _records(view: memoryview[int]) -> Iterator[tuple[int, _Reader]]:
    """Check the frame and yield each record's type and body, without END."""
    start = _Reader(view, 0, "header")
    if (
        start.left < layouts.STATE_HEADER_SIZE
        or view[: len(layouts.STATE_MAGIC)] != layouts.STATE_MAGIC
    ):
        raise ConfigError("this is not saved state of ioreqd")
    _, version, flags, count, reserved, length = struct.unpack(
        layouts.STATE_HEADER_FORMAT, start.take(layouts.STATE_HEADER_SIZE)
    )
    if version != layouts.STATE_VERSION:
        raise ConfigError(f"saved state has format {version}, known is {layouts.STATE_VERSION}")
    if flags or reserved:
        raise start.error("unknown flags")
    if count > ENTRY_LIMIT:
        raise start.error(f"{count} records are too many")
    if length != start.left:
        raise start.error(f"{length} bytes should follow, {start.left} do")
    position, seen = layouts.STATE_HEADER_SIZE, 0
    while True:
        kind, body, following = _frame(view, position)
        seen += 1
        if seen > count:
            raise body.error(f"more records than the {count} that the header counts")
        if kind == layouts.STATE_RECORD_TYPE_END:
            break
        yield kind, body
        position = following
    if seen < 2:
        raise body.error("there is nothing before the end")
    if body.left != layouts.STATE_END_SIZE:
        raise body.error(f"an end of {body.left} bytes")
    if body.unpack(layouts.STATE_END_FORMAT)[0] != zlib.crc32(view[:position]):
        raise body.error("the checksum of the whole does not match")
    if following != len(view):
        raise body.error(f"{len(view) - following} bytes after the end")
    if seen != count:
        raise body.error(f"{seen} records where the header counts {count}")


def _frame(view: memoryview[int], position: int) -> tuple[int, _Reader, int]:
    """The record at ``position``: its type, its body, and where the next one begins."""
    reader = _Reader(view[position:], position, "record")
    kind, length, crc, reserved = reader.unpack(layouts.STATE_RECORD_HEAD_FORMAT)
    if reserved:
        raise reader.error("unknown flags")
    body = reader.take(length)
    if zlib.crc32(body) != crc:
        raise reader.error(f"the checksum of a record of {length} bytes does not match")
    if any(reader.take(-length % layouts.STATE_ALIGNMENT)):
        raise reader.error("the gap after a record is not zero")
    start = position + layouts.STATE_RECORD_HEAD_SIZE
    return kind, _Reader(body, start, f"record of type {kind}"), len(view) - reader.left


def _parse_device(reader: _Reader, snapshot: Snapshot, room: int) -> DeviceState:
    """Read a DEVICE record of at most ``room`` fields into ``snapshot``."""
    version, count, name_length, class_length = reader.unpack(layouts.STATE_DEVICE_HEAD_FORMAT)
    name, class_name = reader.text(name_length), reader.text(class_length)
    if count > room:
        raise reader.error(f"more than {ENTRY_LIMIT} fields in all")
    if name in snapshot.devices:
        raise reader.error(f"device {name!r} is there twice")
    state = snapshot.devices[name] = DeviceState(name, class_name, version)
    for _ in range(count):
        kind, name_length, value_length = reader.unpack(layouts.STATE_FIELD_HEAD_FORMAT)
        field = reader.text(name_length)
        if field in state.fields:
            raise reader.error(f"device {name!r} has field {field!r} twice")
        value = reader.take(value_length)
        if kind == layouts.STATE_FIELD_KIND_BYTES:
            state.fields[field] = value
        elif kind == layouts.STATE_FIELD_KIND_UNSIGNED and value_length in _INTEGER_SIZES:
            state.fields[field] = int.from_bytes(value, "little")
        else:
            raise reader.error(
                f"device {name!r}, field {field!r}: kind {kind} of {value_length} bytes"
            )
    reader.finish()
    return state


def _parse_memory(reader: _Reader, device: DeviceState) -> None:
    """Read a MEMORY record: one more field of the device whose record came last."""
    name_length, reserved, length = reader.unpack(layouts.STATE_MEMORY_HEAD_FORMAT)
    name, data = reader.text(name_length), reader.take(length)
    reader.finish()
    if reserved:
        raise reader.error(f"memory {name!r} has unknown flags")
    owner, field = name[: len(device.name) + 1], name[len(device.name) + 1 :]
    if owner != f"{device.name}.":
        raise reader.error(f"memory {name!r} is not of device {device.name!r} before it")
    if field in device.fields:
        raise reader.error(f"device {device.name!r} has field {field!r} twice")
    device.fields[field] = data
