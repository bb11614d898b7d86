"""The same guest program gives the same trace of the same device file on every engine.

tests/xen/test_trace.py compares it with real Xen's.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import traced

from .qtest_client import QtestClient, qtest_binary
from .running import Running

__all__ = ["qtest_binary"]

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing")
pytest.importorskip("unicorn")

Launch = Callable[..., Running]

WORDS = [*traced.device_words(str(traced.DEVICE)), *traced.observe_words("trace")]
LONG_MODE = (
    *("-m64", "-O1", "-ffreestanding", "-nostdlib", "-static", "-fno-pic", "-no-pie"),
    *("-mno-red-zone", "-mno-sse", "-fno-stack-protector", "-fcf-protection=none"),
    *("-Wl,-Ttext=0x100000", "-Wl,--build-id=none", "-Wl,-z,noseparate-code"),
)
SIZES = {1: "b", 2: "w", 4: "l"}


@pytest.fixture(autouse=True)
def guest(tmp_path: Path) -> None:
    (tmp_path / "guest.c").write_text(traced.c_source())
    (tmp_path / "script.py").write_text(traced.script_source())


def trace(tmp_path: Path) -> list[str]:
    return (tmp_path / "trace").read_text().splitlines()


def run(launch: Launch, tmp_path: Path, *words: str) -> list[str]:
    """What one run traces."""
    running = launch("run", *words, "--", *WORDS)
    assert running.wait() == 0, running.stderr
    return trace(tmp_path)


@pytest.fixture
def wanted(launch: Launch, tmp_path: Path) -> list[str]:
    """The trace on Unicorn."""
    return run(launch, tmp_path, "--kernel", "guest.c", "--engine", "unicorn")


def test_it_has_each_access_interrupt_message_and_transfer(wanted: list[str]) -> None:
    accesses = [line for line in wanted if " read" in line or " write" in line]
    others = ("DMA", "INTA", "MSI")
    accesses = [line for line in accesses if not any(f"traced {word}" in line for word in others)]
    devices_own = [step for step in traced.steps() if step[1] & -0x1000 != traced.RAM]
    assert len(accesses) == len(devices_own)
    for word in (
        "traced DMA read 0x300000 16 bytes",
        "traced DMA write 0x300100 16 bytes",
        "traced MSI 0xfee00000 data 0x41",
        "traced INTA of slot 16 level 1",
        "!ZeroDivisionError: on purpose",
        "mode=slow",
    ):
        assert any(word in line for line in wanted), word


def test_in_one_process(launch: Launch, tmp_path: Path, wanted: list[str]) -> None:
    assert run(launch, tmp_path, "--kernel", "guest.c", "--in-process") == wanted


@pytest.mark.parametrize("engine", ["unicorn", "kvm"])
@pytest.mark.parametrize("mode", ["protected", "long"])
def test_in_each_mode_of_each_engine(
    launch: Launch, tmp_path: Path, wanted: list[str], mode: str, engine: str
) -> None:
    """In long mode as a program of its own with the same accesses: it runs on more KVMs."""
    kernel = "guest.c"
    if mode == "long":
        kernel = "guest.elf"
        (tmp_path / "long.c").write_text(traced.long_mode_source())
        words = ["gcc", *LONG_MODE, "-o", kernel, "long.c"]
        subprocess.run(words, cwd=tmp_path, check=True)
    running = launch("run", "--kernel", kernel, "--engine", engine, "--", *WORDS)
    if running.wait() == 2 and engine == "kvm":
        pytest.skip(running.stderr.strip())
    assert running.process.returncode == (1 if mode == "long" else 0), running.stderr
    assert trace(tmp_path) == wanted


def test_by_a_script(launch: Launch, tmp_path: Path, wanted: list[str]) -> None:
    assert run(launch, tmp_path, "--script", "script.py") == wanted


def test_by_qtest(qtest_binary: Path, tmp_path: Path, wanted: list[str]) -> None:
    words = [
        *traced.device_words(str(traced.DEVICE)),
        *traced.observe_words(str(tmp_path / "trace")),
    ]
    with QtestClient(qtest_binary, tmp_path, words) as client:
        for verb, place, size, value in traced.steps():
            letter = SIZES[size]
            if verb == "config":
                client.out(0xCF8, 1 << 31 | traced.DEVFN << 8 | place & 0xFC, "l")
                verb, place = "port", 0xCFC + (place & 3)
            if verb == "port" and value is None:
                client.inp(place, letter)
            elif verb == "port" and value is not None:
                client.out(place, value, letter)
            elif value is None:
                client.load(place, letter)
            else:
                client.store(place, value, letter)
        assert client.end() == 0
    assert trace(tmp_path) == wanted
