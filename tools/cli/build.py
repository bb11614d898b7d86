"""`ioreqd build`: compiles a guest's C source, for `xl` or for `ioreqd run`."""

from __future__ import annotations

import argparse
from pathlib import Path

from dm.errors import ConfigError
from tools.prototype.guest_build import build_guest

__all__ = ["HELP", "configure", "run"]

HELP = "compile a guest's C source to an ELF file"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("source", type=Path, metavar="GUEST.c", help="it includes guest.h")
    parser.add_argument("target", type=Path, metavar="GUEST.elf", help="what is made")
    parser.add_argument(
        "-D", dest="defines", action="append", default=[], metavar="NAME=NUMBER", help="a macro"
    )


def run(arguments: argparse.Namespace) -> int:
    """Compile it; what the compiler says is the error's text."""
    source: Path = arguments.source
    if not source.is_file():
        raise ConfigError(f"{source}: there is no such file")
    build_guest(source, arguments.target, _macros(arguments.defines), [source.parent])
    return 0


def _macros(words: list[str]) -> dict[str, int]:
    macros = {}
    for word in words:
        name, _, value = word.partition("=")
        try:
            macros[name] = int(value or "1", 0)
        except ValueError:
            raise ConfigError(f"-D {word}: the value is not a number") from None
    return macros
