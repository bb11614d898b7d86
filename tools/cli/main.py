"""The `ioreqd` command: which sub-commands there are, and how errors become exit statuses."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from dm.errors import ConfigError, HostError

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "attach": "tools.cli.attach",
    "bench": "tools.cli.bench",
    "build": "tools.cli.build",
    "config": "tools.cli.domains:config",
    "console": "tools.cli.domains:console",
    "create": "tools.cli.create",
    "demo": "tools.cli.demo",
    "destroy": "tools.cli.domains:destroy",
    "doc": "tools.cli.doc",
    "doctor": "tools.cli.doctor",
    "import": "tools.cli.import_map",
    "lab": "tools.cli.lab",
    "layout": "tools.cli.layout",
    "list": "tools.cli.domains:list",
    "new": "tools.cli.new",
    "pause": "tools.cli.domains:pause",
    "reboot": "tools.cli.domains:reboot",
    "replay": "tools.cli.replay",
    "restore": "tools.cli.restore",
    "run": "tools.cli.run",
    "save": "tools.cli.domains:save",
    "shutdown": "tools.cli.domains:shutdown",
    "soft-reset": "tools.cli.domains:soft-reset",
    "state": "tools.cli.state",
    "unpause": "tools.cli.domains:unpause",
}
"""Sub-command -> module, with ``HELP: str``, ``configure(parser)``, ``run(arguments) -> int``.

After a colon: such an object under that name in the module's own table ``COMMANDS``.
"""

_USER_ERROR, _HOST_ERROR, _INTERRUPTED = 2, 1, 130


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; the parsers of sub-commands are of this class, too."""

    def error(self, message: str) -> NoReturn:
        """End with status 2."""
        self.exit(_USER_ERROR, f"{self.prog}: {message} ({self.prog} --help says more)\n")


def _parser(chosen: str) -> argparse.ArgumentParser:
    """Return the parser; only the module of ``chosen`` is imported if that is a sub-command."""
    parser = _Parser(
        prog="ioreqd", description="A device model for Xen HVM guests, written in Python."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    names = [chosen] if chosen in COMMANDS else list(COMMANDS)
    for name in names:
        where, _, entry = COMMANDS[name].partition(":")
        if importlib.util.find_spec(where) is None:
            continue
        module: Any = importlib.import_module(where)
        found = module.COMMANDS[entry] if entry else module
        command = commands.add_parser(name, help=found.HELP, description=found.HELP)
        found.configure(command)
        command.set_defaults(_run=found.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out ``argv`` (default: the process's) and return the exit status.

    2 for a ConfigError, 1 for a HostError, each with one message on stderr; 130 after an interrupt.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        arguments = _parser(words[0] if words else "").parse_args(words)
        status: int = arguments._run(arguments)
    except ConfigError as error:
        print(f"ioreqd: {error}", file=sys.stderr)
        return _USER_ERROR
    except HostError as error:
        print(f"ioreqd: {error}", file=sys.stderr)
        return _HOST_ERROR
    except BrokenPipeError:
        # Whoever read the output has seen enough; nothing more may be written, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _HOST_ERROR
    except KeyboardInterrupt:
        return _INTERRUPTED
    return status


if __name__ == "__main__":
    sys.exit(main())
