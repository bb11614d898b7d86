"""`ioreqd doctor`: tells what this machine can do for ioreqd, and what it lacks."""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from dm.errors import ConfigError

__all__ = ["HELP", "configure", "report", "run"]

HELP = "tell what this machine can do, and what it lacks"

_LIBRARIES = {
    "libxendevicemodel.so.1": "libxendevicemodel1",
    "libxenforeignmemory.so.1": "libxenforeignmemory1",
    "libxenevtchn.so.1": "libxenevtchn1",
    "libxenstore.so.4": "libxenstore4",
    "libxentoolcore.so.1": "libxentoolcore1",
}
_DEVICES = ("privcmd", "evtchn", "gntdev", "xenbus")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the sub-command's arguments to ``parser``: there are none."""


def _found(soname: str) -> bool:
    try:
        ctypes.CDLL(soname)
    except OSError:
        return False
    return True


def _laboratory() -> Iterator[tuple[str, str]]:
    from tools.xenlab import RELEASES, built, lab_available

    yield "laboratory", lab_available() or "can be built here"
    for release in RELEASES.values():
        try:
            image = built(release)
            state = f"built, {image.folder}" if image else "not built (ioreqd lab build)"
        except ConfigError as error:
            state = str(error)
        yield f"Xen {release.xen} in the laboratory", state


def report() -> Iterator[tuple[str, str]]:
    """Yield what was found out, as (subject, finding)."""
    yield "Python", f"{platform.python_version()}, {sys.executable}"
    yield "machine", f"{platform.system()} {platform.release()}, {platform.machine()}"
    for soname, package in _LIBRARIES.items():
        yield soname, "found" if _found(soname) else f"missing (package {package})"
    present = [name for name in _DEVICES if Path("/dev/xen", name).exists()]
    yield "/dev/xen", ", ".join(present) or "nothing: this is not a dom0"
    yield "user", "root" if os.geteuid() == 0 else f"uid {os.geteuid()}"
    yield from _laboratory()


def run(arguments: argparse.Namespace) -> int:
    """Print the report; the exit status is 0 whatever it says."""
    for subject, finding in report():
        print(f"{subject + ':':<27} {finding}")
    return 0
