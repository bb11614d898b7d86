"""What cannot be exactly once: output that has left when the process dies leaves again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import devices.debug_console
import devices.uart16550
from tools.hypervisor.vcpu import PORT

from .processes import LIMIT, World

COM1 = 0x3F8
DEBUG = 0x402
KILLS = 25
LINE = 16


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, vcpus=1)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("port", "words"),
    [
        (COM1, ("-serial", "chardev:out")),
        (DEBUG, ("-device", "isa-debugcon,iobase=0x402,chardev=out")),
    ],
)
def test_a_byte_may_leave_twice_but_none_is_lost(
    world: World, port: int, words: tuple[str, ...]
) -> None:
    path = world.folder / "output"
    arguments = ("-chardev", f"file,id=out,path={path},append=on", *words)
    model = world.start(*arguments)
    sent = bytearray()
    ending = threading.Event()

    def write() -> None:
        while not ending.is_set():
            byte = len(sent) & 0xFF
            world.vcpu.write(PORT, port, 1, byte)
            sent.append(byte)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    for _ in range(KILLS):
        model.kill()
        model = world.start(*arguments)
    ending.set()
    writer.join(LIMIT)
    repeats = at = 0
    for byte in path.read_bytes():
        if at < len(sent) and byte == sent[at]:
            at += 1
        else:
            assert byte == sent[at - 1]
            repeats += 1
    assert at == len(sent)
    assert repeats <= KILLS


@pytest.mark.parametrize("module", [devices.uart16550, devices.debug_console])
def test_the_devices_say_so(module: object) -> None:
    assert "can leave twice" in (module.__doc__ or "").replace("\n", " ")
