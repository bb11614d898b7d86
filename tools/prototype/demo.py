"""The guest of `ioreqd demo`: it is shipped built, so that no compiler is needed to see it.

`python -m tools.prototype.demo` builds it again. A checksum of its sources is in the file, so that
a test can tell whether it was.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from .guest_build import DATA, build_guest

__all__ = ["DEMO_GUEST", "build_demo", "source_checksum"]

DEMO_GUEST = DATA / "demo.elf"
SOURCES = ("demo.c", "guest.h")


def source_checksum() -> int:
    """32 bits of the SHA-256 of the sources."""
    digest = hashlib.sha256(b"".join((DATA / name).read_bytes() for name in SOURCES))
    return int.from_bytes(digest.digest()[:4], "big")


def build_demo(target: Path) -> Path:
    """Compile the guest to ``target``; ConfigError without a compiler."""
    return build_guest(
        DATA / "demo.c", target, {"SOURCE_CHECKSUM": source_checksum()}, warnings=True, strip=True
    )


if __name__ == "__main__":
    build_demo(DEMO_GUEST)
