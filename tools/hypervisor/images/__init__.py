"""Guest images: where their bytes go in guest memory and how the first vCPU begins.

An image is foreign input: whatever is wrong with it is one `ImageError` with one readable line.
"""

from __future__ import annotations

from .auto import load_auto
from .cpu_start import RESET, CpuStart
from .elf import load_elf
from .flat import bios_regions, load_bios, load_flat

__all__ = [
    "RESET",
    "CpuStart",
    "bios_regions",
    "load_auto",
    "load_bios",
    "load_elf",
    "load_flat",
]
