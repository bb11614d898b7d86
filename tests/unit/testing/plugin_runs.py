"""A pytest process of its own, as a user of the plugin has it."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["PLUGIN", "run_pytest"]

PLUGIN = "dm.testing.plugin"


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in ``folder``, with the plugin whether or not an entry point loads it."""
    known = any(entry.value == PLUGIN for entry in entry_points(group="pytest11"))
    plugin = () if known else ("-p", PLUGIN)
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin),
            *("--strict-markers", "-W", "error", "--rootdir", str(folder), *arguments),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
