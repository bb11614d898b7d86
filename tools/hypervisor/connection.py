"""One emulator's connection: the packets of protocol/local.py, and what the emulator holds.

What cannot be read closes the connection, everything else is answered. What an emulator can do to
the descriptors that it gets is `shared_files`' business. A connection that ends gives its ports
back; its ioreq servers stay, as they do on Xen when an emulator's process dies.
"""

from __future__ import annotations

import mmap
import os
import select
import socket
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from errno import EACCES, EINVAL, ENOTCONN, EOPNOTSUPP, EPERM, ESRCH
from struct import Struct
from time import monotonic
from typing import TYPE_CHECKING

from protocol import layouts

from . import dm_op
from .clock import VirtualClock
from .errors import HypercallError
from .shared_files import SharedEvent, drain, sealed_file
from .store_client import StoreClient

if TYPE_CHECKING:
    from .domain import Domain
    from .event_channel import Channel
    from .hypervisor import Hypervisor

__all__ = ["ClockPage", "Connection"]

REQUEST = Struct(layouts.LOCAL_REQUEST_FORMAT)
REPLY = Struct(layouts.LOCAL_REPLY_FORMAT)
HELLO = Struct(layouts.LOCAL_HELLO_FORMAT)
DOMAIN = Struct(layouts.LOCAL_DOMAIN_FORMAT)
REGION = Struct(layouts.LOCAL_REGION_FORMAT)
RESOURCE = Struct(layouts.LOCAL_RESOURCE_FORMAT)
PORT = Struct(layouts.LOCAL_PORT_FORMAT)
BIND = Struct(layouts.LOCAL_BIND_FORMAT)
PARAM = Struct(layouts.LOCAL_PARAM_FORMAT)
MOST = layouts.LOCAL_PACKET_SIZE
NO_DEADLINE = (1 << 64) - 1
QUEUE_LIMIT = 1024
"""Packets that may wait for an emulator that does not read; one more ends the connection."""

Answer = tuple[bytes, Sequence[int]]
"""The body of a reply and its descriptors."""


class ClockPage:
    """The page by which an emulator is asked for its next deadline, and the two eventfds.

    OSError: no descriptor is left.
    """

    def __init__(self, now: int) -> None:
        self.fd = self._keep(sealed_file("clock", layouts.LOCAL_CLOCK_PAGE_SIZE))
        self._question = SharedEvent()
        self.ask_fd = self._question.fd
        self.done_fd = self._keep(os.eventfd(0, os.EFD_CLOEXEC))
        self._end_fd = self._keep(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        self._poller = select.poll()
        for fd in (self.done_fd, self._end_fd):
            self._poller.register(fd, select.POLLIN)
        page = memoryview(mmap.mmap(self.fd, layouts.LOCAL_CLOCK_PAGE_SIZE))
        self._words = page.cast("Q")
        self._words[layouts.LOCAL_CLOCK_NOW_OFFSET // 8] = now
        self._words[layouts.LOCAL_CLOCK_DEADLINE_OFFSET // 8] = NO_DEADLINE
        self.closed = False

    def _keep(self, fd: int) -> int:
        weakref.finalize(self, os.close, fd)
        return fd

    def ask(self, now: int, patience: float) -> int | None:
        """Let time be ``now`` nanoseconds for the emulator, and wait until it has done what is due.

        Gives its next deadline; None: there is none, or the emulator is gone. TimeoutError: there
        was no answer for ``patience`` seconds.
        """
        words = self._words
        words[layouts.LOCAL_CLOCK_NOW_OFFSET // 8] = now
        question = words[layouts.LOCAL_CLOCK_ASKED_OFFSET // 8] + 1
        words[layouts.LOCAL_CLOCK_ASKED_OFFSET // 8] = question
        self._question.raise_it()
        end = monotonic() + patience
        while words[layouts.LOCAL_CLOCK_DONE_OFFSET // 8] != question:
            if self.closed:
                return None
            left = end - monotonic()
            if left <= 0:
                raise TimeoutError
            self._poller.poll(left * 1000)
            drain(self.done_fd)
        deadline = words[layouts.LOCAL_CLOCK_DEADLINE_OFFSET // 8]
        return None if deadline == NO_DEADLINE else deadline

    def close(self) -> None:
        """The emulator is gone: nobody waits for it any more."""
        self.closed = True
        os.eventfd_write(self._end_fd, 1)


class Connection:
    """One emulator's process. ``emulator``: the domain that it is in.

    The control thread calls `receive` and `flush`; packets may be sent from any thread.
    """

    def __init__(self, hypervisor: Hypervisor, peer: socket.socket, emulator: int) -> None:
        self._hypervisor = hypervisor
        self._socket = peer
        self.emulator = emulator
        self.domain: Domain | None = None
        self.pid = 0
        self.restricted = False
        self.closed = False
        self.clock: ClockPage | None = None
        self._ports: dict[int, Channel] = {}
        self._regions: int | None = None
        self._queue: deque[tuple[bytes, list[int]]] = deque()
        self._sending = threading.Lock()
        self._store = StoreClient(
            hypervisor.store, self._send_event, lambda domid: domid in hypervisor.domains
        )
        self._calls: dict[int, Callable[[bytes], Answer]] = {
            layouts.LOCAL_CALL_HELLO: self._hello,
            layouts.LOCAL_CALL_MEMORY: self._memory,
            layouts.LOCAL_CALL_DM_OP: self._dm_op,
            layouts.LOCAL_CALL_RESOURCE: self._resource,
            layouts.LOCAL_CALL_BIND: self._bind,
            layouts.LOCAL_CALL_UNBIND: self._unbind,
            layouts.LOCAL_CALL_STORE: self._store_message,
            layouts.LOCAL_CALL_SET_PARAM: self._set_param,
            layouts.LOCAL_CALL_GET_PARAM: self._get_param,
            layouts.LOCAL_CALL_RESTRICT: self._restrict,
        }

    def fileno(self) -> int:
        """The socket's descriptor, for a selector."""
        return self._socket.fileno()

    @property
    def queued(self) -> bool:
        """Whether packets wait until the emulator reads."""
        return bool(self._queue)

    def receive(self) -> bool:
        """Serve one packet; False: the connection is to be closed."""
        try:
            packet = self._socket.recv(MOST + 1)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        if not REQUEST.size <= len(packet) <= MOST:
            return False
        call, serial = REQUEST.unpack_from(packet)
        status, answer = 0, b""
        fds: Sequence[int] = ()
        try:
            answer, fds = self._perform(call, packet[REQUEST.size :])
        except HypercallError as error:
            status = -error.errno
        except OSError as error:
            # No descriptor or no memory is left for this emulator.
            status = -(error.errno or EINVAL)
        return self._send(REPLY.pack(call, serial, status) + answer, fds)

    def _perform(self, call: int, body: bytes) -> Answer:
        perform = self._calls.get(call)
        if perform is None:
            raise HypercallError(EOPNOTSUPP, f"there is no call {call}")
        if (self.domain is None) != (call == layouts.LOCAL_CALL_HELLO):
            raise HypercallError(EINVAL, "a connection begins with one hello")
        return perform(body)

    def _send(self, packet: bytes, fds: Sequence[int] = ()) -> bool:
        with self._sending:
            if self.closed:
                return False
            try:
                if not self._queue:
                    self._transmit(packet, fds)
                    return True
            except BlockingIOError:
                pass
            except OSError:
                return False
            try:
                # Copies: what is waiting must not depend on who closes the original.
                self._queue.append((packet, [os.dup(fd) for fd in fds]))
            except OSError:
                return False
            self._hypervisor.wake()
            return len(self._queue) <= QUEUE_LIMIT

    def _transmit(self, packet: bytes, fds: Sequence[int]) -> None:
        if fds:
            socket.send_fds(self._socket, [packet], list(fds), socket.MSG_DONTWAIT)
        else:
            self._socket.send(packet, socket.MSG_DONTWAIT)

    def _send_event(self, message: bytes) -> None:
        """A watch's event, from whichever thread changed the store."""
        packet = REPLY.pack(layouts.LOCAL_CALL_STORE_EVENT, 0, 0) + message
        if not self._send(packet):
            self._hypervisor.drop(self)

    def flush(self) -> bool:
        """Send what waits, as far as it goes; False: the connection is to be closed."""
        with self._sending:
            try:
                while self._queue:
                    self._transmit(*self._queue[0])
                    self._drop_first()
            except BlockingIOError:
                return len(self._queue) <= QUEUE_LIMIT
            except OSError:
                return False
        return True

    def _drop_first(self) -> None:
        for fd in self._queue.popleft()[1]:
            os.close(fd)

    def _hello(self, body: bytes) -> Answer:
        magic, version, domid, pid = _unpack(HELLO, body)
        if magic != layouts.LOCAL_MAGIC or version != layouts.LOCAL_VERSION:
            raise HypercallError(EINVAL, "the emulator speaks another protocol")
        domain = self._hypervisor.find_domain(domid)
        if domain is None:
            raise HypercallError(ESRCH, f"there is no domain {domid}")
        if not self._privileged(domain):
            raise HypercallError(EPERM, f"domain {self.emulator} has no power over it")
        with domain.lock:
            clock = ClockPage(domain.clock.now())
            self.domain, self.clock, self.pid = domain, clock, pid
            domain.connections.append(self)
            fds = (domain.memory.fd, clock.fd, clock.ask_fd, clock.done_fd)
            virtual = isinstance(domain.clock, VirtualClock)
            mode = layouts.LOCAL_CLOCK_MODE_VIRTUAL if virtual else layouts.LOCAL_CLOCK_MODE_REAL
            return DOMAIN.pack(domain.domid, domain.max_vcpus, mode), fds

    def _privileged(self, domain: Domain) -> bool:
        return self.emulator in domain.privileged and self.emulator != domain.domid

    @property
    def _domain(self) -> Domain:
        assert self.domain is not None
        return self.domain

    def _memory(self, body: bytes) -> Answer:
        self._drop_regions()
        self._regions = os.memfd_create("regions", os.MFD_CLOEXEC)
        with open(self._regions, "wb", closefd=False) as file:
            file.writelines(REGION.pack(*region) for region in self._domain.memory.regions)
        return b"", (self._regions,)

    def _drop_regions(self) -> None:
        """Close the last answer's file, which the emulator has."""
        if self._regions is not None:
            os.close(self._regions)
            self._regions = None

    def _dm_op(self, body: bytes) -> Answer:
        domain = self._domain
        privileged = self._privileged(domain)
        return dm_op.perform(domain, self.emulator, body, privileged=privileged), ()

    def _resource(self, body: bytes) -> Answer:
        kind, number, frame, count = _unpack(RESOURCE, body)
        if kind != layouts.XENMEM_RESOURCE_IOREQ_SERVER:
            raise HypercallError(EOPNOTSUPP, f"there is no resource of type {kind}")
        with self._living_domain().lock:
            server = self._domain.servers.get(number, self.emulator)
            return b"", (server.acquire(frame, count),)

    def _living_domain(self) -> Domain:
        if not self._domain.alive:
            raise HypercallError(ESRCH, f"domain {self._domain.domid} is gone")
        return self._domain

    def _bind(self, body: bytes) -> Answer:
        (port,) = _unpack(PORT, body)
        domain = self._living_domain()
        with domain.lock:
            channel = domain.event_channels.bind(port, self.emulator, self)
            assert channel.vcpu is not None
            local = next(one for one in range(1, len(self._ports) + 2) if one not in self._ports)
            self._ports[local] = channel
            return BIND.pack(local), (channel.fd, channel.vcpu.wake_fd)

    def _unbind(self, body: bytes) -> Answer:
        (local,) = _unpack(PORT, body)
        with self._domain.lock:
            channel = self._ports.pop(local, None)
            if channel is None:
                raise HypercallError(ENOTCONN, f"local port {local} is not bound")
            if channel.owner is self:
                channel.close()
        return b"", ()

    def _store_message(self, body: bytes) -> Answer:
        self._check_free()
        try:
            return self._store.handle(body), ()
        except ValueError as error:
            raise HypercallError(EINVAL, str(error)) from None

    def _set_param(self, body: bytes) -> Answer:
        self._check_free()
        index, pad, value = _unpack(PARAM, body)
        if pad:
            raise HypercallError(EINVAL, "padding is not zero")
        self._living_domain().params.set(index, value)
        return b"", ()

    def _get_param(self, body: bytes) -> Answer:
        self._check_free()
        index, pad, _ = _unpack(PARAM, body)
        if pad:
            raise HypercallError(EINVAL, "padding is not zero")
        return PARAM.pack(index, 0, self._living_domain().params.get(index)), ()

    def _restrict(self, body: bytes) -> Answer:
        self.restricted = True
        return b"", ()

    def _check_free(self) -> None:
        if self.restricted:
            raise HypercallError(EACCES, "the emulator has restricted itself")

    def ask_clock(self, now: int) -> int | None:
        """See `ClockPage.ask`; called without the domain's lock, which the emulator may need.

        An emulator that does not answer crashes the domain, and is not asked again.
        """
        if self.clock is None:
            return None
        patience = self._hypervisor.clock_patience
        try:
            return self.clock.ask(now, patience)
        except TimeoutError:
            self.clock.close()
            who = f"the emulator with process id {self.pid}"
            self._domain.crash(f"{who} has not answered the clock for {patience:g} s")
            return None

    def close(self) -> None:
        """The connection is over: its ports can be bound again."""
        with self._sending:
            if self.closed:
                return
            self.closed = True
            self._socket.close()
            while self._queue:
                self._drop_first()
        self._store.close()
        self._drop_regions()
        if self.domain is not None:
            with self.domain.lock:
                self.domain.event_channels.unbind_all(self)
                with suppress(ValueError):
                    self.domain.connections.remove(self)
        if self.clock is not None:
            self.clock.close()


def _unpack(structure: Struct, body: bytes) -> tuple[int, ...]:
    """The fields of a body. HypercallError EINVAL: it has another length."""
    if len(body) != structure.size:
        raise HypercallError(EINVAL, f"{len(body)} bytes where {structure.size} are due")
    return structure.unpack(body)
