"""Prints the ids of a domain's ioreq servers: run in dom0 with the domid as argument."""

from __future__ import annotations

import ctypes
import sys
from errno import ENOENT

IDS = 8
"""MAX_NR_IOREQ_SERVERS of xen/include/asm-x86/hvm/domain.h."""


def main(domid: int) -> None:
    library = ctypes.CDLL("libxendevicemodel.so.1", use_errno=True)
    library.xendevicemodel_open.restype = ctypes.c_void_p
    library.xendevicemodel_open.argtypes = (ctypes.c_void_p, ctypes.c_uint)
    info = library.xendevicemodel_get_ioreq_server_info
    info.argtypes = (ctypes.c_void_p, ctypes.c_uint16, ctypes.c_uint16, *[ctypes.c_void_p] * 3)
    handle = library.xendevicemodel_open(None, 0)
    port = ctypes.c_uint32()
    for number in range(IDS):
        if info(handle, domid, number, None, None, ctypes.byref(port)) == 0:
            sys.stdout.write(f"{number}\n")
        elif ctypes.get_errno() != ENOENT:
            sys.stderr.write(f"server {number}: errno {ctypes.get_errno()}\n")


main(int(sys.argv[1]))
