"""The hypervisor: several domains, a socket for their emulators, one thread that serves them.

The control thread accepts emulators and serves their packets. vCPU threads are the engines'.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
from collections.abc import Sequence
from errno import EMFILE, ENAMETOOLONG, ENFILE, ENOBUFS, ENOMEM
from typing import TYPE_CHECKING

from protocol import layouts

from .clock import RealClock
from .connection import Connection
from .domain import CONTROL_DOMAIN, Domain
from .store import HOME, Store

if TYPE_CHECKING:
    from .clock import Clock

__all__ = ["Hypervisor"]

BACKLOG = 64
INTRODUCED = "@introduceDomain"
RELEASED = "@releaseDomain"
FIRST_DOMID = 1
CLOCK_PATIENCE = 30.0
"""Seconds: more than a device model needs to start on a machine that is busy."""
EXHAUSTED = (EMFILE, ENFILE, ENOBUFS, ENOMEM)
RETRY_AFTER = 0.5
"""Seconds after which a connection is accepted that could not be before."""


class Hypervisor:
    """The hypervisor process's one object. ``path``: where emulators connect (AF_UNIX, SEQPACKET).

    OSError: the socket cannot be made there. ``domains``: by domid; ``store``: the xenstore;
    ``clock_patience``: for how many seconds an emulator's answer to a clock that steps is awaited,
    before its domain is crashed.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.domains: dict[int, Domain] = {}
        self.store = Store()
        self.store.write(f"{HOME}/domid", "0")
        self._lock = threading.RLock()
        self._next_domid = FIRST_DOMID
        self.clock_patience = CLOCK_PATIENCE
        self._paths: list[str] = []
        self._connections: set[Connection] = set()
        self._dropped: list[Connection] = []
        self._listeners: list[tuple[socket.socket, int]] = []
        self._resting: list[tuple[socket.socket, int]] = []
        """Listeners whose connections cannot be accepted now."""
        self._thread: threading.Thread | None = None
        self._ending = False
        self._selector = selectors.DefaultSelector()
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._selector.register(self._wake_fd, selectors.EVENT_READ)
        self.listen(path, CONTROL_DOMAIN)

    def listen(self, path: str, emulator: int) -> None:
        """Let emulators in domain ``emulator`` connect at ``path``; before `start` only."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            listener.bind(path)
            listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            # Python itself refuses a path that is too long, with neither number nor text.
            cause = error.strerror or str(error)
            raise OSError(error.errno or ENAMETOOLONG, f"{path}: {cause}") from None
        listener.setblocking(False)
        self._paths.append(path)
        self._listeners.append((listener, emulator))
        self._selector.register(listener, selectors.EVENT_READ, emulator)

    def create_domain(
        self,
        *,
        vcpus: int,
        ram: Sequence[tuple[int, int]],
        max_vcpus: int | None = None,
        clock: Clock | None = None,
        default_server: bool = False,
        domid: int | None = None,
    ) -> Domain:
        """Create a domain, as a toolstack does: all vCPUs that it may have exist from the start.

        ``vcpus``: how many of them are online; ``domid``: None for the next one; the rest as for
        `Domain`. ValueError also when the domid is taken.
        """
        most = vcpus if max_vcpus is None else max_vcpus
        with self._lock:
            domid = self._next_domid if domid is None else domid
            if domid in self.domains:
                raise ValueError(f"there is a domain {domid} already")
            domain = Domain(
                domid,
                vcpus=most,
                online=vcpus,
                ram=ram,
                clock=clock,
                default_server=default_server,
            )
            self._next_domid = max(self._next_domid, domid + 1)
            self.domains[domid] = domain
        domain.on_shutdown.append(lambda _: self.store.fire(RELEASED))
        if isinstance(domain.clock, RealClock):
            domain.clock.start(domain.run_due)
        home = f"/local/domain/{domid}"
        self.store.write(f"{home}/domid", str(domid))
        self.store.write(f"{home}/name", f"domain{domid}")
        self.store.fire(INTRODUCED)
        return domain

    def find_domain(self, domid: int) -> Domain | None:
        """A domain by its id; LOCAL_ANY_DOMAIN means the only one."""
        with self._lock:
            if domid == layouts.LOCAL_ANY_DOMAIN and len(self.domains) == 1:
                return next(iter(self.domains.values()))
            return self.domains.get(domid)

    def destroy_domain(self, domid: int) -> None:
        """End a domain and forget it. Its emulators stay connected and are answered ESRCH.

        KeyError: there is no such domain.
        """
        with self._lock:
            domain = self.domains.pop(domid)
        if isinstance(domain.clock, RealClock):
            domain.clock.stop()
        domain.destroy()
        self.store.remove(f"/local/domain/{domid}")
        self.store.fire(RELEASED)

    def start(self) -> None:
        """Start the control thread: emulators can connect from now on."""
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Have the control thread look at what changed."""
        os.eventfd_write(self._wake_fd, 1)

    def drop(self, connection: Connection) -> None:
        """Have the control thread close a connection."""
        with self._lock:
            self._dropped.append(connection)
        self.wake()

    def _run(self) -> None:
        while not self._ending:
            ready = self._selector.select(RETRY_AFTER if self._resting else None)
            if not ready:
                self._listen_again()
            for key, events in ready:
                if isinstance(key.fileobj, socket.socket):
                    self._accept(key.fileobj, key.data)
                elif isinstance(key.data, Connection):
                    self._serve(key.data, events)
                else:
                    self._look()
        for connection in list(self._connections):
            self._end(connection)

    def _accept(self, listener: socket.socket, emulator: int) -> None:
        try:
            peer, _ = listener.accept()
        except OSError as error:
            # Else the emulator went away again.
            if error.errno in EXHAUSTED:
                self._selector.unregister(listener)
                self._resting.append((listener, emulator))
            return
        peer.setblocking(False)
        connection = Connection(self, peer, emulator)
        self._connections.add(connection)
        self._selector.register(connection, selectors.EVENT_READ, connection)

    def _listen_again(self) -> None:
        resting, self._resting = self._resting, []
        for listener, emulator in resting:
            self._selector.register(listener, selectors.EVENT_READ, emulator)

    def _serve(self, connection: Connection, events: int) -> None:
        if connection not in self._connections:
            return
        good = True
        if events & selectors.EVENT_WRITE:
            good = connection.flush()
            self._watch(connection)
        if good and events & selectors.EVENT_READ:
            try:
                good = connection.receive()
            except Exception as error:
                # A bug of the hypervisor's, which costs one domain and not all of them.
                good = False
                if connection.domain is not None:
                    connection.domain.crash(f"a request of an emulator failed: {error!r}")
        if not good:
            self._end(connection)

    def _watch(self, connection: Connection) -> None:
        """Ask the selector for what the connection waits for."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.queued else 0)
        self._selector.modify(connection, events, connection)

    def _look(self) -> None:
        try:
            os.eventfd_read(self._wake_fd)
        except BlockingIOError:
            return
        with self._lock:
            dropped, self._dropped = self._dropped, []
        for connection in dropped:
            self._end(connection)
        for connection in self._connections:
            self._watch(connection)

    def _end(self, connection: Connection) -> None:
        if connection in self._connections:
            self._connections.remove(connection)
            self._selector.unregister(connection)
            try:
                connection.close()
            except Exception as error:
                # As in `_serve`.
                if connection.domain is not None:
                    connection.domain.crash(f"a connection could not be closed: {error!r}")
            self._listen_again()

    def close(self) -> None:
        """End every domain and connection, and the control thread; the sockets go, too.

        A second call does nothing.
        """
        if self._ending:
            return
        for domid in list(self.domains):
            self.destroy_domain(domid)
        self._ending = True
        if self._thread is not None:
            self.wake()
            self._thread.join()
            self._thread = None
        for listener, _ in self._listeners:
            listener.close()
        self._selector.close()
        os.close(self._wake_fd)
        for path in self._paths:
            if os.path.exists(path):
                os.unlink(path)
        self._paths.clear()
