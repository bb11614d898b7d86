"""`ioreqd import`: makes a device file of a register map in SystemRDL or CMSIS-SVD."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools.prototype.import_map import PLACES, import_map
from tools.prototype.new import class_name, write_new_file

__all__ = ["HELP", "configure", "run"]

HELP = "make a device file of a register map in SystemRDL or CMSIS-SVD"

_HELP = {"pci": "behind BAR 0 of a PCI function (default)", "mmio": "at a fixed address"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the sub-command's arguments to ``parser``."""
    parser.add_argument("file", type=Path, metavar="FILE", help="a .rdl or .svd file")
    parser.add_argument("--peripheral", metavar="NAME", help="which block of the file")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="my_device.py, which must not be there"
    )
    places = parser.add_mutually_exclusive_group()
    for place in PLACES:
        places.add_argument(
            f"--{place}", dest="place", action="store_const", const=place, help=_HELP[place]
        )
    parser.set_defaults(place=PLACES[0])


def run(arguments: argparse.Namespace) -> int:
    """Write or print the device file; what could not be imported goes to stderr."""
    output: Path | None = arguments.output
    made = import_map(
        arguments.file,
        peripheral=arguments.peripheral,
        name=None if output is None else class_name(output),
        place=arguments.place,
    )
    if output is None:
        print(made.text, end="")
    else:
        write_new_file(output, made.text)
    for warning in made.warnings:
        print(f"ioreqd: {arguments.file}: {warning}", file=sys.stderr)
    if output is not None:
        print(f"{output} has the class {made.name}. Go on with: ioreqd doc {output}:{made.name}")
    return 0
