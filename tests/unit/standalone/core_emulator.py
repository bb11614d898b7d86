"""An emulator in the test's own process, which speaks the socket's protocol by hand.

It answers nothing by itself: a test looks into a slot, answers it, and notifies, or does wrong.
"""

from __future__ import annotations

import array
import mmap
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

from protocol import layouts
from tools.hypervisor.domain import Domain
from tools.hypervisor.hypervisor import Hypervisor

PAGE = 4096
NONE, READY, INPROCESS, ANSWERED = range(4)
READ, POINTER, DOWN = 0x20, 0x10, 0x40
PORT, MEMORY, PCI = range(3)
ONES = (1 << 64) - 1
OFF, LEGACY, ATOMIC = range(3)
PATIENCE = 20.0
STUB_DOMAIN = 77
"""An emulator domain other than 0, with a socket of its own."""
T = TypeVar("T")


class RefusedError(Exception):
    """The hypervisor answered with an error."""

    def __init__(self, errno: int) -> None:
        super().__init__(os.strerror(errno))
        self.errno = errno


class Request(NamedTuple):
    """A slot as it stands in the page."""

    address: int
    data: int
    number: int
    size: int
    port: int
    pad: int
    flags: int
    kind: int

    @property
    def state(self) -> int:
        return self.flags & 15


class Bound(NamedTuple):
    """A local port and its two eventfds."""

    port: int
    front: int
    back: int


def until(condition: Callable[[], T]) -> T:
    """Wait for something that another thread is about to do."""
    end = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < end, "it did not happen"
        os.sched_yield()
    return value


def readable(fd: int, patience: float = 0) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(int(patience * 1000)))


class Running(Generic[T]):
    """Something that a vCPU's thread does meanwhile."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._value: T
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._function()
        except BaseException as error:
            self.error = error

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def result(self) -> T:
        self._thread.join(PATIENCE)
        assert self.done, "the vCPU still waits"
        if self.error is not None:
            raise self.error
        return self._value


class Emulator:
    """A connection to the hypervisor, and one ioreq server once `open` was called."""

    def __init__(self, path: str, domid: int = layouts.LOCAL_ANY_DOMAIN) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(path)
        self.events: list[bytes] = []
        self._serial = 0
        self._fds: list[int] = []
        self.page: mmap.mmap
        self.id = -1
        self.vcpus: list[Bound] = []
        self.ring: Bound | None = None
        self._base = 0
        body = struct.pack("<QIII", layouts.LOCAL_MAGIC, layouts.LOCAL_VERSION, domid, os.getpid())
        try:
            self.hello, self.hello_fds = self.ask(layouts.LOCAL_CALL_HELLO, body)
        except BaseException:
            self.socket.close()
            raise

    def exchange(self, packet: bytes, serial: int) -> tuple[int, int, bytes, list[int]]:
        self.socket.send(packet)
        while True:
            room = socket.CMSG_SPACE(8 * 4)
            data, control, _, _ = self.socket.recvmsg(1 << 17, room)
            if not data:
                raise ConnectionResetError
            got = array.array("i")
            for _, _, piece in control:
                got.frombytes(piece)
            fds = list(got)
            self._fds += fds
            call, answered, status = struct.unpack_from("<IIi", data)
            if call == layouts.LOCAL_CALL_STORE_EVENT and not answered:
                self.events.append(data[12:])
                continue
            assert answered == serial
            return call, status, data[12:], fds

    def ask(self, call: int, body: bytes = b"") -> tuple[bytes, list[int]]:
        self._serial += 1
        packet = struct.pack("<II", call, self._serial) + body
        answered, status, answer, fds = self.exchange(packet, self._serial)
        assert answered == call
        if status:
            raise RefusedError(-status)
        return answer, fds

    def dm_op(self, number: int, layout: str, *values: int, buffer: bytes = b"") -> bytes:
        argument = struct.pack("<II", number, 0) + struct.pack(layout, *values)
        answer, _ = self.ask(layouts.LOCAL_CALL_DM_OP, argument.ljust(32, b"\0") + buffer)
        return answer

    def create(self, mode: int = LEGACY) -> int:
        answer = self.dm_op(layouts.DM_OP_CREATE_IOREQ_SERVER, "<B3xH", mode, 0)
        return int(struct.unpack_from("<H", answer, 12)[0])

    def acquire(self, server: int, frame: int = 0, count: int = 2) -> mmap.mmap:
        body = struct.pack("<HHII", 0, server, frame, count)
        _, fds = self.ask(layouts.LOCAL_CALL_RESOURCE, body)
        return mmap.mmap(fds[0], count * PAGE)

    def enable(self, server: int, enabled: int = 1) -> None:
        self.dm_op(layouts.DM_OP_SET_IOREQ_SERVER_STATE, "<HBB", server, enabled, 0)

    def destroy(self, server: int) -> None:
        self.dm_op(layouts.DM_OP_DESTROY_IOREQ_SERVER, "<HH", server, 0)

    def info(self, server: int, flags: int = 1) -> tuple[int, int, int]:
        answer = self.dm_op(layouts.DM_OP_GET_IOREQ_SERVER_INFO, "<HHIQQ", server, flags, 0, 0, 0)
        port, gfn, ring_gfn = struct.unpack_from("<IQQ", answer, 12)
        return int(port), int(gfn), int(ring_gfn)

    def map(self, space: int, first: int, last: int, server: int | None = None) -> None:
        number = self.id if server is None else server
        operation = layouts.DM_OP_MAP_IO_RANGE_TO_IOREQ_SERVER
        self.dm_op(operation, "<HHIQQ", number, 0, space, first, last)

    def unmap(self, space: int, first: int, last: int, server: int | None = None) -> None:
        number = self.id if server is None else server
        operation = layouts.DM_OP_UNMAP_IO_RANGE_FROM_IOREQ_SERVER
        self.dm_op(operation, "<HHIQQ", number, 0, space, first, last)

    def bind(self, port: int) -> Bound:
        answer, fds = self.ask(layouts.LOCAL_CALL_BIND, struct.pack("<I", port))
        bound = Bound(struct.unpack("<I", answer)[0], fds[0], fds[1])
        assert readable(bound.front), "binding raises the port once"
        os.eventfd_read(bound.front)
        return bound

    def unbind(self, local: int) -> None:
        self.ask(layouts.LOCAL_CALL_UNBIND, struct.pack("<I", local))

    def open(self, vcpus: int = 1, mode: int = LEGACY) -> Emulator:
        """Create a server, map its pages, enable it, bind its ports."""
        self.id = self.create(mode)
        self.use(self.id, vcpus, mode)
        return self

    def adopt(self, server: int, vcpus: int = 1, mode: int = LEGACY) -> None:
        """Take over the server of a connection that is just being closed."""
        self.id = server
        self.page = self.acquire(server)
        self._base = PAGE
        self.vcpus = [self.bind_when_free(self.request(vcpu).port) for vcpu in range(vcpus)]

    def bind_when_free(self, port: int) -> Bound:
        def attempt() -> Bound | None:
            try:
                return self.bind(port)
            except RefusedError:
                return None

        bound = until(attempt)
        assert bound is not None
        return bound

    def use(self, server: int, vcpus: int = 1, mode: int = LEGACY) -> None:
        self.id = server
        frame = 1 if mode == OFF else 0
        self.page = self.acquire(server, frame, 2 - frame)
        self._base = len(self.page) - PAGE
        self.enable(server)
        self.vcpus = [self.bind(self.request(vcpu).port) for vcpu in range(vcpus)]
        if mode != OFF:
            self.ring = self.bind(self.info(server)[0])

    def request(self, vcpu: int = 0) -> Request:
        return Request(*struct.unpack_from("<QQIIIHBB", self.page, self._base + 32 * vcpu))

    def wait(self, vcpu: int = 0) -> Request:
        """Wait for a vCPU's request."""
        assert readable(self.vcpus[vcpu].front, PATIENCE), "no request came"
        os.eventfd_read(self.vcpus[vcpu].front)
        return self.request(vcpu)

    def set_state(self, state: int, vcpu: int = 0) -> None:
        at = self._base + 32 * vcpu + 30
        self.page[at] = (self.page[at] & 0xF0) | state

    def notify(self, vcpu: int = 0) -> None:
        os.eventfd_write(self.vcpus[vcpu].back, 1)

    def answer(self, data: int = 0, vcpu: int = 0) -> None:
        """Answer a request: data, state, notification."""
        struct.pack_into("<Q", self.page, self._base + 32 * vcpu + 8, data & ONES)
        self.set_state(ANSWERED, vcpu)
        self.notify(vcpu)

    def serve(self, data: int = 0, vcpu: int = 0) -> Request:
        """Wait for a request and answer it."""
        request = self.wait(vcpu)
        assert request.state == READY
        self.answer(data, vcpu)
        return request

    @property
    def pointers(self) -> tuple[int, int]:
        """The ring's read and write pointers."""
        read, write = struct.unpack_from("<II", self.page)
        return read, write

    def entry(self, index: int) -> tuple[int, int]:
        """A ring entry: header and data."""
        header, data = struct.unpack_from("<II", self.page, 8 + index % 511 * 8)
        return header, data

    def set_pointers(self, read: int, write: int) -> None:
        struct.pack_into("<II", self.page, 0, read, write)

    def store(self, kind: int, payload: bytes, transaction: int = 0) -> tuple[int, bytes]:
        """A xenstore request: type and payload of the answer."""
        message = struct.pack("<IIII", kind, 7, transaction, len(payload)) + payload
        answer, _ = self.ask(layouts.LOCAL_CALL_STORE, message)
        answered, serial, _, length = struct.unpack_from("<IIII", answer)
        assert serial == 7
        assert length == len(answer) - 16
        return answered, answer[16:]

    def param(self, index: int, value: int | None = None) -> int:
        """Read an HVM parameter, or set it."""
        call = layouts.LOCAL_CALL_GET_PARAM if value is None else layouts.LOCAL_CALL_SET_PARAM
        answer, _ = self.ask(call, struct.pack("<IIQ", index, 0, value or 0))
        return int(struct.unpack("<IIQ", answer)[2]) if value is None else value

    def close(self) -> None:
        self.socket.close()
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()


class Host:
    """A hypervisor, and what a test makes of it."""

    def __init__(self, path: str) -> None:
        self.hypervisor = Hypervisor(path)
        self.stub_path = f"{path}-stub"
        self.hypervisor.listen(self.stub_path, STUB_DOMAIN)
        self.hypervisor.start()
        self._emulators: list[Emulator] = []

    def domain(self, vcpus: int = 1, **options: Any) -> Domain:
        """A domain of one MiB whose vCPUs always sleep while they wait."""
        made = self.hypervisor.create_domain(vcpus=vcpus, ram=[(0, 1 << 20)], **options)
        for vcpu in made.vcpus:
            vcpu.watch.length = 0
        return made

    def emulator(self, domid: int = layouts.LOCAL_ANY_DOMAIN, path: str | None = None) -> Emulator:
        made = Emulator(path or self.hypervisor.path, domid)
        self._emulators.append(made)
        return made

    def close(self) -> None:
        for emulator in self._emulators:
            emulator.close()
        self.hypervisor.close()


def hosts(path: str) -> Iterator[Host]:
    """For a fixture."""
    host = Host(path)
    yield host
    host.close()
