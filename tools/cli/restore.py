"""`ioreqd restore`: a guest goes on that `ioreqd save` has written to a file."""

from __future__ import annotations

import argparse
from pathlib import Path

from tools.cli.create import add_common, create_plan, folders
from tools.cli.life import Progress, errors

__all__ = ["HELP", "configure", "run"]

HELP = "let a saved guest go on"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("file", type=Path, metavar="FILE", help="what `ioreqd save` has written")
    add_common(parser)


def run(arguments: argparse.Namespace) -> int:
    """Restore the guest."""
    from tools.toolstack.life.plan import Plan
    from tools.toolstack.life.saved import Saved

    progress = Progress()
    with errors():
        logs, dumps = folders(arguments)
        try:
            saved = Saved(arguments.file, progress)
        finally:
            progress.clear()
        plan = Plan(saved.config, saved.text, logs, dumps, saved=saved)
        return create_plan(arguments, plan)
