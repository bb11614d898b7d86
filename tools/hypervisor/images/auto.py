"""Which kind of image a file is, by its content."""

from __future__ import annotations

from pathlib import Path

from ..errors import ImageError
from .cpu_start import CpuStart
from .elf import ELF_MAGIC, load_elf
from .flat import RamRegions, load_flat, read_image

__all__ = ["BOOT_SECTOR", "load_auto"]

BOOT_SECTOR = 0x7C00
"""Where a PC's firmware puts what it boots; flat images begin there."""


def load_auto(memory: RamRegions, path: str | Path, cmdline: str = "") -> CpuStart:
    """Load an ELF file as such, anything else as a flat image at 0x7c00.

    ``cmdline``: the command line in an ELF image's start info. ImageError for a flat image with
    one: nobody would tell it.
    """
    if read_image(path).startswith(ELF_MAGIC):
        return load_elf(memory, path, cmdline)
    if cmdline:
        raise ImageError(f"{path}: a flat image gets no command line")
    return load_flat(memory, path, BOOT_SECTOR)
