"""The file of a saved guest: a header, records, and an end record with a checksum of all before it.

All numbers are little-endian. Header: 16 bytes of magic, the version as u32, a u32 of zero. Record:
type u32, a u32 of zero, length of the body u64, body. Types: 1 the configuration, 2 the domain, 3
the processors (all three JSON), 4 memory (u64 first GFN, then whole pages; pages of zeros are left
out), 5 the device model's state, as it wrote it, 6 the end (SHA-256). Records come in the order of
their types, each once but for memory, whose addresses ascend.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from tools.toolstack.errors import HostFailure, ToolstackError

__all__ = ["PAGE", "Kind", "Record", "SaveReader", "SaveWriter"]

MAGIC: Final = b"ioreqd guest\x1a\r\n\0"
VERSION: Final = 1
HEADER: Final = struct.Struct("<16sII")
RECORD: Final = struct.Struct("<IIQ")
GFN: Final = struct.Struct("<Q")
PAGE: Final = 4096
CHUNK: Final = 1 << 20
LARGEST_JSON: Final = 16 << 20
LARGEST_MODEL: Final = 256 << 20


class Kind:
    """The types of records."""

    CONFIG, DOMAIN, PROCESSORS, MEMORY, MODEL, END = range(1, 7)


LARGEST: Final = {
    Kind.CONFIG: LARGEST_JSON,
    Kind.DOMAIN: LARGEST_JSON,
    Kind.PROCESSORS: LARGEST_JSON,
    Kind.MEMORY: GFN.size + CHUNK,
    Kind.MODEL: LARGEST_MODEL,
    Kind.END: hashlib.sha256().digest_size,
}
"""Bytes of a record's body at most."""


class Record(NamedTuple):
    """Where a record's body is in the file."""

    kind: int
    offset: int
    length: int


class SaveWriter:
    """Writes the file beside ``path`` and puts it there when it is complete. HostFailure: OSError.

    To be used as a context; leaving it by an exception leaves no file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._draft = path.with_name(f".{path.name}.{os.getpid()}")
        self._digest = hashlib.sha256()
        self._complete = False
        try:
            self._file = os.fdopen(
                os.open(self._draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600),
                "wb",
            )
        except OSError as error:
            raise HostFailure(f"open {path}: {error.strerror}") from None

    def __enter__(self) -> SaveWriter:
        self._put(HEADER.pack(MAGIC, VERSION, 0))
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if not self._complete:
            self._draft.unlink(missing_ok=True)

    def json(self, kind: int, value: Any) -> None:
        """A record of JSON."""
        self.record(kind, json.dumps(value).encode())

    def record(self, kind: int, *parts: bytes | memoryview[int]) -> None:
        """A record, whose body is in parts."""
        self._put(RECORD.pack(kind, 0, sum(len(part) for part in parts)))
        for part in parts:
            self._put(part)

    def finish(self) -> None:
        """The end record; the file is then where it is wanted."""
        try:
            self.record(Kind.END, self._digest.digest())
            self._file.flush()
            os.fsync(self._file.fileno())
            self._draft.replace(self._path)
        except OSError as error:
            raise HostFailure(f"write {self._path}: {error.strerror}") from None
        self._complete = True

    def _put(self, data: bytes | memoryview[int]) -> None:
        self._digest.update(data)
        try:
            self._file.write(data)
        except OSError as error:
            raise HostFailure(f"write {self._path}: {error.strerror}") from None


class SaveReader:
    """A file that has been checked from end to end: whole, unchanged, records in order.

    ToolstackError, one line: it is not such a file. ``progress`` gets bytes read and all bytes.
    """

    def __init__(
        self, path: Path, progress: Callable[[int, int], object] = lambda done, all_: None
    ) -> None:
        self._path = path
        self._progress = progress
        try:
            self._file: BinaryIO = path.open("rb")
        except OSError as error:
            raise ToolstackError(f"{path}: {error.strerror}") from None
        try:
            self._size = os.fstat(self._file.fileno()).st_size
            self.records = self._check()
        except OSError as error:
            self._file.close()
            raise ToolstackError(f"{path}: {error.strerror}") from None
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def json(self, kind: int) -> Any:
        """What a record of JSON says."""
        try:
            return json.loads(self.body(self._one(kind)))
        except (ValueError, RecursionError):
            raise self._damaged(f"its record {kind} is no JSON") from None

    def model(self) -> bytes:
        """The device model's state."""
        return self.body(self._one(Kind.MODEL))

    def memory(self) -> Iterator[tuple[int, bytes]]:
        """The runs of pages that are not all zero: guest-physical address and bytes."""
        for record in self.records:
            if record.kind == Kind.MEMORY:
                body = self.body(record)
                yield GFN.unpack_from(body)[0] * PAGE, body[GFN.size :]

    def body(self, record: Record) -> bytes:
        """The body of a record. ToolstackError: the file is not any more as it was checked."""
        self._file.seek(record.offset)
        data = self._file.read(record.length)
        if len(data) != record.length:
            raise self._damaged("it was cut meanwhile")
        return data

    def _one(self, kind: int) -> Record:
        return next(record for record in self.records if record.kind == kind)

    def _damaged(self, why: str) -> ToolstackError:
        return ToolstackError(f"{self._path}: not a saved guest, or a damaged one: {why}")

    def _check(self) -> list[Record]:
        head = self._file.read(HEADER.size)
        if len(head) < HEADER.size or not head.startswith(MAGIC):
            raise self._damaged("it does not begin as one")
        _, version, zero = HEADER.unpack(head)
        if version != VERSION or zero:
            raise ToolstackError(f"{self._path}: version {version} of the format is not known")
        digest = hashlib.sha256(head)
        records: list[Record] = []
        while not records or records[-1].kind != Kind.END:
            records.append(self._check_record(records, digest))
        if self._file.read(1):
            raise self._damaged("there is more after its end")
        kinds = {record.kind for record in records}
        if missing := set(LARGEST) - kinds - {Kind.MEMORY}:
            raise self._damaged(f"its record {min(missing)} is missing")
        return records

    def _check_record(self, before: list[Record], digest: Any) -> Record:
        head = self._file.read(RECORD.size)
        if len(head) < RECORD.size:
            raise self._damaged("it is cut")
        kind, zero, length = RECORD.unpack(head)
        last = before[-1].kind if before else 0
        if zero or kind not in LARGEST or kind < last or (kind == last and kind != Kind.MEMORY):
            raise self._damaged(f"a record of type {kind} after one of type {last}")
        if length > LARGEST[kind]:
            raise self._damaged(f"a record of {length} bytes")
        record = Record(kind, self._file.tell(), length)
        if kind == Kind.END:
            if self._file.read(length) != digest.digest():
                raise self._damaged("its checksum is wrong")
            return record
        digest.update(head)
        left = length
        while left:
            data = self._file.read(min(left, CHUNK))
            if not data:
                raise self._damaged("it is cut")
            digest.update(data)
            left -= len(data)
        self._progress(self._file.tell(), self._size)
        return record
