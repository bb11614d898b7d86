"""Debian's SeaBIOS runs from reset to the end of its search for something to boot.

Around it are the stand-alone hypervisor's own chips, and the least of a chip set: the host bridge
without which it cannot make its memory writable, a CMOS with the size of RAM, its debug port.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.hypervisor.clock import VirtualClock
from tools.hypervisor.domain import Domain
from tools.hypervisor.engines.unicorn import UnicornEngine
from tools.hypervisor.images import bios_regions, load_bios

from .machine import Recorder

FIRMWARE = Path("/usr/share/seabios")
RAM = 32 << 20
DEBUG_PORT = 0x402
CMOS_INDEX, CMOS_DATA = 0x70, 0x71
CMOS = {0x34: 0x00, 0x35: 0x01, 0x3D: 0x21}
"""16 MiB above 16 MiB; boot from disk, then from CD."""
CONFIG_ADDRESS, CONFIG_DATA = 0xCF8, 0xCFC
HOST_BRIDGE = 0x80000000
IDENTITY = bytes.fromhex("86803712 00000000 02000006 00000000".replace(" ", ""))
LIMIT = 60.0


class ChipSet(Recorder):
    """The least of a chip set, and the text that comes out of the debug port."""

    text = b""
    cmos = 0
    config = 0

    def read(self, space: int, address: int, size: int, /) -> int:
        value = super().read(space, address, size)
        if space:
            return value
        if address == DEBUG_PORT:
            return 0xE9
        if address == CMOS_DATA and self.cmos >= 0xE:
            return CMOS.get(self.cmos, 0)
        if CONFIG_DATA <= address < CONFIG_DATA + 4 and self.config & ~0xFC == HOST_BRIDGE:
            offset = self.config & 0xFC | address & 3
            return int.from_bytes(IDENTITY.ljust(256, b"\0")[offset : offset + size], "little")
        return value

    def write(self, space: int, address: int, size: int, value: int, /) -> None:
        if (space, address) == (0, CMOS_INDEX):
            self.cmos = value & 0x7F
        super().write(space, address, size, value)
        if (space, address) == (0, CONFIG_ADDRESS):
            self.config = value
        elif (space, address) == (0, DEBUG_PORT):
            self.text += bytes([value])
            if self.text.endswith(b"No bootable device."):
                self.vcpu.domain.shutdown(0)


@pytest.mark.parametrize("name", ["bios.bin", "bios-256k.bin"])
def test_seabios_finds_nothing_to_boot(name: str) -> None:
    path = FIRMWARE / name
    if not path.exists():
        pytest.skip(f"there is no {path} (Debian's package seabios)")
    ram = [(0, RAM), *bios_regions(path.stat().st_size)]
    domain = Domain(1, vcpus=1, ram=ram, clock=VirtualClock())
    chips = ChipSet(domain.vcpus[0], [])
    engine = UnicornEngine(domain, load_bios(domain.memory, path), [chips])
    engine.start()
    ended = engine.join(LIMIT)
    engine.stop()
    text = chips.text.decode("ascii", "replace")
    assert ended, text
    assert engine.error is None
    assert domain.crash_message is None
    for line in ("SeaBIOS (version ", "Press ESC for boot menu.", "No bootable device."):
        assert line in text
