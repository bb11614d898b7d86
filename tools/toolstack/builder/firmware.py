"""Where a distribution puts hvmloader and the BIOS that hvmloader starts.

hvmloader comes with Xen's tools (libxl: LIBXENFIRMWAREDIR/hvmloader), SeaBIOS for Xen is QEMU's
256 KiB image (libxl: SEABIOS_PATH, which Debian sets to seabios' bios-256k.bin).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tools.toolstack.errors import ToolstackError

__all__ = ["find_hvmloader", "find_seabios"]

ROOT = Path("/usr")
HVMLOADERS = ("lib/xen-*/boot/hvmloader", "lib/xen/boot/hvmloader", "libexec/xen/boot/hvmloader")
SEABIOSES = ("share/seabios/bios-256k.bin", "share/qemu/bios-256k.bin")


def find_hvmloader(root: Path = ROOT) -> Path:
    """hvmloader of the newest Xen installed below ``root``. ToolstackError: there is none."""
    return _find(root, HVMLOADERS, "firmware_override= is missing, and no hvmloader is installed")


def find_seabios(root: Path = ROOT) -> Path:
    """SeaBIOS as Xen uses it. ToolstackError: there is none below ``root``."""
    return _find(root, SEABIOSES, "bios_path_override= is missing, and no SeaBIOS is installed")


def _find(root: Path, patterns: Sequence[str], otherwise: str) -> Path:
    for pattern in patterns:
        found = [path for path in root.glob(pattern) if path.is_file()]
        if found:
            return max(found, key=_version)
    raise ToolstackError(f"{otherwise} ({', '.join(str(root / pattern) for pattern in patterns)})")


def _version(path: Path) -> list[int]:
    """The numbers in a path, so that 4.20 comes after 4.9."""
    words = "".join(letter if letter.isdigit() else " " for letter in str(path)).split()
    return [int(word) for word in words]
