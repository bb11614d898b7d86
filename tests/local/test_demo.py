"""What `make run` shows, and that the guest it ships was built from the sources beside it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.prototype.demo import DEMO_GUEST, build_demo, source_checksum

LINES = """\
A guest says hello.
edu is at 00:03.0, identification 010000ed
factorial of 10 is 3628800, said by an interrupt
DMA: 512 bytes are in the device
soft reset: the device model ends and another one follows
back again; liveness register edcba987
DMA: 512 bytes came back, all equal
Good bye.
"""
TAG = (0x3C5DC3A7).to_bytes(4, "little")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.cli.main", *words],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )


def test_the_demonstration_says_all_its_lines() -> None:
    done = run("demo")
    assert done.stdout.replace("\r\n", "\n") == LINES
    assert (done.returncode, done.stderr) == (0, "")


def test_it_says_the_same_in_one_process() -> None:
    done = run("run", "--in-process", "--device", "edu", "--kernel", str(DEMO_GUEST))
    assert done.stdout.replace("\r\n", "\n") == LINES
    assert (done.returncode, done.stderr) == (0, "")


def test_without_its_device_it_says_so_and_fails() -> None:
    done = run("run", "--kernel", str(DEMO_GUEST))
    assert "no edu device" in done.stdout
    assert done.returncode == 3


def test_the_shipped_guest_was_built_from_the_sources() -> None:
    data = DEMO_GUEST.read_bytes()
    at = data.index(TAG)
    assert int.from_bytes(data[at + 4 : at + 8], "little") == source_checksum(), (
        "build it again: python -m tools.prototype.demo"
    )


def test_the_sources_build(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc (Debian package gcc)")
    data = build_demo(tmp_path / "demo.elf").read_bytes()
    at = data.index(TAG)
    assert int.from_bytes(data[at + 4 : at + 8], "little") == source_checksum()
