"""The hypervisor's end of the socket, by script: a thread that answers as a test says."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

from protocol.dm_op import DM_OP
from protocol.local import (
    LOCAL_BIND,
    LOCAL_DOMAIN,
    LOCAL_REGION,
    LOCAL_REPLY,
    LOCAL_REQUEST,
    LocalCall,
)
from protocol.xenstore import XS_MESSAGE

PAGE = 4096
DOMID = 3
RING_PORT = 9

Reply = tuple[int, bytes, list[int]]
"""Status, body, descriptors (which stay the peer's)."""
Handler = Callable[[bytes], Reply]


class Peer:
    """One domain with two RAM regions and one ioreq server, for one connection at a time."""

    def __init__(self, path: Path, *, virtual: bool = False) -> None:
        self.path = path
        self.regions = [(0, 4 * PAGE, 0), (0x100000, 2 * PAGE, 4 * PAGE)]
        self.virtual = int(virtual)
        self.memory = memory_file(8 * PAGE)
        self.clock_page = memory_file(PAGE)
        self.question, self.done = eventfd(), eventfd()
        self.pages = memory_file(2 * PAGE)
        self.told = memory_file(0)
        self.ends: dict[int, tuple[int, int]] = {}
        self.requests: list[tuple[LocalCall, bytes]] = []
        self.last_serial = 0
        self.handlers: dict[LocalCall, Handler] = {
            LocalCall.HELLO: self._hello,
            LocalCall.MEMORY: self._tell_regions,
            LocalCall.DM_OP: lambda body: (0, self.dm_op(body), []),
            LocalCall.RESOURCE: lambda body: (0, b"", [self.pages]),
            LocalCall.BIND: self._bind,
            LocalCall.STORE: lambda body: (0, xenstore(XS_MESSAGE.parse(body).type, b"OK\0"), []),
        }
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listening.bind(str(path))
        self._listening.listen()
        self.connection: socket.socket | None = None
        self._connections: list[socket.socket] = []
        self.before_answer: Callable[[], object] = lambda: None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self._connections.append(connection)
            self.connection = connection
            while packet := self._receive():
                self._answer(packet)

    def _receive(self) -> bytes:
        assert self.connection is not None
        try:
            return self.connection.recv(1 << 17)
        except OSError:
            return b""

    def _answer(self, packet: bytes) -> None:
        assert self.connection is not None
        head = LOCAL_REQUEST.parse(packet)
        call, body = LocalCall(head.call), packet[LOCAL_REQUEST.sizeof() :]
        self.requests.append((call, body))
        self.last_serial = head.serial
        status, reply, fds = self.handlers.get(call, nothing)(body)
        self.before_answer()
        header = LOCAL_REPLY.build({"call": call, "serial": head.serial, "status": status})
        try:
            socket.send_fds(self.connection, [header + reply], fds)
        except OSError:
            return

    def say(self, body: bytes, call: int = LocalCall.STORE_EVENT) -> None:
        """Send a packet that nobody asked for."""
        assert self.connection is not None
        self.connection.send(LOCAL_REPLY.build({"call": call, "serial": 0, "status": 0}) + body)

    def domain(self) -> bytes:
        """LOCAL_DOMAIN."""
        head = {"domid": DOMID, "vcpus": 2, "clock_mode": self.virtual}
        return bytes(LOCAL_DOMAIN.build(head))

    def _tell_regions(self, body: bytes) -> Reply:
        packed = b"".join(
            LOCAL_REGION.build({"gpa": gpa, "length": length, "offset": offset})
            for gpa, length, offset in self.regions
        )
        os.ftruncate(self.told, len(packed))
        os.pwrite(self.told, packed, 0)
        return 0, b"", [self.told]

    def _hello(self, body: bytes) -> Reply:
        return 0, self.domain(), [self.memory, self.clock_page, self.question, self.done]

    def dm_op(self, body: bytes) -> bytes:
        """What succeeds: a server with id 1, two vCPUs, a ring's port."""
        request = DM_OP.parse(body)
        if "bufioreq_port" in request.u:
            request.u.bufioreq_port = RING_PORT
        elif "handle_bufioreq" in request.u:
            request.u.id = 1
        elif "vcpus" in request.u:
            request.u.vcpus = 2
        return bytes(DM_OP.build(request)) + body[DM_OP.sizeof() :]

    def _bind(self, body: bytes) -> Reply:
        local = 100 + len(self.ends)
        self.ends[local] = eventfd(1), eventfd()
        return 0, bytes(LOCAL_BIND.build({"port": local})), list(self.ends[local])

    def fail(self, call: LocalCall, errno: int) -> None:
        """Have ``call`` fail from now on."""
        self.handlers[call] = lambda body: (-errno, b"", [])

    def raise_port(self, local: int) -> None:
        """Signal an event channel."""
        os.write(self.ends[local][0], struct.pack("<Q", 1))

    def raised(self, local: int) -> int:
        """How often the emulator notified since the last look."""
        try:
            count: int = struct.unpack("<Q", os.read(self.ends[local][1], 8))[0]
        except BlockingIOError:
            return 0
        return count

    def asked(self, call: LocalCall) -> list[bytes]:
        """The bodies of all requests of one kind."""
        return [body for made, body in self.requests if made is call]

    def hang_up(self) -> None:
        """End the connection; the thread may still be reading, so it stays open."""
        assert self.connection is not None
        self.connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End everything; the thread ends, too."""
        for end in (*self._connections, self._listening):
            end.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        for end in (*self._connections, self._listening):
            end.close()
        for fd in (self.memory, self.clock_page, self.question, self.done, self.pages, self.told):
            os.close(fd)
        for front, back in self.ends.values():
            os.close(front)
            os.close(back)


def xenstore(kind: int, payload: bytes) -> bytes:
    """A message of xenstore."""
    head = {"type": kind, "req_id": 0, "tx_id": 0, "len": len(payload)}
    return bytes(XS_MESSAGE.build(head)) + payload


def nothing(body: bytes) -> Reply:
    """Succeed, with nothing to say."""
    return 0, b"", []


def memory_file(size: int) -> int:
    """A memory file of ``size`` bytes."""
    fd = os.memfd_create("peer", os.MFD_CLOEXEC)
    os.ftruncate(fd, size)
    return fd


def eventfd(count: int = 0) -> int:
    """An eventfd that does not block."""
    return os.eventfd(count, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
