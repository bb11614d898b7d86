"""Where ioreqd's state lies in a file: at its beginning, or deep inside what `xl save` wrote.

Knows the order of the pieces of an `xl save` file (declared in `protocol.libxl_stream`). The file
is mapped, not read: of the guest's memory in it only the lengths of its records are looked at.
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from dm.errors import ConfigError
from dm.machine.snapshot import Snapshot, parse
from protocol import layouts

__all__ = ["find_container", "read_state"]


def read_state(path: Path) -> Snapshot:
    """The state in the file ``path``: a container, or an `xl save` file that has one.

    Raises:
        ConfigError: the file cannot be read, is damaged, or has no state of ioreqd; the message
            begins with ``path``.
    """
    try:
        return parse(find_container(_mapped(path)))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def find_container(data: memoryview[int]) -> memoryview[int]:
    """The part of a file's ``data`` that should be a container; ConfigError when there is none."""
    if _begins(data, layouts.STATE_MAGIC):
        return data
    if not _begins(data, layouts.XL_SAVE_MAGIC):
        raise ConfigError("neither saved state of ioreqd nor a file of xl save")
    others = []
    for blob in _emulator_contexts(data):
        if _begins(blob, layouts.STATE_MAGIC):
            return blob
        others.append(bytes(blob[:4]))
    if others:
        raise ConfigError(f"the device model's state is not ioreqd's: it begins with {others[0]!r}")
    raise ConfigError("no device model's state in this file of xl save")


def _mapped(path: Path) -> memoryview[int]:
    """The file's bytes, mapped; the map goes with its last view."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError("not a regular file")
        if not status.st_size:
            raise ConfigError("the file is empty")
        return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
    finally:
        os.close(descriptor)


def _begins(data: memoryview[int], magic: bytes) -> bool:
    return data[: len(magic)] == magic


class _Walk:
    """Steps through a file, and never past its end."""

    def __init__(self, data: memoryview[int]) -> None:
        self._data = data
        self.position = 0

    def take(self, length: int, what: str) -> memoryview[int]:
        """The next ``length`` bytes, untouched."""
        if length > len(self._data) - self.position:
            raise ConfigError(
                f"the file ends inside {what}: {length} bytes expected at {self.position:#x},"
                f" {len(self._data) - self.position} left"
            )
        taken = self._data[self.position : self.position + length]
        self.position += length
        return taken

    def unpack(self, layout: str, what: str) -> tuple[int, ...]:
        """The next bytes by the struct format ``layout``."""
        return struct.unpack(layout, self.take(struct.calcsize(layout), what))

    def record(self, stream: str) -> tuple[int, memoryview[int]]:
        """The next record's type and body; libxl's and libxc's have the same shape."""
        kind, length = self.unpack(layouts.LIBXL_RECORD_HEAD_FORMAT, f"the {stream} stream")
        body = self.take(length, f"a record of type {kind:#x} of the {stream} stream")
        self.take(-length % layouts.STREAM_ALIGNMENT, f"the {stream} stream")
        return kind, body


def _emulator_contexts(data: memoryview[int]) -> Iterator[memoryview[int]]:
    """What device models saved, one piece after the other."""
    walk = _Walk(data)
    header = walk.take(layouts.XL_SAVE_HEADER_SIZE, "xl's header")
    _, byteorder, mandatory, _, optional_length = struct.unpack(
        layouts.XL_SAVE_HEADER_FORMAT, header
    )
    if byteorder != layouts.XL_SAVE_BYTEORDER:
        raise ConfigError("written on a host of another byte order")
    if not mandatory & layouts.XL_SAVE_FLAG_STREAM_V2:
        raise ConfigError("written by a libxl before version 4.6")
    walk.take(optional_length, "the configuration")
    ident, version, options = walk.unpack(layouts.LIBXL_HEADER_FORMAT, "the libxl stream")
    if ident != layouts.LIBXL_IDENT or version != layouts.LIBXL_VERSION or options:
        raise ConfigError(
            f"an unknown libxl stream at {walk.position - layouts.LIBXL_HEADER_SIZE:#x}:"
            f" ident {ident:#x}, version {version}, options {options:#x}"
        )
    while True:
        kind, body = walk.record("libxl")
        if kind == layouts.LIBXL_RECORD_TYPE_END:
            return
        if kind == layouts.LIBXL_RECORD_TYPE_LIBXC_CONTEXT:
            _skip_libxc(walk)
        elif kind == layouts.LIBXL_RECORD_TYPE_EMULATOR_CONTEXT:
            if len(body) < layouts.LIBXL_EMULATOR_HEADER_SIZE:
                raise ConfigError(f"an emulator's record of {len(body)} bytes")
            yield body[layouts.LIBXL_EMULATOR_HEADER_SIZE :]


def _skip_libxc(walk: _Walk) -> None:
    """Step over the domain's own stream, guest memory and all."""
    marker, ident, version, options, _, _ = walk.unpack(
        layouts.LIBXC_IMAGE_HEADER_FORMAT, "the libxc stream"
    )
    known = marker == layouts.LIBXC_IMAGE_MARKER and ident == layouts.LIBXC_IMAGE_ID
    if not known or not 2 <= version <= layouts.LIBXC_IMAGE_VERSION or options:
        raise ConfigError(
            f"an unknown libxc stream at {walk.position - layouts.LIBXC_IMAGE_HEADER_SIZE:#x}:"
            f" id {ident:#x}, version {version}, options {options:#x}"
        )
    walk.take(layouts.LIBXC_DOMAIN_HEADER_SIZE, "the libxc stream")
    kind = -1
    while kind != layouts.LIBXC_RECORD_TYPE_END:
        kind, _ = walk.record("libxc")
