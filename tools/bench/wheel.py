"""The wheel that the laboratory installs: built from the tree that this package lies in."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from dm.errors import ConfigError, HostError

__all__ = ["build_wheel"]

_TREE = Path(__file__).resolve().parents[2]
_FOLDERS = ("protocol", "dm", "devices", "tools")


def build_wheel(folder: Path) -> Path:
    """Build this project's wheel below ``folder`` and return its path.

    The sources are copied first, so that the tree stays as it is. Raises ConfigError when this is
    an installed package and not a source tree.
    """
    if not (_TREE / "pyproject.toml").is_file():
        raise ConfigError("the bench builds a wheel from the sources; give one with --wheel")
    sources = folder / "sources"
    sources.mkdir()
    for entry in _TREE.iterdir():
        if entry.is_file() and not entry.name.startswith("."):
            shutil.copy(entry, sources)
        elif entry.name in _FOLDERS or entry.name == "scripts":
            shutil.copytree(
                entry, sources / entry.name, ignore=shutil.ignore_patterns("__pycache__")
            )
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    result = subprocess.run(
        [*command, str(sources)], capture_output=True, text=True, check=False, cwd=folder
    )
    wheels = list(folder.glob("*.whl"))
    if result.returncode or not wheels:
        text = "\n".join((result.stdout + result.stderr).splitlines()[-10:])
        raise HostError(f"cannot build the wheel (python3 -m build):\n{text}")
    return wheels[0]
