"""The commands about guests that run: `ioreqd list`, `pause`, `save`, `destroy` and the others."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.cli.life import add_run_dir, ask_domain, errors, open_places
from tools.toolstack.errors import HostFailure
from tools.toolstack.life.control import ask
from tools.toolstack.life.places import Place, Places

__all__ = ["COMMANDS", "DomainCommand", "attach"]

INFO_SECONDS = 5.0
LONG_SECONDS = 600.0
LOOK_SECONDS = 0.1
NEVER = (None, None)


@dataclass(frozen=True)
class DomainCommand:
    """A sub-command about one domain, or, without ``one``, about those that there are.

    ``options``: flags and what they mean; ``perform`` gets the run directory, the domain and the
    arguments.
    """

    HELP: str
    perform: Callable[[Places, Place, argparse.Namespace], object]
    options: tuple[tuple[str, str, str], ...] = ()
    file: str = ""
    """What the FILE after the domain is for; empty: there is none."""
    patience: float = 0
    """Seconds to wait for an answer unless --timeout says otherwise; 0: there is no such option."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("domain", metavar="DOMAIN", help="its name or domid")
        if self.file:
            parser.add_argument("file", type=Path, metavar="FILE", help=self.file)
        for short, long, text in self.options:
            parser.add_argument(short, long, action="store_true", help=text)
        if self.patience:
            parser.add_argument(
                "--timeout",
                type=float,
                default=self.patience,
                metavar="SECONDS",
                help=f"when the domain's keeper is taken to hang (default: {self.patience:g})",
            )
        add_run_dir(parser)

    def run(self, arguments: argparse.Namespace) -> int:
        """Carry the command out."""
        with errors():
            places = open_places(arguments)
            self.perform(places, places.find(arguments.domain), arguments)
        return 0


class ListCommand:
    """`ioreqd list`."""

    HELP = "the guests that there are"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("domain", nargs="?", metavar="DOMAIN", help="only this one")
        parser.add_argument("--json", action="store_true", help="all that is known, for programs")
        add_run_dir(parser)

    def run(self, arguments: argparse.Namespace) -> int:
        """Print the table."""
        with errors():
            places = open_places(arguments)
            found = [places.find(arguments.domain)] if arguments.domain else places.all()
            rows = [row for row in (_info(place) for place in found) if row is not None]
        if arguments.json:
            print(json.dumps(rows, indent=2))
            return 0
        print(f"{'Name':<40} {'ID':>5} {'Mem':>6} {'VCPUs':>5} {'State':>7} {'Time(s)':>9}")
        for row in rows:
            print(
                f"{row['name']:<40} {row['domid']:>5} {row['memory']:>6} {row['vcpus']:>5} "
                f"{row['state']:>7} {row['seconds']:>9.1f}"
            )
        return 0


def _info(place: Place) -> dict[str, Any] | None:
    """What the keeper says of a domain; None: it is only just coming or going."""
    try:
        found: dict[str, Any] = ask(place.control, "info", timeout=INFO_SECONDS)
    except HostFailure:
        return None
    return found


def _plain(command: str) -> Callable[[Places, Place, argparse.Namespace], object]:
    return lambda places, place, arguments: ask_domain(place, command)


def _power(command: str) -> Callable[[Places, Place, argparse.Namespace], object]:
    def perform(places: Places, place: Place, arguments: argparse.Namespace) -> None:
        ask_domain(place, command, force=arguments.force)
        if arguments.wait:
            while place.alive:
                time.sleep(LOOK_SECONDS)

    return perform


def _destroy(places: Places, place: Place, arguments: argparse.Namespace) -> None:
    try:
        ask_domain(place, "destroy", timeout=arguments.timeout)
    except HostFailure:
        # A keeper that hangs: its device model ends with it, and the rest is swept.
        place.kill_keeper()
    while place.folder.exists() and place.alive:
        time.sleep(LOOK_SECONDS / 10)
    places.all()


def _save(places: Places, place: Place, arguments: argparse.Namespace) -> None:
    stay = arguments.checkpoint or arguments.paused
    path = str(arguments.file.absolute())
    ask_domain(place, "save", timeout=LONG_SECONDS, path=path, stay=stay, paused=arguments.paused)
    if not stay:
        while place.folder.exists() and place.alive:
            time.sleep(LOOK_SECONDS / 10)


def _config(places: Places, place: Place, arguments: argparse.Namespace) -> None:
    print(json.dumps(ask_domain(place, "config"), indent=2))


def _console(places: Places, place: Place, arguments: argparse.Namespace) -> None:
    attach(place)


def attach(place: Place, attached: Callable[[], object] = lambda: None) -> None:
    """Connect this terminal with a domain's console. HostFailure, ToolstackError.

    ``attached`` is called as soon as nothing can be missed any more.
    """
    from tools.toolstack.life.console import follow, talk

    found = ask_domain(place, "console")
    if found["tty"]:
        talk(found["tty"], attached)
        return
    attached()

    def write(data: bytes) -> None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    follow(Path(found["log"]), lambda: place.alive, write)


POWER_OPTIONS = (
    ("-F", "--force", "shut it down from outside if it has no drivers to be asked by"),
    ("-w", "--wait", "wait until the domain is gone"),
)
SAVE_OPTIONS = (
    ("-c", "--checkpoint", "let the guest run on"),
    ("-p", "--paused", "let the guest be, paused"),
)
COMMANDS: dict[str, DomainCommand | ListCommand] = {
    "config": DomainCommand("print a guest's configuration as JSON", _config),
    "console": DomainCommand("attach to a guest's console; Ctrl-] leaves it", _console),
    "destroy": DomainCommand("end a guest at once", _destroy, patience=30.0),
    "list": ListCommand(),
    "pause": DomainCommand("stop a guest's vCPUs", _plain("pause")),
    "reboot": DomainCommand("ask a guest to reboot", _power("reboot"), POWER_OPTIONS),
    "save": DomainCommand(
        "save a guest to a file and end it", _save, SAVE_OPTIONS, file="the file to be written"
    ),
    "shutdown": DomainCommand("ask a guest to power off", _power("shutdown"), POWER_OPTIONS),
    "soft-reset": DomainCommand(
        "give a guest new Xen interfaces while it runs on", _plain("soft-reset")
    ),
    "unpause": DomainCommand("let a guest's vCPUs go on", _plain("unpause")),
}
"""Sub-command -> what carries it out."""
