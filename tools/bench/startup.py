"""What the imports of ioreqd-dm's start cost: user CPU time and memory beyond bare Python's."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

from dm.errors import HostError
from tools.bench.figures import Figure, Table

__all__ = ["measure"]

ROUNDS = 15
_TREE = str(Path(__file__).resolve().parents[2])
_MODULES = (
    "dm.control.main",
    "dm.server.loop",
    "dm.control.process",
    "dm.control.signals",
    "dm.hypervisor.xen.hypervisor",
    "devices.xenfv",
)
"""What the process imports from exec to `running`, directly or by the way."""


def _spend(code: str) -> tuple[float, float]:
    """Run ``code`` in a Python of its own: its user CPU time in ms, its resident size in MB."""
    source, sink = os.pipe()
    report = f"{code}; print(open('/proc/self/statm').read())"
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-I", "-S", "-c", report],
        {},
        file_actions=[(os.POSIX_SPAWN_DUP2, sink, 1)],
    )
    os.close(sink)
    with open(source, encoding="ascii") as output:
        pages = output.read().split()
    _, status, usage = os.wait4(pid, 0)
    if status or len(pages) < 2:
        raise HostError(f"python3 -c '{code}' ended with status {status}")
    return usage.ru_utime * 1000, int(pages[1]) * resource.getpagesize() / (1 << 20)


def measure(rounds: int = ROUNDS) -> Table:
    """Start Python ``rounds`` times bare and with the modules, in turns."""
    bare = "pass"
    ours = f"import sys; sys.path.insert(0, {_TREE!r}); import " + ", ".join(_MODULES)
    _spend(ours)  # compiles
    seen = [(_spend(bare), _spend(ours)) for _ in range(rounds)]
    figures = [
        Figure(name, unit, [a[column] for a, _ in seen], [b[column] for _, b in seen])
        for column, (name, unit) in enumerate((("user CPU time", "ms"), ("resident memory", "MB")))
    ]
    notes = [f"Medians of {rounds} processes each, python3 -I -S; byte code was there."]
    return Table("Natively: start-up, imports only", "bare Python", "ioreqd-dm", figures, notes)
