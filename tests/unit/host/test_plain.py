"""Back ends that only take output, the set that holds them, and standard input and output."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dm.control.argv_chardev import from_chardev, from_short
from dm.errors import ConfigError
from dm.host.chardev import Chardev, ChardevSet
from dm.host.files import RingChardev
from dm.host.stdio import StdioChardev
from dm.server.loop import Loop
from tests.unit.host.conftest import Device
from tests.unit.loop import MiniLoop

Opener = Callable[[str], Chardev]


def test_a_file_is_emptied_first_and_takes_everything(serial: Opener, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("old content")
    chardev = serial(f"file:{tmp_path}/out")
    assert chardev.filename == "file"
    assert chardev.write(b"new") == 3
    assert (tmp_path / "out").read_bytes() == b"new"


def test_a_file_with_append_keeps_its_content(named: Opener, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("old ")
    named(f"file,id=x,path={tmp_path}/out,append=on").write(b"new")
    assert (tmp_path / "out").read_bytes() == b"old new"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_loses_bytes_and_nothing_else(serial: Opener) -> None:
    chardev = serial("file:/dev/full")
    assert chardev.write(b"lost") == 4
    assert chardev.dropped == 4


def test_a_path_with_commas_in_a_short_form_is_taken_whole(serial: Opener, tmp_path: Path) -> None:
    serial(f"file:{tmp_path}/a,b=c").write(b"x")
    assert (tmp_path / "a,b=c").read_bytes() == b"x"


def test_null_takes_everything(serial: Opener) -> None:
    chardev = serial("null")
    assert (chardev.filename, chardev.write(b"abc")) == ("null", 3)


def test_a_ring_keeps_the_newest(named: Opener) -> None:
    chardev = named("ringbuf,id=x,size=8")
    assert isinstance(chardev, RingChardev)
    for number in range(10):
        chardev.write(b"%d!" % number)
    assert chardev.read() == b"6!7!8!9!"
    assert chardev.read() == b""


@pytest.mark.parametrize("size", ["0", "3", "-1", "x", "33554432"])
def test_a_ring_of_a_bad_size_is_refused(named: Opener, size: str) -> None:
    with pytest.raises(ConfigError, match="power of two"):
        named(f"ringbuf,id=x,size={size}")


def test_the_set_lists_label_file_name_and_use(chardevs: ChardevSet) -> None:
    null = chardevs.open(from_chardev("null,id=a", []))
    chardevs.open(from_chardev("null,id=b", []))
    Device(null)
    assert chardevs.entries() == [("a", "null", True), ("b", "null", False)]


def test_a_reference_gives_the_back_end_it_names_once(chardevs: ChardevSet) -> None:
    named = chardevs.open(from_chardev("null,id=a", []))
    reference = from_short("-serial", "serial0", "chardev:a", [])
    assert reference is not None
    assert chardevs.open(reference) is named
    Device(named)
    with pytest.raises(ConfigError, match="'a' is already in use"):
        chardevs.open(reference)


def test_a_reference_to_nothing_names_its_option(chardevs: ChardevSet) -> None:
    spec = from_short("-serial", "serial0", "chardev:zz", [])
    assert spec is not None
    with pytest.raises(ConfigError, match="-serial chardev:zz: chardev 'zz' not found"):
        chardevs.open(spec)


def test_a_label_is_taken_once(chardevs: ChardevSet) -> None:
    chardevs.open(from_chardev("null,id=a", []))
    with pytest.raises(ConfigError, match="duplicate id 'a'"):
        chardevs.open(from_chardev("null,id=a", []))


def test_a_kind_that_is_not_modelled_drops_its_output(chardevs: ChardevSet) -> None:
    warnings: list[str] = []
    chardev = chardevs.open(from_chardev("spicevmc,id=vdagent,name=vdagent", warnings))
    assert chardev.write(b"abc") == 3
    assert len(warnings) == 1
    assert "-chardev spicevmc,id=vdagent,name=vdagent" in warnings[0]


def test_stdio_passes_bytes_and_gives_the_descriptors_back(loop: MiniLoop) -> None:
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    chardev = StdioChardev("serial0", loop, read_fd=in_read, write_fd=out_write)
    device = Device(chardev)
    os.write(in_write, b"typed")
    loop.run_until(lambda: bytes(device.got) == b"typed")
    chardev.write(b"shown")
    assert os.read(out_read, 100) == b"shown"
    os.close(in_write)
    loop.run_until(lambda: loop.step() == 0)
    loop.settle()
    chardev.write(b"after the end of input")
    assert os.read(out_read, 100) == b"after the end of input"
    chardev.close()
    assert os.get_blocking(in_read)
    assert os.get_blocking(out_write)
    for fd in (in_read, out_read, out_write):
        os.close(fd)


def test_stdio_as_libxl_gives_it_is_null_and_a_bounded_log(
    loop: MiniLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XEN_QEMU_CONSOLE_LIMIT", "10")
    with open("/dev/null", "rb") as null, open(tmp_path / "log", "wb") as log:
        chardev = StdioChardev("serial0", loop, read_fd=null.fileno(), write_fd=log.fileno())
        Device(chardev)
        for _ in range(4):
            assert chardev.write(b"1234") == 4
        loop.settle()
        chardev.close()
    assert (tmp_path / "log").read_bytes() == b"1234123412"
    assert chardev.dropped == 6


def test_the_loop_of_the_process_serves_back_ends(tmp_path: Path) -> None:
    loop = Loop()
    chardevs = ChardevSet(loop)
    chardev = chardevs.open(from_chardev("pty,id=a", []))
    device = Device(chardev)
    fd = os.open(chardev.filename.removeprefix("pty:"), os.O_RDWR | os.O_NOCTTY)
    os.write(fd, b"x")
    for _ in range(100):
        if not device.got:
            loop.run_once(0.1)
    assert bytes(device.got) == b"x"
    os.close(fd)
    chardevs.close()
    loop.close()
