"""What guests cost on the stand-alone hypervisor: their start, their memory, their soft reset.

The commands are the real ones, one after the other; the guests do nothing.
"""

from __future__ import annotations

import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

from dm.errors import HostError
from tools.bench.figures import Figure, Table
from tools.toolstack.life.control import ask
from tools.toolstack.life.places import Place, Places

__all__ = ["measure"]

GUESTS = 50
RESETS = 5
LIMIT = 0.5
"""Seconds that a soft reset of a 64 MiB guest may take."""
LARGE = 64
ENTRY = 0x100000
IDLE = bytes.fromhex("b0ff e621 e6a1 fb f4 ebfc")
"""Mask both PICs, then halt for ever with interrupts on."""
HEAD = struct.Struct("<16sHHIIIIIHHHHHH")
SEGMENT = struct.Struct("<IIIIIIII")


def measure(tell: Callable[[str], None] = lambda line: None, guests: int = GUESTS) -> Table:
    """Measure for some tens of seconds. HostError: a guest cannot be started here."""
    with tempfile.TemporaryDirectory(prefix="ioreqd-") as name:
        host = _Host(Path(name))
        try:
            return _table(host, tell, guests)
        finally:
            host.close()


def _table(host: _Host, tell: Callable[[str], None], guests: int) -> Table:
    tell(f"life: the start of {guests} guests")
    began = perf_counter()
    starts = [host.create(f"guest{number}", 4) for number in range(guests)]
    whole = perf_counter() - began
    keepers, models = host.memory()
    tell(f"life: soft resets of a guest with {LARGE} MiB")
    host.create("large", LARGE)
    resets = [host.soft_reset("large") for _ in range(RESETS)]
    figures = [
        Figure(f"start of {guests} guests, one after the other", "s", [], [whole]),
        Figure("start of one of them", "s", [], starts),
        Figure("memory of a guest's keeper, engine included", "MiB", [], keepers),
        Figure("memory of its device model", "MiB", [], models),
        Figure(f"soft reset of a guest with {LARGE} MiB", "s", [LIMIT], resets, 1.0),
    ]
    notes = [
        "Memory is the proportional set size: what processes share counts once for all of them.",
        f"The first of all starts took {starts[0]:.2f} s, the median is {median(starts):.2f} s.",
    ]
    return Table("Life of stand-alone guests", "limit", "ioreqd", figures, notes)


class _Host:
    """A run directory of its own below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._places = Places(folder / "run")
        self._places.open()
        _write_guest(folder / "guest.elf")

    def create(self, name: str, mebibytes: int) -> float:
        """Seconds until `ioreqd create` is back."""
        config = self._folder / f"{name}.cfg"
        config.write_text(
            f'name = "{name}"\ntype = "hvm"\nmemory = {mebibytes}\nvga = "none"\n'
            f'firmware_override = "{self._folder / "guest.elf"}"\n'
        )
        words = [sys.executable, "-m", "tools.cli.main", "create", "-q", str(config)]
        began = perf_counter()
        done = subprocess.run(
            [*words, "--run-dir", str(self._places.folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise HostError(f"ioreqd create: {done.stderr.strip()}")
        return perf_counter() - began

    def soft_reset(self, name: str) -> float:
        """Seconds that a soft reset takes."""
        place = self._places.find(name)
        began = perf_counter()
        ask(place.control, "soft-reset")
        return perf_counter() - began

    def memory(self) -> tuple[list[float], list[float]]:
        """MiB of each keeper and of each device model."""
        rows = [ask(place.control, "info") for place in self._places.all()]
        keepers = [_mebibytes(row["pid"]) for row in rows]
        return keepers, [_mebibytes(row["device_model"]) for row in rows]

    def close(self) -> None:
        """Destroy all guests, and wait until they are gone."""
        places = self._places.all()
        for place in places:
            ask(place.control, "destroy")
        for place in places:
            _wait_gone(place)


def _wait_gone(place: Place) -> None:
    """The keeper's lock can be had when it has let go of the domain."""
    while place.folder.exists():
        sleep(0.005)


def _mebibytes(pid: int) -> float:
    """The proportional set size of a process."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise HostError(f"/proc/{pid}/smaps_rollup has no Pss")


def _write_guest(path: Path) -> None:
    """The smallest ELF file that runs."""
    offset = HEAD.size + SEGMENT.size
    ident = b"\x7fELF\x01\x01\x01".ljust(16, b"\0")
    head = HEAD.pack(ident, 2, 3, 1, ENTRY, HEAD.size, 0, 0, HEAD.size, SEGMENT.size, 1, 0, 0, 0)
    size = len(IDLE)
    path.write_bytes(head + SEGMENT.pack(1, offset, ENTRY, ENTRY, size, size, 7, 1) + IDLE)
