"""A device makes guest RAM read-only and writable again, by either way to run it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from .running import Running

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing")
pytest.importorskip("unicorn")

DEVICE = """\
from dm import Bank, Device, PortWindow, Register


class Ports(Bank, size=4, width=32):
    writable = Register.at(0)


class Shadow(Device):
    ports = PortWindow(Ports, at=0x5000)

    @Ports.writable.on_write
    def change(self, new, old):
        self.platform.set_memory_type(0xC8, 1, writable=bool(new))
"""
GUEST = """\
#include "guest.h"

static void guest_main(void)
{
    write32(0xC8000, 1);
    out32(0x5000, 0);
    write32(0xC8000, 2);
    say("GUEST locked %x", read32(0xC8000));
    out32(0x5000, 1);
    write32(0xC8000, 3);
    say("GUEST open %x", read32(0xC8000));
    out8(0xf4, 4);
}
"""


@pytest.mark.parametrize("words", [(), ("--in-process",)])
def test_writes_are_dropped_while_ram_is_read_only(
    launch: Callable[..., Running], tmp_path: Path, words: tuple[str, ...]
) -> None:
    device, guest = tmp_path / "shadow.py", tmp_path / "guest.c"
    device.write_text(DEVICE)
    guest.write_text(GUEST)
    running = launch(
        *("run", "--engine", "unicorn", "--serial", "null", *words),
        *("--device", f"{device}:Shadow", "--kernel", str(guest)),
    )
    assert running.wait() == 9, running.stderr
    said = [line.partition("GUEST ")[2] for line in running.stderr.splitlines() if "GUEST" in line]
    assert said == ["locked 1", "open 3"]
