"""How the laboratory calls tools, and the foreign Python that compiles byte code for dom0."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from dm.errors import HostError
from tools.xenlab.needs import find_tool

__all__ = ["compile_python", "copy_tree_image", "run_tool"]

_LAST_LINES = 8
_LIBRARIES = "usr/lib/x86_64-linux-gnu"


def run_tool(
    arguments: Sequence[str],
    *,
    data: bytes | None = None,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> bytes:
    """Run a tool to its end with ``data`` on stdin and return its stdout.

    Raises HostError with the end of its stderr if it cannot be started or fails.
    """
    program = find_tool(arguments[0]) or arguments[0]
    try:
        done = subprocess.run(
            [program, *arguments[1:]],
            input=data if data is not None else b"",
            capture_output=True,
            cwd=cwd,
            env=environment,
            check=False,
        )
    except OSError as error:
        raise HostError(
            f"cannot start {arguments[0]}: {error.strerror}", error.errno or 0
        ) from error
    if done.returncode:
        tail = done.stderr.decode(errors="replace").strip().splitlines()[-_LAST_LINES:]
        raise HostError(f"{arguments[0]} failed with status {done.returncode}: " + " | ".join(tail))
    return done.stdout


def compile_python(
    root: Path, python: str, folder: Path, seen_as: str, *, beside: bool = False
) -> None:
    """Compile all Python below ``folder`` with dom0's own Python, natively and without privilege.

    ``root`` is dom0's root folder and ``python`` its version; ``seen_as`` is where ``folder`` lies
    in dom0, for tracebacks. Byte code goes to ``__pycache__``, with ``beside`` next to its source.
    It carries the sources' time stamps, as pip's does: whoever copies the tree must keep them.
    Dom0's Python runs here through dom0's own dynamic loader, so the two libcs never mix.
    """
    libraries = root / _LIBRARIES
    environment = {"PYTHONHOME": str(root / "usr"), "LC_ALL": "C.UTF-8", "PATH": os.defpath}
    run_tool(
        [
            str(libraries / "ld-linux-x86-64.so.2"),
            "--library-path",
            f"{libraries}:{root / 'usr/lib'}",
            str(root / "usr/bin" / f"python{python}"),
            *("-S", "-m", "compileall", "-q", *(["-b"] if beside else [])),
            *("-s", str(folder), "-p", seen_as, str(folder)),
        ],
        environment=environment,
    )


def copy_tree_image(tree: Path, image: Path, spare_mb: int) -> None:
    """Make ``image``, an ext4 file system without journal that holds a copy of ``tree``.

    ``spare_mb`` is the room left for dom0 to write, in MiB. Time stamps are kept.
    """
    usage = run_tool(["du", "-xsm", str(tree)])
    size = int(usage.split()[0]) + spare_mb
    options = ["-O", "^has_journal,^metadata_csum", "-E", "root_owner=0:0,lazy_itable_init=1"]
    run_tool(
        ["mke2fs", "-q", "-t", "ext4", *options, "-m", "0", "-d", str(tree), str(image), f"{size}M"]
    )
