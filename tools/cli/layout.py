"""`ioreqd layout`: shows where a guest's memory will be, and draws it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dm.errors import ConfigError, HostError
from tools.toolstack.errors import ToolstackError
from tools.toolstack.layout_picture import as_svg, as_table
from tools.toolstack.memory_layout import layout_of
from tools.toolstack.rdm import parse_region, read_regions
from tools.toolstack.xlcfg import read_config

__all__ = ["HELP", "configure", "run"]

HELP = "show where a guest's memory will be, around the MMIO hole and reserved regions"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the sub-command's arguments to ``parser``."""
    add = parser.add_argument
    add("config", type=Path, metavar="CONFIG", help="the guest's configuration, as for xl create")
    add("assignments", nargs="*", metavar="KEY=VALUE", help="settings after those of the file")
    add(
        "--rdm",
        type=Path,
        metavar="FILE",
        help="the host's reserved device memory, a region a line: 0xSTART-0xEND [SBDF …], both "
        "ends included, # begins a comment",
    )
    add(
        "--reserved",
        action="append",
        default=[],
        metavar="0xSTART-0xEND[,SBDF…]",
        help="one more such region; may be given several times",
    )
    add("--svg", type=Path, metavar="FILE", help="also draw the layout to FILE")


def run(arguments: argparse.Namespace) -> int:
    """Carry the sub-command out; return the exit status."""
    try:
        guest = read_config(arguments.config, _warn, extra=arguments.assignments)
        regions = list(read_regions(arguments.rdm) if arguments.rdm else ())
        regions += [parse_region(text.split(",")) for text in arguments.reserved]
        layout = layout_of(guest, regions)
        layout.memory_map()
    except ToolstackError as error:
        raise ConfigError(str(error)) from None
    for line in layout.warnings:
        _warn(f"warning: {line}")
    if arguments.svg is not None:
        try:
            arguments.svg.write_text(as_svg(layout, f"{guest.name}: memory"), encoding="utf-8")
        except OSError as error:
            raise HostError(f"open {arguments.svg}: {error.strerror}") from None
    print(as_table(layout), end="")
    return 0


def _warn(line: str) -> None:
    print(f"ioreqd: {line}", file=sys.stderr)
