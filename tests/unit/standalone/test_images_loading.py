"""Guest images: where they go, how a vCPU begins, and that whatever is wrong is one clear line."""

from __future__ import annotations

import random
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from protocol.start_info import HVM_MEMMAP_ENTRY, HVM_START_INFO, HVM_START_MAGIC
from tools.hypervisor.errors import ImageError
from tools.hypervisor.images import (
    RESET,
    CpuStart,
    bios_regions,
    load_auto,
    load_bios,
    load_elf,
    load_flat,
)
from tools.hypervisor.memory import GuestMemory

RAM = 16 << 20
HEADER = {32: struct.Struct("<16sHHIIIIIHHHHHH"), 64: struct.Struct("<16sHHIQQQIHHHHHH")}
MACHINE = {32: 3, 64: 62}
NOTE, LOAD = 4, 1


def memory(*regions: tuple[int, int]) -> GuestMemory:
    return GuestMemory(regions or [(0, RAM)])


def program_header(bits: int, kind: int, offset: int, at: int, filesz: int, memsz: int) -> bytes:
    if bits == 32:
        return struct.pack("<8I", kind, offset, at, at, filesz, memsz, 7, 4)
    return struct.pack("<IIQQQQQQ", kind, 7, offset, at, at, filesz, memsz, 4)


def note(kind: int, data: bytes, name: bytes = b"Xen\0") -> bytes:
    return (
        struct.pack("<III", len(name), len(data), kind)
        + name
        + data.ljust(len(data) + 3 & ~3, b"\0")
    )


def elf(
    bits: int = 32,
    *,
    entry: int = 0x100010,
    segments: list[tuple[int, bytes, int]] | None = None,
    notes: bytes = b"",
    machine: int | None = None,
    kind: int = 2,
) -> bytes:
    """An ELF file; ``segments``: address, bytes in the file, bytes in memory."""
    parts = [(0x100000, b"\x90" * 64, 128)] if segments is None else segments
    headers = [(LOAD, at, data, size) for at, data, size in parts]
    headers += [(NOTE, 0, notes, len(notes))] if notes else []
    size = 32 if bits == 32 else 56
    offset = HEADER[bits].size + size * len(headers)
    table, body = b"", b""
    for type_, at, data, in_memory in headers:
        table += program_header(bits, type_, offset + len(body), at, len(data), in_memory)
        body += data
    identity = b"\x7fELF" + bytes([1 if bits == 32 else 2, 1, 1]) + bytes(9)
    number = MACHINE[bits] if machine is None else machine
    head = HEADER[bits].pack(
        *(identity, kind, number, 1, entry, HEADER[bits].size, 0, 0, HEADER[bits].size),
        *(size, len(headers), 0, 0, 0),
    )
    return head + table + body


def file(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "image"
    path.write_bytes(data)
    return path


def refused(tmp_path: Path, data: bytes, *regions: tuple[int, int]) -> str:
    path = file(tmp_path, data)
    with pytest.raises(ImageError) as caught:
        load_elf(memory(*regions), path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text


def test_a_flat_image_begins_in_real_mode_where_it_is(tmp_path: Path) -> None:
    ram = memory()
    start = load_flat(ram, file(tmp_path, b"\xeb\xfe"), 0x7C05)
    assert start == CpuStart("real", ip=5, cs=0x7C0)
    assert start.code_base + start.ip == 0x7C05
    assert ram.read(0x7C05, 2) == b"\xeb\xfe"


@pytest.mark.parametrize("gpa", [-1, 0x100000, 1 << 40])
def test_a_flat_image_lies_below_1_mib(tmp_path: Path, gpa: int) -> None:
    with pytest.raises(ImageError, match="below 1 MiB"):
        load_flat(memory(), file(tmp_path, b"\xeb\xfe"), gpa)


def test_an_image_larger_than_memory(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"do not fit into the guest's RAM"):
        load_flat(memory((0, 0x10000)), file(tmp_path, bytes(0x9000)), 0x8000)


@pytest.mark.parametrize("load", [load_bios, load_elf, load_auto])
def test_no_file_and_an_empty_file(
    tmp_path: Path, load: Callable[[GuestMemory, Path], CpuStart]
) -> None:
    with pytest.raises(ImageError, match=r"nothing: No such file"):
        load(memory(), tmp_path / "nothing")
    with pytest.raises(ImageError, match=r"image: the file is empty"):
        load(memory(), file(tmp_path, b""))
    with pytest.raises(ImageError, match=r"Is a directory"):
        load(memory(), tmp_path)


@pytest.mark.parametrize("size", [0x10000, 0x20000, 0x40000])
def test_firmware_ends_at_4_gib_and_its_last_part_below_1_mib(tmp_path: Path, size: int) -> None:
    data = random.Random(size).randbytes(size)
    ram = memory((0, RAM), *bios_regions(size))
    assert load_bios(ram, file(tmp_path, data)) == RESET
    assert ram.read((1 << 32) - size, size) == data
    shown = min(size, 0x20000)
    assert ram.read(0x100000 - shown, shown) == data[-shown:]
    assert RESET.code_base + RESET.ip == 0xFFFFFFF0


@pytest.mark.parametrize("size", [100, 0x1001, (16 << 20) + 0x1000])
def test_firmware_is_whole_pages_and_not_too_many(tmp_path: Path, size: int) -> None:
    with pytest.raises(ImageError, match="whole pages"):
        load_bios(memory((0, RAM), *bios_regions(size)), file(tmp_path, bytes(size)))


def test_firmware_needs_its_ram(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="do not fit"):
        load_bios(memory(), file(tmp_path, bytes(0x10000)))


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("size", [4, 8])
def test_the_pvh_note_gives_a_32_bit_entry(tmp_path: Path, bits: int, size: int) -> None:
    notes = note(1, b"abc") + note(18, b"other", b"GNU\0")
    notes += note(18, (0x100020).to_bytes(size, "little"))
    start = load_elf(memory(), file(tmp_path, elf(bits, notes=notes)))
    assert (start.mode, start.ip) == ("protected", 0x100020)


def test_without_the_note_a_32_bit_file_begins_at_its_entry(tmp_path: Path) -> None:
    start = load_elf(memory(), file(tmp_path, elf(32)))
    assert (start.mode, start.ip) == ("protected", 0x100010)
    assert start.ebx


def test_without_the_note_a_64_bit_file_begins_in_long_mode(tmp_path: Path) -> None:
    ram = memory()
    start = load_elf(ram, file(tmp_path, elf(64)))
    assert (start.mode, start.ip) == ("long", 0x100010)
    pointers = int.from_bytes(ram.read(start.page_table, 8), "little")
    directory = int.from_bytes(ram.read((pointers & ~0xFFF) + 3 * 8, 8), "little")
    leaf = int.from_bytes(ram.read((directory & ~0xFFF) + 511 * 8, 8), "little")
    assert leaf & ~0xFFF == (1 << 32) - (2 << 20)


def test_the_rest_of_a_segment_is_cleared(tmp_path: Path) -> None:
    ram = memory()
    ram.write(0x100000, b"\xaa" * 256)
    load_elf(ram, file(tmp_path, elf()))
    assert ram.read(0x100000, 256) == b"\x90" * 64 + bytes(64) + b"\xaa" * 128


def test_the_start_info_has_command_line_and_memory_map(tmp_path: Path) -> None:
    regions = [(0, 0xA0000), (0x100000, 8 << 20), (1 << 32, 4 << 20)]
    ram = memory(*regions)
    start = load_elf(ram, file(tmp_path, elf()), "console=ttyS0 größe")
    info = HVM_START_INFO.parse(ram.read(start.ebx, HVM_START_INFO.sizeof()))
    assert (info.magic, info.version, info.nr_modules) == (HVM_START_MAGIC, 1, 0)
    assert ram.read(info.cmdline_paddr, 22) == "console=ttyS0 größe".encode() + b"\0"
    size = HVM_MEMMAP_ENTRY.sizeof()
    found = [
        HVM_MEMMAP_ENTRY.parse(ram.read(info.memmap_paddr + size * n, size))
        for n in range(info.memmap_entries)
    ]
    assert [(one.addr, one.size, one.type) for one in found] == [(*r, 1) for r in regions]


def test_what_the_loader_adds_avoids_the_image(tmp_path: Path) -> None:
    segments = [(0x1000, b"x" * 0x9F000, 0x9F000), (0x100000, b"y" * 0x3000, 0x5000)]
    ram = memory()
    start = load_elf(ram, file(tmp_path, elf(64, entry=0x100000, segments=segments)))
    assert ram.read(0x1000, 0x9F000) == b"x" * 0x9F000
    assert ram.read(0x100000, 0x3000) == b"y" * 0x3000
    assert ram.read(0x103000, 0x2000) == bytes(0x2000)
    assert start.ebx >= 0x105000
    assert start.page_table >= 0x105000


def test_no_room_for_what_the_loader_adds(tmp_path: Path) -> None:
    data = elf(segments=[(0x1000, b"\x90" * 16, 0xF000)], entry=0x1000)
    assert "no room" in refused(tmp_path, data, (0, 0x10000))


def test_by_its_content(tmp_path: Path) -> None:
    assert load_auto(memory(), file(tmp_path, elf())).mode == "protected"
    start = load_auto(memory(), file(tmp_path, b"\xeb\xfe"))
    assert (start.mode, start.code_base + start.ip) == ("real", 0x7C00)


BAD = {
    "not an ELF file": b"MZ" + bytes(100),
    "for EM_AARCH64": elf(64, machine=183),
    "for EM_386": elf(64, machine=3),
    "not a program": elf(kind=1),
    "anything to load": elf(segments=[]),
    "damaged": elf()[:40],
    "truncated": elf()[:-8],
    "lies in no segment": elf(entry=0x200000),
    "do not fit": elf(segments=[(RAM - 16, bytes(64), 64)], entry=RAM - 16),
    "larger than the RAM": elf(segments=[(0, bytes(4), 1 << 30)], entry=0),
    "overlap at 0x100020": elf(
        segments=[(0x100000, bytes(64), 64), (0x100020, bytes(64), 64)], entry=0x100000
    ),
    "has 6 bytes": elf(notes=note(18, bytes(6))),
    "PVH entry 0x300000": elf(notes=note(18, struct.pack("<I", 0x300000))),
    "longer than the place": elf(notes=note(18, bytes(4))[:-2]),
    "more bytes in the file": elf(segments=[(0x100000, bytes(64), 32)], entry=0x100000),
}


@pytest.mark.parametrize("expected", BAD)
def test_a_bad_elf_file(tmp_path: Path, expected: str) -> None:
    assert expected in refused(tmp_path, BAD[expected])


def test_big_endian(tmp_path: Path) -> None:
    data = bytearray(elf())
    data[5] = 2
    refused(tmp_path, bytes(data))


def outcome(path: Path) -> str:
    """What is wrong with an ELF file; nothing else than an ImageError may be raised."""
    try:
        load_elf(memory(), path)
    except ImageError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("seed", range(8))
def test_damage_anywhere_is_one_readable_line_or_none(tmp_path: Path, seed: int) -> None:
    """Each of many files with some bytes changed is loaded or refused; nothing else is raised."""
    choose = random.Random(seed)
    bits = choose.choice((32, 64))
    whole = elf(bits, notes=note(18, struct.pack("<I", 0x100020)))
    path = tmp_path / "image"
    for _ in range(60):
        data = bytearray(whole[: choose.choice((len(whole), choose.randrange(8, len(whole))))])
        for _ in range(choose.randrange(1, 5)):
            data[choose.randrange(4, len(data))] = choose.choice((0, 1, 0x7F, 0x80, 0xFF))
        path.write_bytes(data)
        assert "\n" not in outcome(path)


def test_a_program_of_the_compiler(tmp_path: Path) -> None:
    source, target = tmp_path / "guest.s", tmp_path / "guest.elf"
    source.write_text(".globl _start\n.bss\n.skip 64\n.text\n.skip 8\n_start: hlt\n")
    command = [
        "gcc",
        "-m32",
        "-nostdlib",
        "-static",
        "-no-pie",
        "-Wl,-Ttext=0x100000,--build-id=none",
    ]
    done = subprocess.run([*command, "-o", str(target), str(source)], check=False)
    assert done.returncode == 0
    ram = memory()
    start = load_elf(ram, target)
    assert ram.read(start.ip, 1) == b"\xf4"
