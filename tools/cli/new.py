"""`ioreqd new`: writes a commented, running, tested device file to begin with, and its guest."""

from __future__ import annotations

import argparse
from pathlib import Path

from dm.errors import ConfigError
from tools.prototype.new import KINDS, new_device, new_guest

__all__ = ["HELP", "configure", "run"]

HELP = "write a commented, running, tested device file to begin with"

_PLACES = {
    "pci": "a PCI function with registers behind a BAR, INTx and MSI (default)",
    "mmio": "registers at a fixed address, an ISA interrupt",
    "ports": "registers at I/O ports, an ISA interrupt",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the sub-command's arguments to ``parser``."""
    parser.add_argument("file", type=Path, metavar="FILE", help="my_device.py, with class MyDevice")
    places = parser.add_mutually_exclusive_group()
    for kind in KINDS:
        places.add_argument(
            f"--{kind}", dest="kind", action="store_const", const=kind, help=_PLACES[kind]
        )
    parser.set_defaults(kind=KINDS[0])


def run(arguments: argparse.Namespace) -> int:
    """Write the file and say what can be done with it."""
    file = arguments.file
    if (there := file.with_suffix(".c")).exists():
        raise ConfigError(f"{there} is there already, and is left as it is")
    name = new_device(file, arguments.kind)
    guest = new_guest(file, arguments.kind)
    print(f"{file} has the class {name}, which runs, and {guest} drives it. Go on with:")
    for command, what in (
        (f"pytest {file}", "its tests"),
        (f"ioreqd run --device {file}:{name}", "its registers, as a guest finds them"),
        (f"ioreqd run --device {file}:{name} --kernel {guest}", "the guest"),
        (f"ioreqd doc {file}:{name}", "its register map"),
    ):
        print(f"  {command:<58} # {what}")
    return 0
