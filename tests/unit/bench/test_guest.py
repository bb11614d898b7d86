"""The bench's C programs, and how the guest's lines become microseconds."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from dm.errors import ConfigError, HostError
from tools.bench import guest
from tools.bench.guest import compile_echo, compile_guest, compile_launcher, parse

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing")

LOG = """\
(XEN) HVM1 restore: CPU 0
(d1) BENCH ready
(d1) BENCH port-read a 3e8
(d1) BENCH rep-insl 1 c8
(d1) BENCH port-read a 7d0
(d1) BENCH port-read a 1388
(d1) BENCH port-read a ffff
(d1) BENCH done
"""


def test_the_lower_quartile_of_each_kind_is_in_microseconds() -> None:
    assert parse(LOG, mhz=2.0) == {"port-read": 100.0, "rep-insl": 100.0}


def test_a_log_without_a_sample_is_an_error() -> None:
    with pytest.raises(HostError, match="no sample"):
        parse("(d1) BENCH ready\n", 1.0)


def test_a_missing_compiler_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="package gcc"):
        compile_guest(tmp_path / "guest.elf", rounds=1, requests=1)


@needs_gcc
def test_what_the_compiler_refuses_is_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "launcher.c").write_text("int main(void) { return nothing; }\n")
    monkeypatch.setattr(guest, "_DATA", tmp_path)
    with pytest.raises(HostError, match="nothing"):
        compile_launcher(tmp_path / "launcher", target="/x", record="/y")


@needs_gcc
def test_the_launcher_notes_the_time_and_becomes_its_target(tmp_path: Path) -> None:
    record = tmp_path / "started"
    launcher = compile_launcher(tmp_path / "run", target="/bin/echo", record=str(record))
    result = subprocess.run([launcher, "one", "two"], capture_output=True, text=True, check=True)
    assert result.stdout == "one two\n"
    assert int(record.read_text()) > 0


@needs_gcc
def test_the_echo_says_what_it_lacks_and_how_it_is_called(tmp_path: Path) -> None:
    echo = compile_echo(tmp_path / "echo")
    assert subprocess.run([echo], check=False).returncode == 2
    called = [str(echo), "1", "0x5100", "sleep"]
    result = subprocess.run(called, capture_output=True, text=True, check=False)
    assert result.returncode == 1 or Path("/dev/xen/privcmd").exists()
    assert "/dev/xen" in result.stderr or Path("/dev/xen/privcmd").exists()


@needs_gcc
def test_the_guest_is_an_elf_file_of_32_bits_at_1_mib(tmp_path: Path) -> None:
    from elftools.elf.elffile import ELFFile

    path = tmp_path / "guest.elf"
    try:
        compile_guest(path, rounds=1, requests=1)
    except HostError as error:
        pytest.skip(f"no 32-bit compiler: {error}")
    with path.open("rb") as file:
        elf = ELFFile(file)
        assert elf.elfclass == 32
        assert elf.header.e_entry >= 0x100000
