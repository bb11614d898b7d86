"""The tutorial's last section: its device and its guest, unchanged, on real Xen."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path

from tools.prototype.guest_build import build_guest

from .support import Guest, Host

DOCS = Path(__file__).parents[2] / "docs"
RUN = r"^\$ ioreqd run --device summer\.py:Summer --kernel guest\.c\n((?:.+\n)+?)(?=\$|```)"
CONFIG = re.compile(r"^```\n(name = .*?)^```$", re.MULTILINE | re.DOTALL)


def configuration(text: str) -> dict[str, object]:
    """The tutorial's xl.cfg, with its files where the laboratory has them."""
    match = CONFIG.search(text)
    assert match is not None
    pairs = (line.split(" = ", 1) for line in match[1].replace("/root/", "/share/").splitlines())
    return {key: ast.literal_eval(value) for key, value in pairs}


def test_the_guest_says_on_its_serial_console_what_the_tutorial_says(
    host: Host, make_guest: Callable[..., Guest], tmp_path: Path
) -> None:
    text = (DOCS / "tutorial.md").read_text()
    said = re.search(RUN, text, re.MULTILINE)
    assert said is not None
    host.provide(DOCS / "tutorial" / "summer.py")
    host.provide(build_guest(DOCS / "tutorial" / "guest.c", tmp_path / "guest.elf"))
    settings = configuration(text)
    guest = make_guest(str(settings.pop("name")), extra=settings)
    guest.create("-p")
    console = guest.serial()
    try:
        host.xl("unpause", guest.name)
        console.wait_for("GUEST (PASS|FAIL.*\n)", 60.0)
    finally:
        console.kill()
    printed = console.output.replace("\r", "")
    assert said[1].strip() in printed
    guest.wait_gone()
