"""The laboratory: a real Xen host in an emulator, as a library. This is its public face."""

from __future__ import annotations

from tools.xenlab.command import Command, LabError, Result
from tools.xenlab.image import Image, build, built
from tools.xenlab.lab import Lab, run
from tools.xenlab.needs import lab_available
from tools.xenlab.release import DEFAULT_XEN, RELEASES, Release, find_release

__all__ = [
    "DEFAULT_XEN",
    "RELEASES",
    "Command",
    "Image",
    "Lab",
    "LabError",
    "Release",
    "Result",
    "build",
    "built",
    "find_release",
    "lab_available",
    "run",
]
