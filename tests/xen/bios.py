"""How a test guest becomes a BIOS image, which the real hvmloader loads and starts.

Facts: tools/firmware/hvmloader/seabios.c (the image ends at 1 MiB) and hvmloader.c (real mode
begins at f000:fff0).
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tools.prototype.guest_build import DATA

from .support import COMMON, Host

__all__ = ["build_bios"]

BASE = 0xF0000
ENTRY_STUB = 0xFFF00
BSS = 0x200000
_COMPILER = (
    *("gcc", "-std=gnu11", "-m32", "-O1", "-Wall", "-Wextra", "-Werror", "-ffreestanding"),
    *(
        "-fno-pic",
        "-fno-pie",
        "-fno-stack-protector",
        "-fcf-protection=none",
        "-mno-sse",
        "-mno-mmx",
    ),
    *("-fno-asynchronous-unwind-tables", "-nostdlib", "-static"),
    *("-Wl,-z,noseparate-code", "-Wl,--build-id=none", "-Wl,-N", "-Wl,--no-warn-rwx-segments"),
    *(f"-Wl,-Ttext={BASE:#x}", f"-Wl,-Tbss={BSS:#x}"),
    f"-Wl,--section-start=.reset={ENTRY_STUB:#x}",
)


def build_bios(host: Host, name: str) -> str:
    """Compile tests/xen/guests/``name``.c, which includes bios.h; gives its path in dom0."""
    linked, image = host.share / f"{name}.linked", host.share / f"{name}.bin"
    source = COMMON / "guests" / f"{name}.c"
    _run([*_COMPILER, "-I", str(source.parent), "-I", str(DATA), "-o", str(linked), str(source)])
    _run(["objcopy", "-O", "binary", str(linked), str(image)])
    assert image.stat().st_size == 0x100000 - BASE
    return f"/share/{Path(image).name}"


def _run(arguments: list[str]) -> None:
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(arguments)}:\n{done.stdout}{done.stderr}"
