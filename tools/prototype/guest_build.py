"""How a guest's C source becomes an ELF file: the flags that a program without a system needs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from dm.errors import ConfigError

__all__ = ["DATA", "build_guest"]

DATA = Path(__file__).parent / "data"
"""Where guest.h is, which knows the machine below a guest."""

_FLAGS = (
    *("-std=gnu11", "-m32", "-O1", "-Wall", "-Wextra", "-ffreestanding"),
    *("-fno-pic", "-fno-pie", "-fno-stack-protector", "-fcf-protection=none", "-nostdlib"),
    *("-fno-asynchronous-unwind-tables", "-mno-sse", "-mno-mmx", "-static"),
    *("-Wl,-Ttext=0x100000", "-Wl,-z,noseparate-code", "-Wl,--build-id=none", "-Wl,-N"),
    "-Wl,--no-warn-rwx-segments",
)


def build_guest(
    source: Path,
    target: Path,
    defines: Mapping[str, int] = {},
    folders: Sequence[Path] = (),
    *,
    warnings: bool = False,
    strip: bool = False,
) -> Path:
    """Compile ``source`` to the ELF file ``target``, which is given back.

    ``defines``: macros; ``folders``: where else headers are; ``warnings``: they count as errors;
    ``strip``: leave the symbols out.
    Raises ConfigError, with what the compiler said, when that is impossible.
    """
    compiler = shutil.which("gcc")
    if compiler is None:
        raise ConfigError(f"{source}: gcc is missing (Debian package gcc)")
    words = [compiler, *_FLAGS, *(["-Werror"] if warnings else [])]
    words += ["-s"] if strip else []
    words += [f"-D{name}={value}" for name, value in defines.items()]
    words += [f"-I{folder}" for folder in (*folders, DATA)]
    done = subprocess.run(
        [*words, "-o", str(target), str(source)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ConfigError(f"{source}: gcc cannot compile it:\n{done.stderr.strip()}")
    return target
