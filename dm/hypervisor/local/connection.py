"""The socket to the stand-alone hypervisor: packets, serial numbers, passed descriptors, its end.

The wire is declared in protocol/local.py. One request is under way at a time; what the hypervisor
says unasked meanwhile is kept for `LocalConnection.events`.
"""

from __future__ import annotations

import _socket
import os
from errno import ECONNRESET, EPIPE, EPROTO
from struct import Struct

from dm.errors import ConfigError, HostError
from protocol import layouts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LocalConnection"]

REQUEST = Struct(layouts.LOCAL_REQUEST_FORMAT).pack
REPLY = Struct(layouts.LOCAL_REPLY_FORMAT).unpack_from
BODY = layouts.LOCAL_REPLY_SIZE
DESCRIPTOR = 4
"""Bytes of one descriptor in an SCM_RIGHTS message."""
SERIALS = 0xFFFFFFFF
EVENT_SERIAL = 0
"""The serial number of what was not asked for; requests have others."""


class LocalConnection:
    """A connection to the hypervisor that listens at ``path``; ConfigError when there is none.

    ``ended``: the hypervisor closed it, so every further request fails. ``kept`` is called when
    something that `events` will give came while an answer was awaited.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.ended = False
        self._serial = EVENT_SERIAL
        self._buffer = bytearray(layouts.LOCAL_PACKET_SIZE)
        self._events: list[bytes] = []
        self.kept: Callable[[], None] = lambda: None
        kind = _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC
        self._socket = _socket.socket(_socket.AF_UNIX, kind)
        try:
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            cause = error.strerror or str(error)
            raise ConfigError(f"no hypervisor at {path}: {cause}") from None

    def fileno(self) -> int:
        """The descriptor, readable when something was said unasked or the connection ended."""
        return self._socket.fileno()

    def call(self, call: int, body: bytes, what: str) -> bytes:
        """Ask ``call`` (protocol/local.py: LocalCall) and wait; gives the body of the reply.

        ``what`` names the call in a HostError, which has the errno that the hypervisor gave.
        """
        self._send(call, body, what)
        while True:
            length = self._receive(what)
            answer = self._answer(call, length, what)
            if answer is not None:
                return answer

    def call_for_descriptors(
        self, call: int, body: bytes, count: int, what: str
    ) -> tuple[bytes, list[int]]:
        """As `call`, for a reply that brings ``count`` descriptors; they are the caller's."""
        self._send(call, body, what)
        while True:
            length, descriptors = self._receive_descriptors(count, what)
            try:
                answer = self._answer(call, length, what)
                if answer is None:
                    continue
                if len(descriptors) != count:
                    raise self._violation(what, f"{len(descriptors)} descriptors for {count}")
            except HostError:
                for fd in descriptors:
                    os.close(fd)
                raise
            return answer, descriptors

    def events(self) -> list[bytes]:
        """The bodies of all STORE_EVENT packets so far, without waiting; `ended` is set at EOF."""
        while not self.ended:
            try:
                length = self._socket.recv_into(self._buffer, 0, _socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError:
                length = 0
            if not length:
                self.ended = True
            elif length >= BODY:
                self._keep(length)
        found, self._events = self._events, []
        return found

    def _send(self, call: int, body: bytes, what: str) -> None:
        self._serial = self._serial % SERIALS + 1
        try:
            self._socket.send(REQUEST(call, self._serial) + body)
        except OSError as error:
            if error.errno in (EPIPE, ECONNRESET):
                raise self._end(what) from None
            raise HostError(f"{what}: {error.strerror}", error.errno or 0) from None

    def _receive(self, what: str) -> int:
        try:
            length = self._socket.recv_into(self._buffer)
        except OSError as error:
            raise self._lost(what, error) from None
        return length or self._raise(self._end(what))

    def _receive_descriptors(self, count: int, what: str) -> tuple[int, list[int]]:
        room = _socket.CMSG_SPACE(DESCRIPTOR * count)
        try:
            length, ancillary, _, _ = self._socket.recvmsg_into(
                [self._buffer], room, _socket.MSG_CMSG_CLOEXEC
            )
        except OSError as error:
            raise self._lost(what, error) from None
        descriptors = []
        for level, kind, data in ancillary:
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                whole = len(data) - len(data) % DESCRIPTOR
                descriptors += memoryview(data)[:whole].cast("i").tolist()
        return length or self._raise(self._end(what)), descriptors

    def _answer(self, call: int, length: int, what: str) -> bytes | None:
        """The body of the packet in the buffer, None when it is not the answer to ``call``."""
        if length < BODY:
            raise self._violation(what, f"a packet of {length} bytes")
        answered, serial, status = REPLY(self._buffer)
        if serial == EVENT_SERIAL:
            self._keep(length)
            self.kept()
            return None
        if answered != call or serial != self._serial:
            raise self._violation(what, f"an answer to request {serial}, not {self._serial}")
        if status:
            raise HostError(f"{what}: {os.strerror(-status)}", -status)
        return bytes(memoryview(self._buffer)[BODY:length])

    def _keep(self, length: int) -> None:
        if REPLY(self._buffer)[0] == layouts.LOCAL_CALL_STORE_EVENT:
            self._events.append(bytes(memoryview(self._buffer)[BODY:length]))

    def _lost(self, what: str, error: OSError) -> HostError:
        if error.errno == ECONNRESET:
            return self._end(what)
        return HostError(f"{what}: {error.strerror}", error.errno or 0)

    def _end(self, what: str) -> HostError:
        self.ended = True
        return HostError(f"{what}: the hypervisor at {self.path} is gone", EPIPE)

    def _violation(self, what: str, found: str) -> HostError:
        return HostError(f"{what}: the hypervisor at {self.path} sent {found}", EPROTO)

    @staticmethod
    def _raise(error: HostError) -> int:
        raise error

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        self.ended = True
