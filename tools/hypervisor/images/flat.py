"""Images without a format: boot code at an address, and firmware that ends at 4 GiB.

Facts: a processor begins 16 bytes below 4 GiB; a PC's chip set shows the last 128 KiB of the
firmware below 1 MiB, too, where its real-mode far jumps lead.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ..errors import ImageError
from .cpu_start import RESET, CpuStart

__all__ = ["RamRegions", "bios_regions", "load_bios", "load_flat", "place", "read_image"]

PAGE = 0x1000
REAL_MODE_END = 0x100000
FOUR_GIB = 1 << 32
SHADOW = 0x20000
"""Bytes of the firmware that are also below 1 MiB."""
LARGEST_BIOS = 16 << 20
LARGEST_FILE = 1 << 30


class RamRegions(Protocol):
    """What an image needs of guest memory."""

    @property
    def regions(self) -> Sequence[tuple[int, int, int]]:
        """Runs of RAM: GPA, bytes, and offset in the descriptor."""

    def write(self, gpa: int, data: bytes, /) -> None:
        """Store ``data`` at ``gpa``; all of it lies in one region."""


def read_image(path: str | Path) -> bytes:
    """The file's bytes; an `ImageError` when there is no such file, or nothing in it."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}") from error
    if not data:
        raise ImageError(f"{path}: the file is empty")
    if len(data) > LARGEST_FILE:
        raise ImageError(f"{path}: larger than {LARGEST_FILE >> 20} MiB")
    return data


def place(memory: RamRegions, gpa: int, data: bytes, what: str) -> None:
    """Store ``data``, which must lie inside RAM; neighbouring regions count as one."""
    at, rest = gpa, memoryview(data)
    while rest:
        room = next((b + s - at for b, s, _ in memory.regions if b <= at < b + s), 0)
        if not room:
            raise ImageError(
                f"{what}: {len(data):#x} bytes at {gpa:#x} do not fit into the guest's RAM"
            )
        memory.write(at, bytes(rest[:room]))
        at, rest = at + room, rest[room:]


def load_flat(memory: RamRegions, path: str | Path, gpa: int) -> CpuStart:
    """Put the file at ``gpa``, below 1 MiB; it begins there in real mode with ``cs`` = gpa / 16."""
    data = read_image(path)
    if not 0 <= gpa < REAL_MODE_END:
        raise ImageError(f"{path}: a flat image begins in real mode, below 1 MiB, not at {gpa:#x}")
    place(memory, gpa, data, str(path))
    return CpuStart("real", ip=gpa & 0xF, cs=gpa >> 4)


def bios_regions(size: int) -> list[tuple[int, int]]:
    """The RAM regions (GPA, bytes) that firmware of ``size`` bytes needs beside those from 0."""
    whole = -(-size // PAGE) * PAGE
    return [(FOUR_GIB - whole, whole)]


def load_bios(memory: RamRegions, path: str | Path) -> CpuStart:
    """Put firmware below 4 GiB and its last 128 KiB below 1 MiB; it begins at the reset vector.

    The guest's RAM must cover both: the regions of `bios_regions` and low memory to 1 MiB.
    """
    data = read_image(path)
    if len(data) > LARGEST_BIOS or len(data) % PAGE:
        raise ImageError(
            f"{path}: firmware has whole pages and at most 16 MiB, not {len(data)} bytes"
        )
    place(memory, FOUR_GIB - len(data), data, str(path))
    shadow = data[-SHADOW:]
    place(memory, REAL_MODE_END - len(shadow), shadow, str(path))
    return RESET
