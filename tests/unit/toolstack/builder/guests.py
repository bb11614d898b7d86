"""Domains to build into, and small ELF files to build from."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.hypervisor.domain import Domain
from tools.hypervisor.hypervisor import Hypervisor
from tools.toolstack.builder import ram_regions
from tools.toolstack.memory_layout import MemoryLayout, lay_out

__all__ = ["CODE", "LAYOUT", "SIZE", "elf", "new_domain", "note"]

SIZE = 16 << 20
LAYOUT = lay_out(SIZE)
CODE = b"\xf4" * 64
HEADERS = {32: struct.Struct("<16sHHIIIIIHHHHHH"), 64: struct.Struct("<16sHHIQQQIHHHHHH")}
MACHINES = {32: 3, 64: 62}
LOAD, NOTE = 1, 4


def note(entry: int) -> bytes:
    """Xen's note with a PVH entry."""
    return struct.pack("<III", 4, 4, 18) + b"Xen\0" + struct.pack("<I", entry)


def elf(
    path: Path, *, bits: int = 32, at: int = 0x100000, size: int = 0x80, notes: bytes = b""
) -> Path:
    """Write a program of `CODE` at ``at`` that occupies ``size`` bytes; it begins 16 bytes on."""
    header = HEADERS[bits]
    entry_size = 32 if bits == 32 else 56
    count = 2 if notes else 1
    data_at = header.size + count * entry_size
    parts = [(LOAD, data_at, at, len(CODE), size)]
    if notes:
        parts.append((NOTE, data_at + len(CODE), 0, len(notes), len(notes)))
    table = b""
    for kind, offset, address, filesz, memsz in parts:
        if bits == 32:
            table += struct.pack("<8I", kind, offset, address, address, filesz, memsz, 7, 4)
        else:
            table += struct.pack("<IIQQQQQQ", kind, 7, offset, address, address, filesz, memsz, 4)
    ident = b"\x7fELF" + bytes((bits // 32, 1, 1)) + bytes(9)
    head = header.pack(
        *(ident, 2, MACHINES[bits], 1, at + 16, header.size, 0, 0),
        *(header.size, entry_size, count, 0, 0, 0),
    )
    path.write_bytes(head + table + CODE + notes)
    return path


@contextmanager
def new_domain(
    folder: Path, layout: MemoryLayout = LAYOUT, *, vcpus: int = 1, online: int = 1
) -> Iterator[tuple[Hypervisor, Domain]]:
    """A hypervisor with a domain of ``layout``, as the builder is given it."""
    hypervisor = Hypervisor(str(folder / "xen"))
    try:
        ram = ram_regions(layout)
        yield hypervisor, hypervisor.create_domain(vcpus=online, max_vcpus=vcpus, ram=ram)
    finally:
        hypervisor.close()
