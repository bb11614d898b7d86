"""A keeper in the foreground whose soft resets fail at a step: RUN_DIR CONFIG STEP."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from tools.toolstack.errors import HostFailure
from tools.toolstack.life import soft_reset
from tools.toolstack.life.create import create_here
from tools.toolstack.life.places import Places
from tools.toolstack.life.plan import Plan
from tools.toolstack.xlcfg import read_source


def fail(reset: object) -> None:
    raise HostFailure("told to fail")


def main(run_dir: Path, path: Path, step: int) -> None:
    steps = list(soft_reset.STEPS)
    steps[step] = replace(steps[step], perform=fail)
    soft_reset.STEPS = tuple(steps)
    config, text = read_source(path, print)
    plan = Plan(config, text, run_dir / "log", run_dir / "dump", engine="unicorn")
    create_here(Places(run_dir), plan, lambda domid: None)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
