"""When a vCPU's thread runs, waits and ends: attention, pauses, events, deferred shutdowns.

Facts: xen/common/sched/core.c (vcpu_start_shutdown_deferral), xen/common/event_channel.c
(default_xen_notification_fn: a signal on any Xen-attached port of a vCPU wakes it), xen/arch/x86/
hvm/dm.c (inject_event).
"""

from __future__ import annotations

import os
import select
import weakref
from collections.abc import Callable
from errno import EBUSY
from typing import TYPE_CHECKING, NamedTuple

from .errors import DomainEnded, HypercallError
from .shared_files import drain

if TYPE_CHECKING:
    from .domain import Domain

__all__ = ["Event", "VcpuThread"]


class Event(NamedTuple):
    """What inject_event left. ``kind``: an EVENT_TYPE_*; ``error_code``: all ones for none."""

    vector: int
    kind: int
    error_code: int
    length: int
    cr2: int


class VcpuThread:
    """What a vCPU is to those who hold, wake and end it.

    ``attention``: the thread must call `rest` before the guest goes on; whoever sets it calls
    ``on_kick``, under the domain's lock, so that an engine can interrupt the guest. ``online``:
    whether the vCPU is up from the start. ``wake_fd``: what emulators raise. ``parked``: the thread
    waits in `rest`, and does not touch the guest until the domain goes on.
    """

    def __init__(self, domain: Domain, number: int, *, online: bool = True) -> None:
        self.domain = domain
        self.id = number
        self.online = online
        self.attention = False
        self.on_kick: list[Callable[[], object]] = []
        self.wake_fd = os.eventfd(0, os.EFD_CLOEXEC)
        weakref.finalize(self, os.close, self.wake_fd)
        self._end_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        weakref.finalize(self, os.close, self._end_fd)
        self._poller = select.poll()
        for fd in (self.wake_fd, self._end_fd):
            self._poller.register(fd, select.POLLIN)
        self.waiting = False
        self.parked = False
        self._stopped = False
        self._invalidate = False
        self._event: Event | None = None

    def broadcast_invalidate(self) -> None:
        """Ask every enabled ioreq server to drop its mappings of guest memory, and wait for all.

        Nothing is asked when ``attention`` is due again; then it is to be done later.
        """
        raise NotImplementedError

    def settle(self) -> None:
        """Do what ``attention`` asks for, if it does."""
        if self.attention:
            self.rest()

    def rest(self) -> None:
        """Do what ``attention`` asks for: wait while paused or shut down, tell emulators to drop
        their mappings. Returns when the guest may go on."""
        domain = self.domain
        domain.announce()
        while True:
            with domain.changed:
                while True:
                    if self._stopped or domain.over:
                        raise DomainEnded(f"vCPU {self.id} of domain {domain.domid}")
                    if not domain.held:
                        break
                    if not self.parked:
                        self.parked = True
                        domain.changed.notify_all()
                    domain.changed.wait()
                self.parked = False
                self.attention = False
                invalidate, self._invalidate = self._invalidate, False
            if not invalidate:
                return
            self.broadcast_invalidate()
            if not self.attention:
                return

    @property
    def ended(self) -> bool:
        """Whether the vCPU is not to run any more."""
        return self._stopped or self.domain.over

    def kick(self) -> None:
        """Have the vCPU's thread come to `rest` soon, wherever it is. Called under the lock."""
        self.attention = True
        for interrupt in self.on_kick:
            interrupt()

    def ask_invalidate(self) -> None:
        """Have the vCPU broadcast an INVALIDATE before its guest goes on."""
        with self.domain.lock:
            self._invalidate = True
            self.kick()

    def stop(self) -> None:
        """End the vCPU: its thread gets DomainEnded wherever it waits."""
        with self.domain.changed:
            self._stopped = True
            self.wake()

    def wake(self) -> None:
        """Let the thread see that the vCPU or the domain has ended. Called under the lock."""
        self.kick()
        os.eventfd_write(self._end_fd, 1)
        self.domain.changed.notify_all()

    def inject(self, event: Event) -> None:
        """XEN_DMOP_inject_event. HypercallError, EBUSY: one is pending already."""
        with self.domain.lock:
            if self._event is not None:
                raise HypercallError(EBUSY, f"an event is pending on vCPU {self.id}")
            self._event = event
            self.kick()

    def take_event(self) -> Event | None:
        """What was injected, for the engine to deliver; asked after each `rest`."""
        with self.domain.lock:
            event, self._event = self._event, None
            return event

    def _start(self) -> None:
        """From here to `_end_waiting` a shutdown of the domain waits for this vCPU."""
        self.waiting = True
        self.domain.outstanding += 1

    def _end_waiting(self) -> None:
        domain = self.domain
        with domain.lock:
            self.waiting = False
            domain.outstanding -= 1
            if domain.shutting_down:
                domain.finish_shutdown()
        domain.announce()

    def _sleep(self) -> None:
        """Sleep until an emulator signals one of this vCPU's ports, or the vCPU is to end."""
        self._poller.poll()
        drain(self.wake_fd)
        if self._stopped or self.domain.over:
            raise DomainEnded(f"vCPU {self.id} of domain {self.domain.domid}")
