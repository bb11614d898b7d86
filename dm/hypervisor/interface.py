"""What an emulator gets from the other side: an ioreq server, event channels, memory, a store.

`dm.hypervisor.xen` implements this on Xen's libraries. Every method raises HostError, which names
the call, the domain and the cause, unless it says otherwise.
"""

from __future__ import annotations

from dm.device.platform import Platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from dm.device.platform import GuestMemory

__all__ = ["Hypervisor", "ServerPages", "Store"]


class ServerPages:
    """The two pages of an ioreq server, mapped.

    ``synchronous``: the page of per-vCPU slots (protocol/ioreq.py). ``buffered``: the ring's page,
    or None when the server was created without one.
    """

    __slots__ = ("buffered", "synchronous")

    def __init__(self, synchronous: memoryview[int], buffered: memoryview[int] | None) -> None:
        self.synchronous = synchronous
        self.buffered = buffered


class Store:
    """A small part of xenstore."""

    def read(self, path: str) -> str | None:
        """The value at ``path``; None when there is no such node."""
        raise NotImplementedError

    def write(self, path: str, value: str) -> None:
        """Set the value at ``path``, making the nodes on the way."""
        raise NotImplementedError

    def remove(self, path: str) -> None:
        """Remove ``path`` and all below it; nothing happens when it does not exist."""
        raise NotImplementedError

    def close(self) -> None:
        """Give the connection up."""


class Hypervisor(Platform):
    """One domain, as an emulator sees it. ``domid``: the domain; ``memory``: its RAM."""

    domid: int
    memory: GuestMemory

    def vcpu_count(self) -> int:
        """How many vCPUs the domain can have; each has a slot and an event channel."""
        raise NotImplementedError

    def cpu_count(self) -> int:
        """How many physical CPUs the emulator and the domain share."""
        raise NotImplementedError

    def yield_cpu(self) -> bool:
        """Let others, the domain above all, have this physical CPU; False: that is not possible."""
        return False

    def create_server(self) -> int:
        """Create an ioreq server with a buffered ring in legacy mode; gives its id."""
        raise NotImplementedError

    def exclusive(self) -> Callable[[], None]:
        """Keep other emulators of this project from taking servers; call the result to end it.

        Between the creation of a server and the binding of its ports it looks like a dead one's.
        """
        raise NotImplementedError

    def run_file(self, suffix: str) -> str | None:
        """The path of a file of this domain that does not outlive the host; None: there is none.

        Files that emulators of vanished domains left are removed on the way.
        """
        raise NotImplementedError

    def server_ids(self) -> list[int]:
        """The ids of the domain's ioreq servers that this emulator's domain created."""
        raise NotImplementedError

    def use_server(self, server: int) -> None:
        """Say which server `claim` and `release` speak of."""
        raise NotImplementedError

    def map_server(self, server: int) -> ServerPages:
        """Map the server's pages; must come before `enable_server`."""
        raise NotImplementedError

    def unmap_server(self, server: int) -> None:
        """Unmap the server's pages; views of them must not be used any more."""
        raise NotImplementedError

    def buffered_port(self, server: int) -> int:
        """The domain's event channel that announces buffered requests; 0 when there is none."""
        raise NotImplementedError

    def enable_server(self, server: int, *, enabled: bool) -> None:
        """Let requests reach the server, or not."""
        raise NotImplementedError

    def destroy_server(self, server: int) -> None:
        """Destroy the server; no request may be outstanding (the vCPU would never wake)."""
        raise NotImplementedError

    def bind(self, remote_port: int) -> int:
        """Bind the domain's event channel ``remote_port``; gives the local port."""
        raise NotImplementedError

    def unbind(self, port: int) -> None:
        """Unbind a local port."""
        raise NotImplementedError

    event_fd: int
    """Readable when an event channel is pending. Reading gives 32-bit local ports, which stay
    masked until they are written back (Linux, drivers/xen/evtchn.c)."""

    def notify(self, port: int) -> None:
        """Signal the event channel behind a local port."""
        raise NotImplementedError

    suspended: bool = False
    """Whether the domain sleeps in ACPI S3."""

    def wake(self) -> None:
        """Let a domain that sleeps go on, at its firmware's reset vector."""
        raise NotImplementedError

    def set_dirty_log(self, *, enabled: bool) -> None:
        """Report (or stop to report) pages that the emulator writes to the domain's dirty log."""
        raise NotImplementedError

    def restrict(self) -> None:
        """Give up every power over other domains, for good."""
        raise NotImplementedError

    def store(self) -> Store:
        """Connect to xenstore."""
        raise NotImplementedError

    def close(self) -> None:
        """Give everything back but the ioreq servers themselves."""
