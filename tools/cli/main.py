"""The `ioreqd` command: which sub-commands there are, and how errors become exit statuses."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from dm.errors import ConfigError, HostError

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "attach": "tools.cli.attach",
    "bench": "tools.cli.bench",
    "demo": "tools.cli.demo",
    "doc": "tools.cli.doc",
    "doctor": "tools.cli.doctor",
    "import": "tools.cli.import_map",
    "lab": "tools.cli.lab",
    "new": "tools.cli.new",
    "replay": "tools.cli.replay",
    "run": "tools.cli.run",
    "state": "tools.cli.state",
}
"""Sub-command -> module, with ``HELP: str``, ``configure(parser)``, ``run(arguments) -> int``."""

_USER_ERROR, _HOST_ERROR, _INTERRUPTED = 2, 1, 130


def _parser(chosen: str) -> argparse.ArgumentParser:
    """Return the parser; only the module of ``chosen`` is imported if that is a sub-command."""
    parser = argparse.ArgumentParser(
        prog="ioreqd", description="A device model for Xen HVM guests, written in Python."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    names = [chosen] if chosen in COMMANDS else list(COMMANDS)
    for name in names:
        if importlib.util.find_spec(COMMANDS[name]) is None:
            continue
        module: ModuleType = importlib.import_module(COMMANDS[name])
        command = commands.add_parser(name, help=module.HELP, description=module.HELP)
        module.configure(command)
        command.set_defaults(_run=module.run)
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
