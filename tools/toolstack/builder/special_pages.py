"""The pages below 0xff000000 that Xen, emulators, xenstored and the console share with a guest.

Facts: tools/libs/guest/xg_dom_x86.c (special_pfn, alloc_magic_pages_hvm, bootlate_hvm) and
tools/libs/light/libxl_x86.c (hvm_set_conf_params) of Xen 4.17.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from protocol import layouts

from .image import GuestImage

__all__ = [
    "CONSOLE_GFN",
    "IDENT_PT_GFN",
    "STORE_GFN",
    "identity_directory",
    "params",
    "special_ram",
]

PAGE_SHIFT = 12
POOL_GFN, POOL_PAGES = 0xFEFF0, 8
SPECIAL_GFN, SPECIAL_PAGES = 0xFEFF8, 8
PAGING_GFN, MONITOR_GFN, SHARING_GFN, BUFIOREQ_GFN = 0xFEFF8, 0xFEFF9, 0xFEFFA, 0xFEFFB
STORE_GFN, IOREQ_GFN, IDENT_PT_GFN, CONSOLE_GFN = 0xFEFFC, 0xFEFFD, 0xFEFFE, 0xFEFFF
SUPERPAGE = 0xE7
"""Present, writable, user, accessed, dirty, 4 MiB."""

RESERVED_GFN = {"hvm": POOL_GFN, "pvh": SPECIAL_GFN}


def special_ram(kind: str) -> tuple[int, int]:
    """Address and bytes of the special pages, which are RAM; PVH guests have no ioreq servers'."""
    first = RESERVED_GFN[kind]
    return first << PAGE_SHIFT, (SPECIAL_GFN + SPECIAL_PAGES - first) << PAGE_SHIFT


def identity_directory() -> bytes:
    """The page directory that maps 4 GiB to itself, for hardware that cannot do without paging."""
    return struct.pack("<1024I", *(index << 22 | SUPERPAGE for index in range(1024)))


def params(image: GuestImage, store_port: int, console_port: int) -> Iterator[tuple[int, int]]:
    """The HVM parameters that the toolstack sets, in its order: index and value."""
    if image.kind == "hvm":
        yield layouts.HVM_PARAM_HPET_ENABLED, int(image.hpet)
        yield layouts.HVM_PARAM_VPT_ALIGN, int(image.vpt_align)
    yield layouts.HVM_PARAM_TIMER_MODE, image.timer_mode
    yield layouts.HVM_PARAM_STORE_PFN, STORE_GFN
    yield layouts.HVM_PARAM_BUFIOREQ_PFN, BUFIOREQ_GFN
    yield layouts.HVM_PARAM_IOREQ_PFN, IOREQ_GFN
    yield layouts.HVM_PARAM_CONSOLE_PFN, CONSOLE_GFN
    yield layouts.HVM_PARAM_PAGING_RING_PFN, PAGING_GFN
    yield layouts.HVM_PARAM_MONITOR_RING_PFN, MONITOR_GFN
    yield layouts.HVM_PARAM_SHARING_RING_PFN, SHARING_GFN
    if image.kind == "hvm":
        yield layouts.HVM_PARAM_IOREQ_SERVER_PFN, POOL_GFN
        yield layouts.HVM_PARAM_NR_IOREQ_SERVER_PAGES, POOL_PAGES
    yield layouts.HVM_PARAM_IDENT_PT, IDENT_PT_GFN << PAGE_SHIFT
    yield layouts.HVM_PARAM_CONSOLE_EVTCHN, console_port
    yield layouts.HVM_PARAM_STORE_EVTCHN, store_port
