"""`ioreqd doc`: prints a device's register map, made from its declarations."""

from __future__ import annotations

import argparse
from pathlib import Path

from dm.errors import ConfigError
from tools.prototype.device_class import find_device_class
from tools.prototype.doc_html import html
from tools.prototype.doc_markdown import markdown
from tools.prototype.doc_model import describe

__all__ = ["HELP", "configure", "run"]

HELP = "print a device's register map, as its class declares it"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the sub-command's arguments to ``parser``."""
    parser.add_argument(
        "device", metavar="DEVICE", help="my.py:MyDevice, package.module:MyDevice, or a name: edu"
    )
    parser.add_argument("--html", action="store_true", help="a page with pictures of the bits")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write it to FILE")


def run(arguments: argparse.Namespace) -> int:
    """Print or write the page."""
    device = describe(find_device_class(arguments.device))
    text = html(device) if arguments.html else markdown(device)
    if arguments.output is None:
        print(text, end="")
        return 0
    try:
        arguments.output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{arguments.output}: {error.strerror}") from None
    return 0
