"""What the commands about stand-alone guests have in common: where guests are, progress, errors."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dm.errors import ConfigError, HostError
from tools.toolstack.errors import HostFailure, ToolstackError
from tools.toolstack.life.control import ask
from tools.toolstack.life.places import Place, Places, default_folder

__all__ = ["Progress", "add_run_dir", "ask_domain", "dump_folder", "errors", "open_places", "warn"]


def add_run_dir(parser: argparse.ArgumentParser) -> None:
    """Declare where guests are noted."""
    parser.add_argument(
        "--run-dir",
        type=Path,
        metavar="DIR",
        help=f"where running guests are noted (default: {default_folder()})",
    )


def open_places(arguments: argparse.Namespace) -> Places:
    """The run directory that the arguments name. ToolstackError, HostFailure."""
    places = Places((arguments.run_dir or default_folder()).absolute())
    places.open()
    return places


def dump_folder() -> Path:
    """Where cores go: ``$XDG_STATE_HOME/ioreqd/dump``, else below ~/.local/state."""
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".local/state") / "ioreqd/dump"


@contextlib.contextmanager
def errors() -> Iterator[None]:
    """Turn the toolstack's errors into the command's."""
    try:
        yield
    except ToolstackError as error:
        raise ConfigError(str(error)) from None
    except HostFailure as error:
        raise HostError(str(error)) from None


class Progress:
    """One line on standard error that changes, if that is a terminal; else nothing."""

    def __init__(self) -> None:
        self._shown = 0
        self._terminal = sys.stderr.isatty()

    def __call__(self, text: str) -> None:
        """Show a text instead of the last one."""
        if self._terminal:
            print(f"\r{text.ljust(self._shown)}", end="", file=sys.stderr, flush=True)
            self._shown = len(text)

    def clear(self) -> None:
        """The line is empty again."""
        if self._shown:
            print(f"\r{' ' * self._shown}\r", end="", file=sys.stderr, flush=True)
            self._shown = 0


def ask_domain(place: Place, command: str, **arguments: Any) -> Any:
    """Ask the keeper of a domain, showing progress. ToolstackError, HostFailure."""
    progress = Progress()
    try:
        return ask(place.control, command, progress=progress, **arguments)
    finally:
        progress.clear()


def warn(line: str) -> None:
    """A line on standard error."""
    print(f"ioreqd: {line}", file=sys.stderr)
