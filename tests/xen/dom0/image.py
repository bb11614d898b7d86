"""Writes what a toolstack has built of a domain: run in dom0 with the domid and a file's name.

The file is JSON: `pages`, every page that is not all zeros, in hexadecimal by GFN; `params`, the
HVM parameters that can be read, by index; `context`, the hypervisor's save records. The domain must
not have run yet.
"""

from __future__ import annotations

import ctypes
import json
import sys

PAGE = 0x1000
BATCH = 256
PROT_READ = 1
PARAMS = 39
CONTEXT_LIMIT = 1 << 20
FIRST_SPECIAL, LAST_SPECIAL = 0xFEFE0, 0xFEFFF


def open_library(name: str) -> ctypes.CDLL:
    return ctypes.CDLL(name, use_errno=True)


def pages(domid: int, gfns: list[int]) -> dict[int, str]:
    library = open_library("libxenforeignmemory.so.1")
    for name in ("xenforeignmemory_open", "xenforeignmemory_map"):
        getattr(library, name).restype = ctypes.c_void_p
    handle = ctypes.c_void_p(library.xenforeignmemory_open(None, 0))
    found = {}
    for at in range(0, len(gfns), BATCH):
        batch = gfns[at : at + BATCH]
        frames = (ctypes.c_uint64 * len(batch))(*batch)
        errors = (ctypes.c_int * len(batch))()
        address = library.xenforeignmemory_map(
            handle, domid, PROT_READ, ctypes.c_size_t(len(batch)), frames, errors
        )
        if address is None:
            raise OSError(ctypes.get_errno(), f"map of {batch[0]:#x}")
        for index, gfn in enumerate(batch):
            if errors[index]:
                continue
            data = ctypes.string_at(address + index * PAGE, PAGE)
            if data.strip(b"\0"):
                found[gfn] = data.hex()
        library.xenforeignmemory_unmap(
            handle, ctypes.c_void_p(address), ctypes.c_size_t(len(batch))
        )
    return found


def params(control: ctypes.CDLL, handle: ctypes.c_void_p, domid: int) -> dict[int, int]:
    values = {}
    for index in range(PARAMS):
        value = ctypes.c_uint64()
        if control.xc_hvm_param_get(handle, domid, index, ctypes.byref(value)) == 0:
            values[index] = value.value
    return values


def context(control: ctypes.CDLL, handle: ctypes.c_void_p, domid: int) -> str:
    buffer = ctypes.create_string_buffer(CONTEXT_LIMIT)
    length = control.xc_domain_hvm_getcontext(handle, domid, buffer, CONTEXT_LIMIT)
    return buffer.raw[: max(length, 0)].hex()


def main(domid: int, megabytes: int, path: str, release: str) -> None:
    control = open_library(f"libxenctrl.so.{release}")
    control.xc_interface_open.restype = ctypes.c_void_p
    handle = ctypes.c_void_p(control.xc_interface_open(None, None, 0))
    gfns = [gfn for gfn in range(megabytes << 8) if not 0xA0 <= gfn < 0xC0]
    gfns += range(FIRST_SPECIAL, LAST_SPECIAL + 1)
    result = {
        "pages": pages(domid, gfns),
        "params": params(control, handle, domid),
        "context": context(control, handle, domid),
    }
    with open(path, "w") as file:
        json.dump(result, file)


main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
