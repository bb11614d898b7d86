"""The bench's C programs: how they are compiled, and how the guest's lines are read."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from dm.errors import ConfigError, HostError

__all__ = ["DONE", "READY", "compile_echo", "compile_guest", "compile_launcher", "parse"]

_DATA = Path(__file__).parent / "data"
_GUEST_FLAGS = (
    *("-m32", "-O1", "-ffreestanding", "-fno-pic", "-fno-stack-protector", "-mno-sse"),
    *("-fcf-protection=none", "-nostdlib", "-static", "-Wl,-Ttext=0x100000", "-Wl,-N"),
    *("-Wl,-z,noseparate-code", "-Wl,--build-id=none", "-Wl,--no-warn-rwx-segments"),
)
_SAMPLE = re.compile(r"\(d\d+\) BENCH ([a-z-]+) ([0-9a-f]+) ([0-9a-f]+)$", re.MULTILINE)

READY = r"BENCH ready"
"""What the guest prints some seconds before its first sample."""
DONE = r"BENCH done"
"""What it prints behind its last sample."""


def _compile(source: str, output: Path, flags: tuple[str, ...]) -> Path:
    compiler = shutil.which("gcc")
    if compiler is None:
        raise ConfigError("the bench needs gcc (package gcc)")
    command = [compiler, *flags, "-o", str(output), str(_DATA / source)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise HostError(f"gcc cannot compile {source}: {result.stderr.strip()}")
    return output


def compile_guest(output: Path, *, rounds: int, requests: int) -> Path:
    """Compile the guest: ``rounds`` samples of each kind, of about ``requests`` accesses each."""
    sizes = (f"-DROUNDS={rounds}", f"-DREQUESTS={requests}")
    return _compile("guest.c", output, (*_GUEST_FLAGS, *sizes))


def compile_launcher(output: Path, *, target: str, record: str) -> Path:
    """Compile the program that writes the time to ``record`` and becomes ``target``."""
    names = (f'-DTARGET="{target}"', f'-DRECORD="{record}"')
    return _compile("launcher.c", output, ("-O1", "-static", *names))


def compile_echo(output: Path) -> Path:
    """Compile the emulator that does the least: ``output DOMID PORT sleep|poll``."""
    return _compile("echo.c", output, ("-O2", "-static"))


def parse(log: str, mhz: float) -> dict[str, float]:
    """The time of one operation of each kind, in microseconds, from lines of Xen's log.

    It is the lower quartile of the samples, since what else runs on the machine only ever adds.
    ``mhz`` is the TSC's frequency. Raises HostError when there is no sample.
    """
    samples: dict[str, list[float]] = {}
    for name, count, ticks in _SAMPLE.findall(log):
        samples.setdefault(name, []).append(int(ticks, 16) / int(count, 16) / mhz)
    if not samples:
        raise HostError("the bench's guest printed no sample")
    return {name: sorted(values)[len(values) // 4] for name, values in samples.items()}
