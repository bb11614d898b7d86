"""Where tests get the real hvmloader and its BIOS: installed, or in the laboratory's image."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.toolstack.builder import find_hvmloader, find_seabios
from tools.toolstack.errors import ToolstackError
from tools.xenlab import built, find_release

__all__ = ["require_firmware"]


def require_firmware(xen: str = "4.17") -> tuple[Path, Path]:
    """hvmloader of that release and SeaBIOS. Skips the test where they are not to be had."""
    image = built(find_release(xen))
    roots = [Path("/usr")] if image is None else [image.root / "usr", Path("/usr")]
    for root in roots:
        try:
            hvmloader, seabios = find_hvmloader(root), find_seabios(root)
        except ToolstackError:
            continue
        if f"xen-{xen}" in str(hvmloader):
            return hvmloader, seabios
    pytest.skip(f"no hvmloader of Xen {xen}: neither installed nor in a built laboratory")
