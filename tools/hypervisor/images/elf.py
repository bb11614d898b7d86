"""ELF images: their segments, Xen's PVH entry note, and what a kernel is given at its entry.

Facts: the ELF specification; Xen's public/elfnote.h (XEN_ELFNOTE_PHYS32_ENTRY) and
public/arch-x86/hvm/start_info.h; docs/misc/pvh.pandoc for the state at the entry. Segments are
loaded at their physical addresses, as Xen's libelf does.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..errors import ImageError
from .boot_info import build_page_tables, build_start_info
from .cpu_start import CpuStart
from .flat import RamRegions, place, read_image

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

__all__ = ["ELF_MAGIC", "ElfImage", "ElfSegment", "load_elf", "load_segments", "read_elf"]

ELF_MAGIC: Final = b"\x7fELF"
PHYS32_ENTRY: Final = 18
MACHINES: Final = {32: ("EM_386",), 64: ("EM_X86_64",)}
TYPES: Final = ("ET_EXEC", "ET_DYN")
NOTE: Final = struct.Struct("<III")
MOST_SEGMENTS: Final = 1024
MASK_32: Final = 0xFFFFFFFF


@dataclass(frozen=True)
class ElfSegment:
    """A loadable segment: physical and virtual address, its bytes, and how many it occupies."""

    paddr: int
    vaddr: int
    data: bytes
    size: int


@dataclass(frozen=True)
class ElfImage:
    """What is needed of an ELF file. ``phys32_entry`` is the PVH entry, if a note gives one."""

    bits: int
    entry: int
    segments: list[ElfSegment]
    phys32_entry: int | None


def read_elf(path: str | Path) -> ElfImage:
    """Read and check an ELF file. Raises `ImageError`."""
    data = read_image(path)
    try:
        image = _parse(data)
        _check_layout(image.segments)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None
    except Exception as error:
        # On files that lie about themselves pyelftools raises nearly anything.
        raise ImageError(f"{path}: a damaged ELF file: {_one_line(error)}") from error
    return image


def load_segments(memory: RamRegions, image: ElfImage, what: str) -> None:
    """Put an image where its physical addresses say. `ImageError`, with ``what``: it is not RAM."""
    for segment in image.segments:
        place(memory, segment.paddr, segment.data, what)
        _clear(memory, segment, what)


def load_elf(memory: RamRegions, path: str | Path, cmdline: str = "") -> CpuStart:
    """Load an ELF file of either class and build what its entry expects.

    With Xen's PVH note, and for any 32-bit file: protected mode, EBX at a start-info structure with
    ``cmdline`` and the memory map. For a 64-bit file without the note: long mode with identity page
    tables, RBX at the same structure. Raises `ImageError`.
    """
    image = read_elf(path)
    load_segments(memory, image, str(path))
    occupied = [(s.paddr, s.paddr + s.size) for s in image.segments]
    try:
        return _start(memory, image, cmdline, occupied)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None


def _start(
    memory: RamRegions, image: ElfImage, cmdline: str, occupied: list[tuple[int, int]]
) -> CpuStart:
    info, used = build_start_info(memory, cmdline, occupied)
    if image.phys32_entry is not None:
        return CpuStart("protected", ip=image.phys32_entry, ebx=info)
    entry = _physical_entry(image)
    if image.bits == 32:
        return CpuStart("protected", ip=entry, ebx=info)
    tables = build_page_tables(memory, [*occupied, used])
    return CpuStart("long", ip=entry, ebx=info, page_table=tables)


def _parse(data: bytes) -> ElfImage:
    if not data.startswith(ELF_MAGIC):
        raise ImageError("not an ELF file")
    # Imported here: it takes as long as a small guest, which may have no ELF file at all.
    from elftools.elf.elffile import ELFFile

    elf = ELFFile(io.BytesIO(data))
    header = elf.header
    if not elf.little_endian:
        raise ImageError("a big-endian ELF file; x86 is little-endian")
    if header["e_machine"] not in MACHINES[elf.elfclass]:
        raise ImageError(f"an ELF file for {header['e_machine']}, not for x86")
    if header["e_type"] not in TYPES:
        raise ImageError(f"an ELF file of type {header['e_type']}, not a program")
    if elf.num_segments() > MOST_SEGMENTS:
        raise ImageError(f"more than {MOST_SEGMENTS} program headers")
    if any(segment["p_type"] == "PT_INTERP" for segment in elf.iter_segments()):
        raise ImageError("an ELF program for an operating system, not for a bare machine")
    segments = list(_segments(elf, data))
    if not segments:
        raise ImageError("an ELF file without anything to load")
    entry = _note_entry(elf, data)
    if entry is not None and not any(s.paddr <= entry < s.paddr + s.size for s in segments):
        raise ImageError(f"the PVH entry {entry:#x} of its note lies in no segment")
    return ElfImage(elf.elfclass, header["e_entry"], segments, entry)


def _segments(elf: ELFFile, data: bytes) -> Iterator[ElfSegment]:
    for number, segment in enumerate(elf.iter_segments()):
        head = segment.header
        if head["p_type"] != "PT_LOAD" or not head["p_memsz"]:
            continue
        start, length = head["p_offset"], head["p_filesz"]
        if start + length > len(data):
            raise ImageError(f"truncated: segment {number} ends at {start + length:#x} of the file")
        if length > head["p_memsz"]:
            raise ImageError(f"segment {number} has more bytes in the file than in memory")
        bytes_ = data[start : start + length]
        yield ElfSegment(head["p_paddr"], head["p_vaddr"], bytes_, head["p_memsz"])


def _check_layout(segments: list[ElfSegment]) -> None:
    end = 0
    for segment in sorted(segments, key=lambda one: one.paddr):
        if segment.paddr < end:
            raise ImageError(f"its segments overlap at {segment.paddr:#x}")
        end = segment.paddr + segment.size


def _clear(memory: RamRegions, segment: ElfSegment, what: str) -> None:
    """Zero a segment's part that is not in the file."""
    at, end = segment.paddr + len(segment.data), segment.paddr + segment.size
    room = sum(size for _, size, _ in memory.regions)
    if end - at > room:
        raise ImageError(f"{what}: a segment of {segment.size:#x} bytes is larger than the RAM")
    place(memory, at, bytes(end - at), what)


def _physical_entry(image: ElfImage) -> int:
    """The entry point's physical address: the ELF header has a virtual one."""
    for segment in image.segments:
        if segment.vaddr <= image.entry < segment.vaddr + segment.size:
            return image.entry - segment.vaddr + segment.paddr
    raise ImageError(f"its entry {image.entry:#x} lies in no segment")


def _note_entry(elf: ELFFile, data: bytes) -> int | None:
    """The PVH entry: from the program headers' notes, else from the sections'."""
    spans = [
        (segment["p_offset"], segment["p_filesz"])
        for segment in elf.iter_segments()
        if segment["p_type"] == "PT_NOTE"
    ] or [
        (section["sh_offset"], section["sh_size"])
        for section in elf.iter_sections()
        if section["sh_type"] == "SHT_NOTE"
    ]
    for start, length in spans:
        if start + length > len(data):
            raise ImageError("truncated: its notes are not in the file")
        for name, kind, descriptor in _notes(data[start : start + length]):
            if name == b"Xen\0" and kind == PHYS32_ENTRY:
                if len(descriptor) not in (4, 8):
                    raise ImageError(f"its PVH note has {len(descriptor)} bytes, not 4 or 8")
                return int.from_bytes(descriptor, "little") & MASK_32
    return None


def _notes(data: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    at = 0
    while at + NOTE.size <= len(data):
        name_size, size, kind = NOTE.unpack_from(data, at)
        name_at = at + NOTE.size
        body_at = name_at + (name_size + 3 & ~3)
        at = body_at + (size + 3 & ~3)
        if body_at + size > len(data):
            raise ImageError("a note is longer than the place it is in")
        yield data[name_at : name_at + name_size], kind, data[body_at : body_at + size]


def _one_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
