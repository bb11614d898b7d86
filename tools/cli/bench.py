"""`ioreqd bench`: prints the project's figures as tables of ratios."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from dm.errors import ConfigError
from tools.bench.figures import Table, render

__all__ = ["HELP", "configure", "run"]

HELP = "measure: against stock QEMU in the laboratory, and natively against bare Python"

_DEFAULT_XEN = "4.17"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the sub-command's arguments to ``parser``."""
    add = parser.add_argument
    add("--native", action="store_true", help="only what needs no Xen (seconds)")
    add("--lab", action="store_true", help="only what needs the laboratory (minutes)")
    add("--xen", default=_DEFAULT_XEN, metavar="RELEASE", help="Xen release (default: 4.17)")
    add(
        "--cpus",
        type=int,
        action="append",
        metavar="N",
        help="emulated CPUs; may be given several times (default: 1 and 2)",
    )
    add("--rounds", type=int, default=5, metavar="N", help="rounds in the laboratory (default: 5)")
    add("--wheel", type=Path, metavar="WHEEL", help="install this wheel instead of building one")
    add("--markdown", action="store_true", help="print Markdown")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; the exit status is 0 whatever the figures say."""
    if arguments.rounds < 1:
        raise ConfigError(f"--rounds {arguments.rounds}: at least one")
    both = arguments.native == arguments.lab
    tables: list[Table] = []
    began = time.monotonic()

    def tell(line: str) -> None:
        print(f"[{time.monotonic() - began:5.1f} s] {line}", file=sys.stderr, flush=True)

    if both or arguments.native:
        tables += _native(tell)
    if both or arguments.lab:
        tables += _laboratory(arguments, tell, demanded=arguments.lab)
    print(f"{_machine()}\n\n{render(tables, markdown=arguments.markdown)}")
    return 0


def _native(tell: Callable[[str], None]) -> list[Table]:
    from tools.bench import children, life, native, standalone, startup

    tell("natively: requests")
    requests = native.measure()
    tell("natively: start-up")
    imports = startup.measure()
    tell("stand-alone: round trips, port accesses, a run")
    apart = standalone.measure(tell)
    tell("the toolstack: reaping, then fifty guests")
    return [requests, imports, apart, children.measure(), life.measure(tell)]


def _laboratory(
    arguments: argparse.Namespace, tell: Callable[[str], None], *, demanded: bool
) -> list[Table]:
    """The laboratory's tables; without it one line, or ConfigError if it was ``demanded``."""
    from tools.bench.laboratory import Plan, measure
    from tools.xenlab import find_release, lab_available
    from tools.xenlab.tree import build_wheel

    find_release(arguments.xen)
    reason = lab_available()
    if reason is not None:
        if demanded:
            raise ConfigError(reason)
        tell(f"no laboratory here: {reason}")
        return []
    with tempfile.TemporaryDirectory(prefix="ioreqd-wheel-") as folder:
        wheel = arguments.wheel or build_wheel(Path(folder))
        plans = [
            Plan(arguments.xen, cpus, wheel, arguments.rounds) for cpus in arguments.cpus or (1, 2)
        ]
        return [table for plan in plans for table in measure(plan, tell)]


def _machine() -> str:
    """One line about where and when this was measured."""
    model = platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    python = platform.python_version()
    return f"{time.strftime('%Y-%m-%d')}, {model}, {os.cpu_count()} CPUs, Python {python}"
