"""xenstore's wire protocol: message header and types, limits, and the guest's ring page.

Source: Xen's public/io/xs_wire.h. Left out as newer than Xen 4.20: the ring page's
`evtchn_port` and the message types from GET_FEATURE on.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final

from construct import Bytes, Int32ul, Struct

__all__ = [
    "XENSTORE_ABS_PATH_MAX",
    "XENSTORE_ERRORS",
    "XENSTORE_PAGE",
    "XENSTORE_PAYLOAD_MAX",
    "XENSTORE_REL_PATH_MAX",
    "XENSTORE_RING_SIZE",
    "XS_MESSAGE",
    "XenstoreConnection",
    "XenstoreRingError",
    "XenstoreServerFeature",
    "XsMessageType",
    "XsWatchField",
]

XENSTORE_PAYLOAD_MAX: Final = 4096
"""Bytes that may follow a header."""

XENSTORE_ABS_PATH_MAX: Final = 3072
"""Bytes of an absolute path."""

XENSTORE_REL_PATH_MAX: Final = 2048
"""Bytes of a path relative to the caller's /local/domain/<domid>."""

XENSTORE_RING_SIZE: Final = 1024
"""Bytes of each ring in the ring page."""

XENSTORE_ERRORS: Final = (
    "EINVAL",
    "EACCES",
    "EEXIST",
    "EISDIR",
    "ENOENT",
    "ENOMEM",
    "ENOSPC",
    "EIO",
    "ENOTEMPTY",
    "ENOSYS",
    "EROFS",
    "EBUSY",
    "EAGAIN",
    "EISCONN",
    "E2BIG",
    "EPERM",
)
"""Names that the payload of an ERROR message can be."""


class XsMessageType(IntEnum):
    """Types of messages. 20 was RESTRICT."""

    CONTROL = 0
    DIRECTORY = 1
    READ = 2
    GET_PERMS = 3
    WATCH = 4
    UNWATCH = 5
    TRANSACTION_START = 6
    TRANSACTION_END = 7
    INTRODUCE = 8
    RELEASE = 9
    GET_DOMAIN_PATH = 10
    WRITE = 11
    MKDIR = 12
    RM = 13
    SET_PERMS = 14
    WATCH_EVENT = 15
    ERROR = 16
    IS_DOMAIN_INTRODUCED = 17
    RESUME = 18
    SET_TARGET = 19
    RESET_WATCHES = 21
    DIRECTORY_PART = 22
    INVALID = 0xFFFF


class XsWatchField(IntEnum):
    """Order of the strings in a WATCH_EVENT."""

    PATH = 0
    TOKEN = 1


class XenstoreServerFeature(IntFlag):
    """Bits of `server_features` in the ring page."""

    RECONNECTION = 1
    ERROR = 2


class XenstoreConnection(IntEnum):
    """Values of `connection` in the ring page."""

    CONNECTED = 0
    RECONNECT = 1


class XenstoreRingError(IntEnum):
    """Values of `error` in the ring page."""

    NONE = 0
    COMM = 1
    RINGIDX = 2
    PROTO = 3


XS_MESSAGE: Final = "xsd_sockmsg" / Struct(
    "type" / Int32ul,
    "req_id" / Int32ul,
    "tx_id" / Int32ul,
    "len" / Int32ul,
)
"""Header of a message; `len` bytes of payload follow."""

XENSTORE_PAGE: Final = "xenstore_domain_interface" / Struct(
    "req" / Bytes(XENSTORE_RING_SIZE),
    "rsp" / Bytes(XENSTORE_RING_SIZE),
    "req_cons" / Int32ul,
    "req_prod" / Int32ul,
    "rsp_cons" / Int32ul,
    "rsp_prod" / Int32ul,
    "server_features" / Int32ul,
    "connection" / Int32ul,
    "error" / Int32ul,
)
"""The page that a domain shares with xenstored."""
