from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from dm.errors import ConfigError
from dm.machine.container import save
from protocol.libxl_stream import LIBXC_RECORD, LibxcRecordType, LibxlOption, LibxlRecordType
from tests.unit.machine.specimens import bench
from tools.state.files import find_container, read_state

from .savefile import emulator, libxc, libxl, save_file, start

CONTEXT = libxl(LibxlRecordType.LIBXC_CONTEXT)


def container() -> bytes:
    return save(bench().machine)


def find(data: bytes | bytearray) -> bytes:
    return bytes(find_container(memoryview(data)))


def test_a_container_is_found_as_it_is() -> None:
    assert find(container()) == container()


def test_a_container_is_found_in_a_file_of_xl_save() -> None:
    assert find(save_file(container())) == container()


def test_the_first_container_of_ours_is_taken() -> None:
    assert find(save_file(b"QEVM\0", container(), container() + b"x")) == container()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"QEVM\0\0\0\3", "neither saved state of ioreqd nor a file of xl save"),
        (save_file(), "no device model's state"),
        (save_file(b"QEVM\0\0\0\3"), "begins with b'QEVM'"),
        (start(byteorder=0x04030201), "another byte order"),
        (start(mandatory_flags=1), "before version 4.6"),
        (start(optional_data_len=1 << 31), "inside the configuration: 2147483648 bytes"),
        (start({"version": 3}), "unknown libxl stream at 0x39: ident 0x4c6962786c466d74"),
        (start({"options": LibxlOption.LEGACY}), "options 0x2"),
        (start({"ident": 1}), "ident 0x1"),
        (start() + CONTEXT + libxc(id=5), "unknown libxc stream at 0x51: id 0x5"),
        (start() + CONTEXT + libxc(version=4), "version 4"),
        (start() + CONTEXT + libxc(options=1), "options 0x1"),
        (start() + CONTEXT + libxc()[:-4], "ends inside the libxc stream: 8 bytes"),
        (start() + CONTEXT + libxc(b"p" * 99)[:90], "record of type 0x1 of the libxc stream"),
        (start() + libxl(77, b"abc"), "ends inside the libxl stream"),
        (start() + libxl(LibxlRecordType.EMULATOR_CONTEXT, b"1234567"), "record of 7 bytes"),
    ],
)
def test_what_has_no_container_is_told_apart(data: bytes, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find(data)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_truncation_of_a_save_file_is_one_error(tmp_path: Path) -> None:
    path, whole = tmp_path / "cut", save_file(container())
    end = whole.index(container()) + len(container())
    path.write_bytes(whole)
    for length in range(end - 1, -1, -7):
        os.truncate(path, length)
        with pytest.raises(ConfigError) as caught:
            read_state(path)
        assert str(caught.value).startswith(f"{path}: ")


def test_no_flipped_byte_gives_another_state() -> None:
    blob = container()
    whole = bytearray(save_file(blob))
    limit = whole.index(blob)
    for position in range(limit):
        whole[position] ^= 0xFF
        try:
            assert find(whole) == blob
        except ConfigError:
            pass
        whole[position] ^= 0xFF
    assert find(whole) == blob


def test_guest_memory_is_stepped_over_not_read(tmp_path: Path) -> None:
    path, pages = tmp_path / "huge", 3 << 30
    empty = LIBXC_RECORD.build({"type": LibxcRecordType.PAGE_DATA, "length": 0, "body": b""})
    head = empty[:4] + pages.to_bytes(4, "little")
    with path.open("wb") as file:
        file.write(start() + CONTEXT + libxc()[:-8])
        for _ in range(3):
            file.write(head)
            file.seek(pages, os.SEEK_CUR)
        file.write(libxc()[-8:] + emulator(container()) + libxl(LibxlRecordType.END))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert set(read_state(path).devices) == {"gadget.0", "leaf"}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


def test_a_file_that_cannot_be_read_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    for name, message in (
        ("missing", "No such file"),
        ("empty", "the file is empty"),
        ("pipe", "not a regular file"),
        (".", "not a regular file"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_state(tmp_path / name)
