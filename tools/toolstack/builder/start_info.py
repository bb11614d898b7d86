"""The start-info segment: hvm_start_info, module list, command lines and memory map.

Facts: tools/libs/guest/xg_dom_x86.c (alloc_magic_pages_hvm, bootlate_hvm, add_module_to_list): the
structure; then, for a kernel without hvmloader, its command line, padded to 8 bytes; room for two
modules; room for their two command lines; the memory map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from protocol.start_info import (
    HVM_MEMMAP_ENTRY,
    HVM_MODLIST_ENTRY,
    HVM_START_INFO,
    HVM_START_MAGIC,
)
from tools.toolstack.errors import ToolstackError
from tools.toolstack.memory_layout import MapEntry

__all__ = ["Module", "start_info_size", "write_start_info"]

MODULES = 2
"""HVMLOADER_MODULE_MAX_COUNT."""
TEXT = 1024
"""Bytes of a module's command line (HVMLOADER_MODULE_CMDLINE_SIZE)."""
PAGE = 0x1000
HEAD: int = HVM_START_INFO.sizeof()
ENTRY: int = HVM_MODLIST_ENTRY.sizeof()
MAP_ENTRY: int = HVM_MEMMAP_ENTRY.sizeof()


class Module(NamedTuple):
    """A module in guest memory: its address, its bytes, and its command line or name."""

    address: int
    size: int
    text: str | None


def start_info_size(cmdline: str | None, entries: int) -> int:
    """Bytes of the segment for a command line and ``entries`` of the memory map, in whole pages."""
    size = HEAD + len(_text(cmdline)) + MODULES * (ENTRY + TEXT) + entries * MAP_ENTRY
    return -(-size // PAGE) * PAGE


def write_start_info(
    address: int,
    cmdline: str | None,
    modules: Sequence[Module],
    memory_map: Sequence[MapEntry],
    rsdp: int = 0,
) -> bytes:
    """The segment's bytes for ``address``. ToolstackError: too many modules, too long a text."""
    if len(modules) > MODULES:
        raise ToolstackError(f"{len(modules)} modules, a guest can have {MODULES}")
    text = _text(cmdline)
    list_at = address + HEAD + len(text)
    texts_at = list_at + MODULES * ENTRY
    map_at = texts_at + MODULES * TEXT
    listed, names = b"", b""
    for index, module in enumerate(modules):
        name = None if module.text is None else module.text.encode()
        if name is not None and len(name) >= TEXT:
            raise ToolstackError(f"a module's command line of {len(name)} bytes is too long")
        entry = {
            "paddr": module.address,
            "size": module.size,
            "cmdline_paddr": 0 if name is None else texts_at + TEXT * index,
        }
        listed += HVM_MODLIST_ENTRY.build(entry)
        names += (name or b"").ljust(TEXT, b"\0")
    info: bytes = HVM_START_INFO.build(
        {
            "magic": HVM_START_MAGIC,
            "nr_modules": len(modules),
            "modlist_paddr": list_at if modules else 0,
            "cmdline_paddr": 0 if cmdline is None else address + HEAD,
            "rsdp_paddr": rsdp,
            "memmap_paddr": map_at,
            "memmap_entries": len(memory_map),
        }
    )
    mapped = b"".join(
        HVM_MEMMAP_ENTRY.build({"addr": e.start, "size": e.size, "type": e.type.value})
        for e in memory_map
    )
    room = listed.ljust(MODULES * ENTRY, b"\0") + names.ljust(MODULES * TEXT, b"\0")
    data = info + text + room + mapped
    return data.ljust(-(-len(data) // PAGE) * PAGE, b"\0")


def _text(cmdline: str | None) -> bytes:
    if cmdline is None:
        return b""
    text = cmdline.encode() + b"\0"
    return text.ljust(-(-len(text) // 8) * 8, b"\0")
