"""xenstore of the stand-alone hypervisor: messages of public/io/xs_wire.h, one in each packet."""

from __future__ import annotations

import errno
from struct import Struct

from dm.errors import HostError
from dm.hypervisor.interface import Store
from protocol import layouts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .connection import LocalConnection

__all__ = ["LocalStore"]

HEADER = Struct(layouts.XS_MESSAGE_FORMAT)


class LocalStore(Store):
    """Paths may be absolute or relative to domain 0's home, as in a real dom0."""

    def __init__(self, connection: LocalConnection) -> None:
        self._connection = connection

    def read(self, path: str) -> str | None:
        """See `Store.read`."""
        try:
            return self._ask("read", layouts.XS_MESSAGE_TYPE_READ, path).decode("utf-8", "replace")
        except HostError as error:
            if error.errno == errno.ENOENT:
                return None
            raise

    def write(self, path: str, value: str) -> None:
        """See `Store.write`."""
        self._ask("write", layouts.XS_MESSAGE_TYPE_WRITE, path, value.encode())

    def remove(self, path: str) -> None:
        """See `Store.remove`."""
        try:
            self._ask("rm", layouts.XS_MESSAGE_TYPE_RM, path)
        except HostError as error:
            if error.errno != errno.ENOENT:
                raise

    def watch(self, path: str, token: str) -> None:
        """Be told, by STORE_EVENT packets, when something at or below ``path`` changes."""
        self._ask("watch", layouts.XS_MESSAGE_TYPE_WATCH, path, token.encode() + b"\0")

    def is_introduced(self, domid: int) -> bool:
        """Whether the domain exists."""
        what = layouts.XS_MESSAGE_TYPE_IS_DOMAIN_INTRODUCED
        return self._ask("is_domain_introduced", what, str(domid)).startswith(b"T")

    def _ask(self, name: str, kind: int, path: str, rest: bytes = b"") -> bytes:
        """Send one message of a path and ``rest``; gives the payload of the answer."""
        what = f"xs_{name}({path})"
        payload = path.encode() + b"\0" + rest
        if len(payload) > layouts.XENSTORE_PAYLOAD_MAX:
            raise HostError(f"{what}: {len(payload)} bytes are too many", errno.E2BIG)
        message = HEADER.pack(kind, 0, 0, len(payload)) + payload
        answer = self._connection.call(layouts.LOCAL_CALL_STORE, message, what)
        if len(answer) < HEADER.size:
            raise HostError(f"{what}: an answer of {len(answer)} bytes", errno.EPROTO)
        answered, _, _, length = HEADER.unpack_from(answer)
        body = answer[HEADER.size : HEADER.size + length]
        if answered == layouts.XS_MESSAGE_TYPE_ERROR:
            name = body.rstrip(b"\0").decode("ascii", "replace")
            number = getattr(errno, name, errno.EIO)
            raise HostError(f"{what}: {name}", number)
        return body
