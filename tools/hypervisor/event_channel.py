"""A domain's event channels: ports, who may bind them, and the two eventfds of a bound one.

Between Xen and an emulator: a port per ioreq server and vCPU, one per ring. A notification by the
emulator wakes the vCPU that the port belongs to, whatever that vCPU waits for; so all ports of one
vCPU share the eventfd that the emulator raises. Facts: xen/common/event_channel.c
(alloc_unbound_xen_event_channel, evtchn_bind_interdomain, evtchn_reset).
"""

from __future__ import annotations

from errno import EINVAL, ENOSPC
from typing import TYPE_CHECKING

from .errors import HypercallError
from .shared_files import SharedEvent

if TYPE_CHECKING:
    from .vcpu import Vcpu

__all__ = ["Channel", "EventChannels"]

PORT_LIMIT = 4096
"""Ports of a domain with the two-level ABI; 0 is never used."""


class Channel:
    """One port. ``vcpu``: who is woken, None for the guest's own; ``remote``: which domain may bind
    it; ``owner``: who has bound it, None while unbound; ``event``: what its owner waits for."""

    __slots__ = ("event", "owner", "port", "remote", "vcpu")

    def __init__(self, port: int, vcpu: Vcpu | None, remote: int) -> None:
        self.port = port
        self.vcpu = vcpu
        self.remote = remote
        self.owner: object | None = None
        self.event: SharedEvent | None = None

    @property
    def fd(self) -> int:
        """The descriptor of the owner's end; -1 while unbound."""
        return -1 if self.event is None else self.event.fd

    def notify(self) -> None:
        """Raise the emulator's end; an unbound port loses it, which binding makes good."""
        if self.event is not None:
            self.event.raise_it()

    def close(self) -> None:
        """Take the port from its owner."""
        self.owner = None
        if self.event is not None:
            self.event.close()
            self.event = None


class EventChannels:
    """The ports of one domain. The domain's lock guards all of it."""

    def __init__(self) -> None:
        self._channels: dict[int, Channel] = {}

    def get(self, port: int) -> Channel | None:
        """The channel at ``port``."""
        return self._channels.get(port)

    @property
    def ports(self) -> list[int]:
        """The ports that are in use."""
        return sorted(self._channels)

    def allocate(self, vcpu: Vcpu | None, remote: int) -> Channel:
        """An unbound port, the lowest free one. HypercallError: ENOSPC.

        With a vCPU it is Xen-attached: the guest can neither close nor signal it.
        """
        for port in range(1, PORT_LIMIT):
            if port not in self._channels:
                channel = self._channels[port] = Channel(port, vcpu, remote)
                return channel
        raise HypercallError(ENOSPC, "no event channel is free")

    def free(self, channel: Channel) -> None:
        """Xen gives up a port of its own."""
        channel.close()
        self._channels.pop(channel.port, None)

    def bind(self, port: int, remote: int, owner: object) -> Channel:
        """Bind a Xen-attached port for an emulator in domain ``remote``; it is raised once at once.

        HypercallError, EINVAL: no such port, bound already, or meant for another domain. OSError:
        no descriptor is left.
        """
        channel = self._channels.get(port)
        if (
            channel is None
            or channel.vcpu is None
            or channel.owner is not None
            or channel.remote != remote
        ):
            raise HypercallError(EINVAL, f"port {port} cannot be bound")
        channel.event = SharedEvent(1)
        channel.owner = owner
        return channel

    def unbind_all(self, owner: object) -> None:
        """An emulator is gone: its ports can be bound again by another one of its domain."""
        for channel in self._channels.values():
            if channel.owner is owner:
                channel.close()

    def guest_close(self, port: int) -> None:
        """EVTCHNOP_close by the guest. HypercallError, EINVAL: not a port of its own."""
        channel = self._channels.get(port)
        if channel is None or channel.vcpu is not None:
            raise HypercallError(EINVAL, f"port {port} is not the guest's")
        self.free(channel)

    def reset(self) -> None:
        """EVTCHNOP_reset: every port of the guest's own is closed, Xen-attached ones stay."""
        for channel in [one for one in self._channels.values() if one.vcpu is None]:
            self.free(channel)
