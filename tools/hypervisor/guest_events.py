"""The guest's own event channels: EVENT_CHANNEL_OP, SCHEDOP_poll, and ports to those in dom0.

Facts: xen/common/event_channel.c, xen/common/sched/core.c (do_poll). Two-level event channels only.
Not modelled: channels between two guests, virtual and physical interrupts as events (ENOSYS), and
upcalls: a guest polls, or looks at its page, for HVM_PARAM_CALLBACK_IRQ raises nothing here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from errno import EINVAL, ENOENT, ENOSYS, EPERM, ESRCH
from typing import TYPE_CHECKING, NamedTuple

from protocol import layouts

from .clock import VirtualClock
from .errors import HypercallError

if TYPE_CHECKING:
    from .domain import Domain
    from .event_channel import Channel
    from .guest_arguments import GuestArguments
    from .shared_info import SharedInfo

__all__ = ["GuestEvents"]

PORT = struct.Struct(layouts.EVTCHN_SEND_FORMAT)
ALLOC_UNBOUND = struct.Struct(layouts.EVTCHN_ALLOC_UNBOUND_FORMAT)
BIND_IPI = struct.Struct(layouts.EVTCHN_BIND_IPI_FORMAT)
BIND_VCPU = struct.Struct(layouts.EVTCHN_BIND_VCPU_FORMAT)
STATUS = struct.Struct(layouts.EVTCHN_STATUS_FORMAT)
POLL = {
    False: struct.Struct(layouts.COMPAT_SCHED_POLL_FORMAT),
    True: struct.Struct(layouts.SCHED_POLL_FORMAT),
}
MOST_POLLED = 128
SLICE = 0.01
"""Seconds that a poll waits at most: a guest may be woken for nothing, and asks again."""


class _Port(NamedTuple):
    """A port of the guest's. ``notify``: who is told when the guest sends; None: nobody listens."""

    channel: Channel
    status: int
    vcpu: int
    notify: Callable[[], object] | None


class GuestEvents:
    """The ports of one domain. `raise_port` is for any thread."""

    def __init__(self, domain: Domain, shared: SharedInfo) -> None:
        self._domain, self._shared = domain, shared
        self._ports: dict[int, _Port] = {}
        self._operations: dict[int, Callable[[GuestArguments, int, int], None]] = {
            layouts.EVENT_CHANNEL_OP_CLOSE: self._close,
            layouts.EVENT_CHANNEL_OP_SEND: self._send,
            layouts.EVENT_CHANNEL_OP_STATUS: self._status,
            layouts.EVENT_CHANNEL_OP_ALLOC_UNBOUND: self._alloc_unbound,
            layouts.EVENT_CHANNEL_OP_BIND_IPI: self._bind_ipi,
            layouts.EVENT_CHANNEL_OP_BIND_VCPU: self._bind_vcpu,
            layouts.EVENT_CHANNEL_OP_UNMASK: self._unmask,
        }

    def open(self, remote: int, notify: Callable[[], object]) -> int:
        """A port between the guest and somebody in domain ``remote``, who is told of each send.

        HypercallError: ENOSPC.
        """
        with self._domain.lock:
            return self._add(remote, layouts.EVENT_CHANNEL_STATUS_INTERDOMAIN, 0, notify)

    def raise_port(self, port: int) -> None:
        """An event for the guest; nothing happens when it has closed the port."""
        with self._domain.changed:
            own = self._find(port)
            if own is not None:
                self._shared.set_pending(port, own.vcpu)
                self._domain.changed.notify_all()

    def perform(self, arguments: GuestArguments, operation: int, at: int, vcpu: int) -> None:
        """EVENT_CHANNEL_OP with its argument at ``at``. HypercallError."""
        perform = self._operations.get(operation)
        if perform is None:
            raise HypercallError(ENOSYS, f"EVTCHNOP {operation}")
        perform(arguments, at, vcpu)

    def poll(self, arguments: GuestArguments, at: int) -> None:
        """SCHEDOP_poll: wait until one of the ports is pending, a time has come, or for nothing."""
        ports_at, number, deadline = arguments.read(POLL[arguments.wide], at)
        if number > MOST_POLLED:
            raise HypercallError(EINVAL, f"a poll of {number} ports")
        ports = [arguments.read(PORT, ports_at + PORT.size * index)[0] for index in range(number)]
        domain = self._domain
        with domain.changed:
            for port in ports:
                if domain.event_channels.get(port) is None:
                    raise HypercallError(EINVAL, f"port {port} is not in use")
            if any(self._shared.is_pending(port) for port in ports):
                return
            wait = SLICE
            if deadline:
                wait = min(wait, (deadline - domain.clock.now()) / 1e9)
            if wait > 0 and not isinstance(domain.clock, VirtualClock):
                domain.changed.wait(wait)

    def forget(self) -> None:
        """The domain's own ports were closed: nobody hears of them any more."""
        self._ports.clear()

    def _add(self, remote: int, status: int, vcpu: int, notify: Callable[[], object] | None) -> int:
        channel = self._domain.event_channels.allocate(None, remote)
        self._ports[channel.port] = _Port(channel, status, vcpu, notify)
        self._shared.clear(channel.port)
        return channel.port

    def _find(self, port: int) -> _Port | None:
        own = self._ports.get(port)
        if own is None or self._domain.event_channels.get(port) is not own.channel:
            return None
        return own

    def _own(self, port: int) -> _Port:
        own = self._find(port)
        if own is None:
            raise HypercallError(EINVAL, f"port {port} is not the guest's")
        return own

    def _check_vcpu(self, vcpu: int) -> None:
        if self._domain.find_vcpu(vcpu) is None:
            raise HypercallError(ENOENT, f"there is no vCPU {vcpu}")

    def _close(self, arguments: GuestArguments, at: int, vcpu: int) -> None:
        (port,) = arguments.read(PORT, at)
        with self._domain.lock:
            self._domain.event_channels.guest_close(port)
            self._ports.pop(port, None)
            self._shared.clear(port)

    def _send(self, arguments: GuestArguments, at: int, vcpu: int) -> None:
        (port,) = arguments.read(PORT, at)
        with self._domain.lock:
            own = self._own(port)
        if own.notify is not None:
            own.notify()
        elif own.status == layouts.EVENT_CHANNEL_STATUS_IPI:
            self.raise_port(port)

    def _status(self, arguments: GuestArguments, at: int, vcpu: int) -> None:
        values = list(arguments.read(STATUS, at))
        self._check_self(values[0])
        port = values[1]
        with self._domain.lock:
            own = self._find(port)
            channel = self._domain.event_channels.get(port)
        if own is not None:
            values[2], values[3] = own.status, own.vcpu
        elif channel is not None and channel.vcpu is not None:
            values[2], values[3] = layouts.EVENT_CHANNEL_STATUS_INTERDOMAIN, channel.vcpu.id
        else:
            values[2] = layouts.EVENT_CHANNEL_STATUS_CLOSED
        arguments.write(STATUS, at, *values)

    def _alloc_unbound(self, arguments: GuestArguments, at: int, vcpu: int) -> None:
        domid, remote, _ = arguments.read(ALLOC_UNBOUND, at)
        self._check_self(domid)
        with self._domain.lock:
            port = self._add(remote, layouts.EVENT_CHANNEL_STATUS_UNBOUND, 0, None)
        arguments.write(ALLOC_UNBOUND, at, domid, remote, port)

    def _bind_ipi(self, arguments: GuestArguments, at: int, vcpu: int) -> None:
        target, _ = arguments.read(BIND_IPI, at)
        self._check_vcpu(target)
        with self._domain.lock:
            port = self._add(self._domain.domid, layouts.EVENT_CHANNEL_STATUS_IPI, target, None)
        arguments.write(BIND_IPI, at, target, port)

    def _bind_vcpu(self, arguments: GuestArguments, at: int, vcpu: int) -> None:
        port, target = arguments.read(BIND_VCPU, at)
        self._check_vcpu(target)
        with self._domain.lock:
            own = self._own(port)
            if own.status == layouts.EVENT_CHANNEL_STATUS_IPI:
                raise HypercallError(EINVAL, f"port {port} is of its vCPU for good")
            self._ports[port] = own._replace(vcpu=target)

    def _unmask(self, arguments: GuestArguments, at: int, vcpu: int) -> None:
        (port,) = arguments.read(PORT, at)
        with self._domain.changed:
            self._shared.unmask(port, self._own(port).vcpu)
            self._domain.changed.notify_all()

    def _check_self(self, domid: int) -> None:
        if domid in (layouts.DOMID_SELF, self._domain.domid):
            return
        if domid == 0:
            raise HypercallError(EPERM, "a guest has no power over domain 0")
        raise HypercallError(ESRCH, f"domain {domid} is not the caller's")
