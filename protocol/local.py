"""The wire between a device model and the stand-alone hypervisor: one SOCK_SEQPACKET Unix socket.

A connection speaks for one emulator process and one domain. Each packet is a header and a body;
the device model sends `LocalRequest`s one at a time, the hypervisor answers each with one reply
that carries the same serial number. Pages, guest memory and event channels come as descriptors
with the reply (SCM_RIGHTS). Unasked, the hypervisor sends only `XS_WATCH_EVENT` packets, serial 0.
What Xen has a structure for is sent as that structure: `xen_dm_op`, the xenstore header.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from construct import Int16ul, Int32sl, Int32ul, Int64ul, Struct

__all__ = [
    "LOCAL_ANY_DOMAIN",
    "LOCAL_BIND",
    "LOCAL_CLOCK",
    "LOCAL_CLOCK_PAGE_SIZE",
    "LOCAL_DOMAIN",
    "LOCAL_HELLO",
    "LOCAL_MAGIC",
    "LOCAL_PACKET_SIZE",
    "LOCAL_PARAM",
    "LOCAL_PORT",
    "LOCAL_REGION",
    "LOCAL_REPLY",
    "LOCAL_REQUEST",
    "LOCAL_RESOURCE",
    "LOCAL_VERSION",
    "LocalCall",
    "LocalClockMode",
]

LOCAL_MAGIC: Final = 0x4C51455249
LOCAL_VERSION: Final = 1
LOCAL_PACKET_SIZE: Final = 1 << 16
"""Bytes of the longest packet."""
LOCAL_ANY_DOMAIN: Final = 0xFFFF
"""As domid of a hello: the domain, when there is exactly one."""
LOCAL_CLOCK_PAGE_SIZE: Final = 4096


class LocalCall(IntEnum):
    """What a request asks for; the comments give body -> body of the reply; its descriptors."""

    HELLO = 1
    """LOCAL_HELLO -> LOCAL_DOMAIN; guest memory (memfd), clock page (memfd), clock event (eventfd,
    raised by the hypervisor), clock done (eventfd, raised here)."""
    MEMORY = 2
    """nothing -> nothing; one memfd that holds the domain's LOCAL_REGIONs, one after the other: a
    guest decides how many there are, so that no packet is long enough. Asked for at first, after
    an INVALIDATE, and when something is not where RAM was."""
    DM_OP = 3
    """struct xen_dm_op, then the bytes of its second buffer, if any -> the same, as changed."""
    RESOURCE = 4
    """LOCAL_RESOURCE -> nothing; one memfd that holds the frames from offset 0 on."""
    BIND = 5
    """LOCAL_PORT (the domain's port) -> LOCAL_BIND; eventfd raised by the hypervisor, eventfd
    raised here (EVTCHNOP_bind_interdomain). The first is raised once at once, as Xen does."""
    UNBIND = 6
    """LOCAL_PORT (the local port) -> nothing."""
    STORE = 7
    """A xenstore message (XENSTORE_HEADER and payload) -> its answer, errors included."""
    SET_PARAM = 8
    """LOCAL_PARAM -> nothing (HVMOP_set_param)."""
    GET_PARAM = 9
    """LOCAL_PARAM -> LOCAL_PARAM (HVMOP_get_param)."""
    RESTRICT = 10
    """nothing -> nothing; afterwards STORE, SET_PARAM and GET_PARAM give EACCES."""
    STORE_EVENT = 64
    """Sent unasked by the hypervisor: a xenstore XS_WATCH_EVENT message."""


class LocalClockMode(IntEnum):
    """Whose time the devices live by."""

    REAL = 0
    VIRTUAL = 1


LOCAL_REQUEST: Final = Struct("call" / Int32ul, "serial" / Int32ul)
LOCAL_REPLY: Final = Struct("call" / Int32ul, "serial" / Int32ul, "status" / Int32sl)
"""``status``: 0, or minus an errno."""
LOCAL_HELLO: Final = Struct(
    "magic" / Int64ul, "version" / Int32ul, "domid" / Int32ul, "pid" / Int32ul
)
LOCAL_DOMAIN: Final = Struct("domid" / Int32ul, "vcpus" / Int32ul, "clock_mode" / Int32ul)
LOCAL_REGION: Final = Struct("gpa" / Int64ul, "length" / Int64ul, "offset" / Int64ul)
"""A run of guest RAM: guest-physical address, bytes, and where it is in the memory descriptor."""
LOCAL_RESOURCE: Final = Struct(
    "type" / Int16ul, "id" / Int16ul, "frame" / Int32ul, "frame_number" / Int32ul
)
"""As XENMEM_acquire_resource."""
LOCAL_PORT: Final = Struct("port" / Int32ul)
LOCAL_BIND: Final = Struct("port" / Int32ul)
LOCAL_PARAM: Final = Struct("index" / Int32ul, "_pad0" / Int32ul, "value" / Int64ul)
LOCAL_CLOCK: Final = Struct(
    "now" / Int64ul,
    "asked" / Int64ul,
    "done" / Int64ul,
    "deadline" / Int64ul,
)
"""The clock page, one per connection. In VIRTUAL mode ``now`` is the time in nanoseconds and moves
only between two questions: the hypervisor sets ``now``, increments ``asked`` and raises the clock
event; the device model runs the timers that are due, stores its next deadline (all ones: none),
sets ``done`` to ``asked`` and raises clock done."""
