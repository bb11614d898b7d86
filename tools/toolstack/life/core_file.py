"""The core of a domain that has ended: an ELF file of its memory, with what is known in notes.

Facts: the ELF specification, and Linux's elfcore: a note NT_PRSTATUS of the name CORE has a
thread's registers, in struct user_regs_struct's order. What differs from xl, whose cores have
sections of pages and tables of GFNs: memory is in program headers, by guest-physical address, so
that readelf and gdb read it; pages of zeros are holes in the file. A note of the name ioreqd tells
of the domain, as JSON.
"""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from tools.hypervisor.errors import EngineUnavailable
from tools.toolstack.errors import HostFailure

if TYPE_CHECKING:
    from .guest import Guest

__all__ = ["NOTE_NAME", "NOTE_TYPE", "write_core"]

NOTE_NAME: Final = b"ioreqd\0"
NOTE_TYPE: Final = 1
PAGE: Final = 4096
ZEROS: Final = bytes(PAGE)
HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
PROGRAM: Final = struct.Struct("<IIQQQQQQ")
NOTE: Final = struct.Struct("<III")
IDENT: Final = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
CORE, X86_64, LOAD, NOTES, ALL = 4, 62, 1, 4, 7
PRSTATUS: Final = 1
PRSTATUS_SIZE, REGISTERS_AT, PID_AT = 336, 112, 32
REGISTERS: Final = struct.Struct("<27Q")
RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI = range(8)
ES, CS, SS, DS, FS, GS = range(6)


def write_core(path: Path, guest: Guest) -> None:
    """Write the core of a guest whose vCPUs do not run to ``path``. HostFailure; no file then."""
    regions = guest.domain.memory.regions
    notes = _notes(guest)
    at = HEADER.size + PROGRAM.size * (1 + len(regions))
    headers = [PROGRAM.pack(NOTES, 0, at, 0, 0, len(notes), len(notes), 4)]
    first = -(-(at + len(notes)) // PAGE) * PAGE
    offset = first
    for gpa, size, _ in regions:
        headers.append(PROGRAM.pack(LOAD, ALL, offset, gpa, gpa, size, size, PAGE))
        offset += size
    count = len(headers)
    head = HEADER.pack(
        IDENT, CORE, X86_64, 1, 0, HEADER.size, 0, 0, HEADER.size, PROGRAM.size, count, 0, 0, 0
    )
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(b"".join([head, *headers, notes]))
                _write_memory(file, guest, first)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise HostFailure(f"write {path}: {error.strerror}") from None


def _write_memory(file: BinaryIO, guest: Guest, offset: int) -> None:
    memory = guest.domain.memory
    for gpa, size, _ in memory.regions:
        with memory.view(gpa, size) as view:
            for at in range(0, size, PAGE):
                page = view[at : at + PAGE]
                if page != ZEROS:
                    file.seek(offset + at)
                    file.write(page)
        offset += size
    file.truncate(offset)


def _notes(guest: Guest) -> bytes:
    domain = guest.domain
    state: dict[str, Any] = {
        "domid": domain.domid,
        "name": guest.config.name,
        "uuid": str(guest.uuid),
        "state": domain.state,
        "reason": domain.shutdown_reason,
        "message": domain.crash_message,
        "vcpus": len(domain.vcpus),
    }
    processors = _processors(guest)
    state["engine"] = processors
    notes = [_note(NOTE_NAME, NOTE_TYPE, json.dumps(state).encode())]
    if processors is not None:
        for number, one in enumerate(processors["processors"]):
            notes.append(_note(b"CORE\0", PRSTATUS, _prstatus(number, one)))
    return b"".join(notes)


def _processors(guest: Guest) -> Any:
    """What the engine has of the processors; None: it cannot tell, which is no reason for none."""
    if guest.engine is None:
        return None
    guest.engine.join(timeout=5)
    try:
        with guest.domain.lock:
            return guest.engine.save_state()
    except EngineUnavailable:
        return None


def _note(name: bytes, kind: int, body: bytes) -> bytes:
    return NOTE.pack(len(name), len(body), kind) + _padded(name) + _padded(body)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _prstatus(number: int, state: dict[str, Any]) -> bytes:
    general, selectors, bases = state["general"], state["selectors"], state["bases"]
    order = (15, 14, 13, 12, RBP, RBX, 11, 10, 9, 8, RAX, RCX, RDX, RSI, RDI)
    values = [general[one] for one in order]
    values += [(1 << 64) - 1, state["rip"], selectors[CS], state["flags"], general[RSP]]
    values += [selectors[SS], bases[FS], bases[GS], *(selectors[one] for one in (DS, ES, FS, GS))]
    body = bytearray(PRSTATUS_SIZE)
    struct.pack_into("<I", body, PID_AT, number + 1)
    REGISTERS.pack_into(body, REGISTERS_AT, *values)
    return bytes(body)
