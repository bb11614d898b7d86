"""How the source tree that is being run becomes a wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from dm.errors import ConfigError, HostError

__all__ = ["build_wheel"]

_PACKAGED = ("pyproject.toml", "README.md", "LICENSE", "protocol", "dm", "devices", "tools")
_DATE = "1577836800"
"""Of files that setuptools makes; 2020-01-01."""
_TREE = Path(__file__).resolve().parents[2]


def build_wheel(folder: Path) -> Path:
    """Build ioreqd's wheel from the source tree into ``folder``; needs setuptools, no network.

    Equal sources give equal bytes, so that the laboratory's cache knows the wheel again.
    """
    if not (_TREE / "pyproject.toml").is_file():
        raise ConfigError("this ioreqd was not started from its source tree: give its wheel")
    # A copy, because setuptools leaves a folder in the tree that would get into the next wheel.
    copy = folder / "tree"
    for name in _PACKAGED:
        source = _TREE / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            copy.mkdir(exist_ok=True)
            shutil.copy2(source, copy)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--wheel-dir", str(folder), str(copy)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": _DATE}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    shutil.rmtree(copy)
    wheels = sorted(folder.glob("ioreqd-*.whl"))
    if done.returncode or not wheels:
        raise HostError(f"building the wheel failed: {done.stderr.strip()[-500:]}")
    return wheels[-1]
