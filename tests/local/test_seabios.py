"""SeaBIOS on each engine, served by the real `ioreqd-dm` in its own process.

Debian's firmware, unchanged, with the board that serves it on Xen: it sizes RAM from the CMOS,
makes its memory writable through the host bridge, finds by fw_cfg that its console is the serial
port, and tells there that nothing can be booted.
"""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tools.hypervisor.engines import Engine
from tools.hypervisor.engines.choose import make_engine
from tools.hypervisor.errors import EngineUnavailable
from tools.hypervisor.hypervisor import Hypervisor
from tools.hypervisor.images import bios_regions, load_bios

from .processes import LIMIT, Model

FIRMWARE = Path("/usr/share/seabios")
MEMORY_MIB = 32
LONGEST = 60.0


@pytest.mark.parametrize("engine_name", ["unicorn", "kvm"])
@pytest.mark.parametrize("name", ["bios.bin", "bios-256k.bin"])
def test_seabios_says_on_the_serial_port_that_there_is_nothing_to_boot(
    tmp_path: Path, name: str, engine_name: str
) -> None:
    firmware = FIRMWARE / name
    if not firmware.exists():
        pytest.skip(f"there is no {firmware} (Debian's package seabios)")
    console, socket = tmp_path / "console", tmp_path / "xen"
    ram = [(0, MEMORY_MIB << 20), *bios_regions(firmware.stat().st_size)]
    hypervisor = Hypervisor(str(socket))
    domain = hypervisor.create_domain(vcpus=1, ram=ram)
    hypervisor.start()
    try:
        engine = make_engine(engine_name, domain, load_bios(domain.memory, firmware))
    except EngineUnavailable as error:
        hypervisor.close()
        pytest.skip(str(error))
    model = Model(
        [
            *("-accel", f"local,path={socket},domid={domain.domid}", "-machine", "xenfv"),
            *("-m", str(MEMORY_MIB), "-serial", f"file:{console}", "-boot", "menu=on"),
        ],
        tmp_path / "errors",
    )
    try:
        state = f"/local/domain/0/device-model/{domain.domid}/state"
        assert hypervisor.store.wait(state, LIMIT) == "running", model.messages
        engine.start()
        text = wait_for(console, b"No bootable device.", engine)
    finally:
        engine.stop()
        model.kill()
        hypervisor.close()
    assert engine.error is None
    assert domain.crash_message is None
    for line in (b"SeaBIOS (version ", b"Press ESC for boot menu.", b"No bootable device."):
        assert line in text, text


def wait_for(path: Path, wanted: bytes, engine: Engine) -> bytes:
    """What the file holds once ``wanted`` is in it, the guest has ended or time is up."""
    pause, text = threading.Event(), b""
    for _ in range(int(LONGEST / 0.05)):
        text = path.read_bytes() if path.exists() else b""
        if wanted in text or engine.join(0):
            break
        pause.wait(0.05)
    return text
