"""The domain builder: what a guest's memory, parameters and xenstore nodes hold before it runs.

It does what libxl and libxc do for HVM and PVH guests, byte for byte where the guest can see it.
"""

from __future__ import annotations

from .build import Built, build_domain, ram_regions
from .firmware import find_hvmloader, find_seabios
from .image import GuestImage, image_of

__all__ = [
    "Built",
    "GuestImage",
    "build_domain",
    "find_hvmloader",
    "find_seabios",
    "image_of",
    "ram_regions",
]
