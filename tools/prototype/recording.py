"""Reads a recording: its header, and its records as events. Trusts nothing in it.

The format is declared in `protocol.recording`; here it is unpacked by the formats that were
generated from it, since a recording can be long.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from struct import Struct, error, unpack_from

from dm.errors import ConfigError
from dm.observe.events import Access, Event
from protocol import layouts

__all__ = ["RecordedDevice", "Recording"]

HEAD = Struct(layouts.RECORDING_RECORD_HEAD_FORMAT)

NUMBERS = {
    layouts.RECORDING_KIND_ACCESS: 8,
    layouts.RECORDING_KIND_ANSWER: 2,
    layouts.RECORDING_KIND_TIMER: 0,
    layouts.RECORDING_KIND_INPUT: 0,
    layouts.RECORDING_KIND_RESET: 0,
    layouts.RECORDING_KIND_STATE: 0,
    layouts.RECORDING_KIND_LINES: 0,
    layouts.RECORDING_KIND_RELOAD: 0,
    layouts.RECORDING_KIND_NOW: 0,
    layouts.RECORDING_KIND_DMA_READ: 2,
    layouts.RECORDING_KIND_DMA_WRITE: 2,
    layouts.RECORDING_KIND_ISA: 2,
    layouts.RECORDING_KIND_INTX: 3,
    layouts.RECORDING_KIND_LINK: 2,
    layouts.RECORDING_KIND_MSI: 2,
    layouts.RECORDING_KIND_OUTPUT: 1,
    layouts.RECORDING_KIND_MEMORY_TYPE: 3,
    layouts.RECORDING_KIND_SHUTDOWN: 0,
    layouts.RECORDING_KIND_SUSPEND: 0,
}
"""How many numbers a record of each kind has."""

LONGEST_STRING = 4096
"""Elements of one access, as Xen limits them."""


@dataclass(frozen=True)
class RecordedDevice:
    """A device of the machine that was recorded. ``devfn``: None for no PCI function."""

    name: str
    class_name: str
    source: str
    version: int
    devfn: int | None
    options: dict[str, str]


class Recording:
    """The recording in the file at ``path``.

    ``cut_off``: after `events` was read to its end, whether a last record was not whole.

    Raises:
        ConfigError: there is no such file, or it is no recording.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with path.open("rb") as file:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as problem:
            why = problem.strerror if isinstance(problem, OSError) else "it is empty"
            raise ConfigError(f"{path}: {why}") from None
        self.cut_off = False
        self.kind = ""
        self.devices: list[RecordedDevice] = []
        try:
            self._start = self._read_header()
        except (error, UnicodeDecodeError):
            raise ConfigError(f"{path}: the recording's header is damaged or cut off") from None

    def _read_header(self) -> int:
        data = self._data
        if data[:8] != layouts.RECORDING_MAGIC:
            raise ConfigError(f"{self._path}: this is not a recording of ioreqd")
        _, version, count, length = unpack_from(layouts.RECORDING_HEADER_HEAD_FORMAT, data)
        if version != layouts.RECORDING_VERSION:
            known = layouts.RECORDING_VERSION
            raise ConfigError(f"{self._path}: it has format {version}, known is {known}")
        position = layouts.RECORDING_HEADER_HEAD_SIZE
        self.kind, position = self._text(position, length)
        for _ in range(count):
            head = unpack_from(layouts.RECORDING_DEVICE_HEAD_FORMAT, data, position)
            version, devfn, options, *lengths = head
            position += layouts.RECORDING_DEVICE_HEAD_SIZE
            name, position = self._text(position, lengths[0])
            class_name, position = self._text(position, lengths[1])
            source, position = self._text(position, lengths[2])
            values = {}
            for _ in range(options):
                pair = unpack_from(layouts.RECORDING_OPTION_HEAD_FORMAT, data, position)
                position += layouts.RECORDING_OPTION_HEAD_SIZE
                key, position = self._text(position, pair[0])
                values[key], position = self._text(position, pair[1])
            place = None if devfn == layouts.RECORDING_NONE else devfn
            self.devices.append(RecordedDevice(name, class_name, source, version, place, values))
        return position

    def _text(self, position: int, length: int) -> tuple[str, int]:
        (data,) = unpack_from(f"{length}s", self._data, position)
        return data.decode(), position + length

    def events(self) -> Iterator[tuple[int, Event]]:
        """What happened, in order, each with its number; the inner events in their lists.

        Raises:
            ConfigError: a record is none; the message names it.
        """
        self.cut_off = False
        outer: tuple[int, Event] | None = None
        number, position = 0, self._start
        while position < len(self._data):
            try:
                read = self._record(position)
            except (error, UnicodeDecodeError, ValueError) as problem:
                where = f"{self._path}: record {number} at offset {position:#x}"
                raise ConfigError(f"{where}: {problem}") from None
            if read is None:
                self.cut_off = True
                break
            event, inner, position = read
            if not inner:
                if outer is not None:
                    yield outer
                outer = number, event
            elif outer is None:
                raise ConfigError(f"{self._path}: record {number} belongs to none before it")
            else:
                outer[1].inner.append(event)
            number += 1
        if outer is not None:
            yield outer

    def _record(self, position: int) -> tuple[Event, bool, int] | None:
        """The event at ``position``, whether it is an inner one, and where the next one is."""
        data = self._data
        if position + HEAD.size > len(data):
            return None
        length, kind, flags, device, count, name_length, _, time = HEAD.unpack_from(data, position)
        end = position + length
        start = position + HEAD.size + 8 * count
        if kind not in NUMBERS or count != NUMBERS[kind] or start + name_length > end:
            raise ValueError("this is no record")
        if end > len(data):
            return None
        if device != layouts.RECORDING_NONE and device >= len(self.devices):
            raise ValueError(f"there is no device {device}")
        numbers = unpack_from(f"<{count}Q", data, position + HEAD.size)
        name = data[start : start + name_length].decode()
        body = data[start + name_length : end]
        owner = "" if device == layouts.RECORDING_NONE else self.devices[device].name
        failure = "failed" if flags & layouts.RECORDING_FLAG_FAILED else None
        if kind == layouts.RECORDING_KIND_ACCESS:
            event = _access(time, numbers, body, flags)
            event.device, event.error = owner, failure
            return event, False, end
        inner = bool(flags & layouts.RECORDING_FLAG_INNER)
        return Event(kind, time, owner, name, numbers, body, failure), inner, end


def _access(time: int, numbers: tuple[int, ...], data: bytes, flags: int) -> Access:
    space, form, reads, size, count, down, address, serial = numbers
    if space > 2 or form > 2 or size not in (1, 2, 4, 8) or not 1 <= count <= LONGEST_STRING:
        raise ValueError("there is no such access")
    access = Access(
        time, space, form, address, size, count, reads=bool(reads), down=bool(down), data=data
    )
    access.serial = serial
    access.deferred = bool(flags & layouts.RECORDING_FLAG_DEFERRED)
    access.shared = bool(flags & layouts.RECORDING_FLAG_SHARED)
    answerless = access.deferred or flags & layouts.RECORDING_FLAG_FAILED
    if len(data) != size * count and not (reads and answerless):
        raise ValueError(f"{len(data)} bytes of data for {count} times {size}")
    return access
