"""A device that tries what a device model must not be able to do once it is restricted.

It goes to the kernel's interfaces directly, with the descriptors that the process already has:
include/uapi/xen/privcmd.h and evtchn.h of Linux. Each attempt's errno is what the guest reads.
"""

from __future__ import annotations

import ctypes
import os
from errno import EBADF
from struct import pack

from dm import RO, Bank, Device, Option, PortWindow, Register

__all__ = ["ATTEMPTS", "Prober"]

PAGE = 4096
GFN = 0x10
NR_VCPUS = 20
"""XEN_DMOP_nr_vcpus, which only looks."""

DM_OP = 0x00105005
HYPERCALL = 0x00305000
MMAPBATCH_V2 = 0x00205004
EVTCHN_BIND_INTERDOMAIN = 0x00084501
EVTCHN_BIND_UNBOUND = 0x00044502
SCHED_YIELD = (29, 0)
"""A hypercall without arguments to the domain that makes it: SCHEDOP_yield."""

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
libc.ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_char_p)


def numbers(path: str) -> int:
    return os.stat(path).st_rdev


PRIVCMD, EVTCHN = numbers("/dev/xen/privcmd"), numbers("/dev/xen/evtchn")


def descriptors(device: int) -> list[int]:
    """This process's open descriptors of a device, without /proc: the root may be another one."""
    found = []
    for number in range(256):
        try:
            if os.fstat(number).st_rdev == device:
                found.append(number)
        except OSError as error:
            if error.errno != EBADF:
                raise
    return found


def every(device: int, request: int, argument: bytes) -> int:
    """Make the request with each descriptor; 0 when one of them was obeyed, else the last errno."""
    errno = EBADF
    for number in descriptors(device):
        if libc.ioctl(number, request, argument) >= 0:
            return 0
        errno = ctypes.get_errno()
    return errno


def dm_op(domid: int) -> int:
    operation = ctypes.create_string_buffer(pack("II", NR_VCPUS, 0) + bytes(56))
    buffers = ctypes.create_string_buffer(pack("PN", ctypes.addressof(operation), 64))
    return every(PRIVCMD, DM_OP, pack("HHP", domid, 1, ctypes.addressof(buffers)))


def map_memory(domid: int) -> int:
    errno = EBADF
    for number in descriptors(PRIVCMD):
        address = libc.mmap(None, PAGE, 3, 1, number, 0)
        frame, failed = ctypes.c_uint64(GFN), ctypes.c_int()
        places = ctypes.addressof(frame), ctypes.addressof(failed)
        argument = pack("IHxxQPP", 1, domid, address, *places)
        if libc.ioctl(number, MMAPBATCH_V2, argument) >= 0 and failed.value == 0:
            return 0
        errno = -failed.value or ctypes.get_errno()
    return errno


def bind_channel(domid: int) -> int:
    return every(EVTCHN, EVTCHN_BIND_UNBOUND, pack("I", domid))


def hypercall(domid: int) -> int:
    return every(PRIVCMD, HYPERCALL, pack("QQQQQQ", *SCHED_YIELD, 0, 0, 0, 0))


def open_privcmd(domid: int) -> int:
    os.close(os.open("/dev/xen/privcmd", os.O_RDWR))
    return 0


def reach_xenstore(domid: int) -> int:
    os.close(os.open("/dev/xen/xenbus", os.O_RDWR))
    return 0


def become_root(domid: int) -> int:
    os.setuid(0)
    return 0


def signal_init(domid: int) -> int:
    os.kill(1, 0)
    return 0


ATTEMPTS = (
    dm_op,
    map_memory,
    bind_channel,
    hypercall,
    open_privcmd,
    reach_xenstore,
    become_root,
    signal_init,
)


class Ports(Bank, size=2, width=8):
    probe = Register.at(0)
    count = Register.at(1, access=RO, reset=1 + len(ATTEMPTS))


class Prober(Device):
    """Port 0x5550: writing a number makes an attempt, reading gives its errno.

    Number 0 asks about the own domain, which is allowed; the others are ATTEMPTS on ``victim``.
    """

    summary = "tries to leave its domain"

    own = Option(int, 0, "the guest's own domid")
    victim = Option(int, 0, "the domid that is tried")

    ports = PortWindow(Ports, at=0x5550)

    @Ports.probe.on_write
    def _try(self, new: int, old: int) -> None:
        try:
            errno = dm_op(self.own) if new == 0 else ATTEMPTS[new - 1](self.victim)
        except OSError as error:
            errno = error.errno or 0xFF
        self.ports.probe.value = errno
