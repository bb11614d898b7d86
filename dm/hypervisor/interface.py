"""What an emulator gets from the other side: an ioreq server, event channels, memory, a store.

`dm.hypervisor.xen` implements this on Xen's libraries, `dm.hypervisor.local` on the socket of the
stand-alone hypervisor. Every method raises HostError, which names the call, the domain and the
cause, unless it says otherwise.
"""

from __future__ import annotations

from select import EPOLLIN

from dm.device.platform import Platform
from protocol import layouts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from dm.device.platform import GuestMemory

    class Listener(Protocol):
        """What a hypervisor needs of the process's event loop."""

        def add(self, fd: int, events: int, callback: Callable[[int], object]) -> None: ...
        def modify(self, fd: int, events: int) -> None: ...
        def remove(self, fd: int) -> None: ...
        def now(self) -> int: ...
        def call_at(self, deadline: int, callback: Callable[[], object]) -> object: ...


__all__ = ["SHUTDOWN_REASONS", "Hypervisor", "ServerPages", "Store", "VirtualClock"]

SHUTDOWN_REASONS = {
    "poweroff": layouts.SHUTDOWN_REASON_POWEROFF,
    "reboot": layouts.SHUTDOWN_REASON_REBOOT,
    "suspend": layouts.SHUTDOWN_REASON_SUSPEND,
    "crash": layouts.SHUTDOWN_REASON_CRASH,
    "watchdog": layouts.SHUTDOWN_REASON_WATCHDOG,
}
"""The words of `Platform.shutdown` as the SHUTDOWN_* numbers of public/sched.h."""
S0, S3 = 0, 3
"""ACPI sleep states."""


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


class VirtualClock:
    """Time that the other side moves, and only while it asks what is due."""

    fd: int
    """Readable when there is a question."""

    def now(self) -> int:
        """The time in nanoseconds."""
        raise NotImplementedError

    def question(self) -> int | None:
        """The question that waits for its answer, by number; None when there is none."""
        raise NotImplementedError

    def answer(self, question: int, deadline: int | None) -> None:
        """All that was due is done, and ``deadline`` (nanoseconds, or none) comes next."""
        raise NotImplementedError


class Hypervisor(Platform):
    """One domain, as an emulator sees it. ``domid``: the domain; ``memory``: its RAM."""

    domid: int
    memory: GuestMemory
    clock: VirtualClock | None = None
    """The domain's time where the other side moves it; None: it is the host's monotonic clock."""
    on_reset: Callable[[], object] | None = None
    """Called when a reboot reset the platform in place; most platforms end the domain instead."""

    @property
    def gone(self) -> bool:
        """Whether the domain is known to exist no more; nothing of it waits then."""
        return False

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
    """Readable when `events` has something to give."""

    masks = True
    """Whether a vCPU's port, once announced, is quiet until `unmask`; the ring's always is."""

    def announce_to(self, listener: Listener, announce: Callable[[Sequence[int]], object]) -> None:
        """Have ``listener`` call ``announce`` with what `events` gives, whenever it gives some."""
        listener.add(self.event_fd, EPOLLIN, lambda _: announce(self.events()))

    def events(self) -> Sequence[int]:
        """The local ports that are pending now, without waiting; they stay masked until `unmask`.

        A port may be announced although nothing came since it was announced last.
        """
        raise NotImplementedError

    def unmask(self, ports: Sequence[int]) -> None:
        """Let local ports be announced again; what came while they were masked is announced."""
        raise NotImplementedError

    def notify(self, port: int) -> None:
        """Signal the event channel behind a local port."""
        raise NotImplementedError

    suspended: bool = False
    """Whether the domain sleeps in ACPI S3."""

    def suspend(self) -> None:
        """See `Platform.suspend`."""
        self.set_sleep_state(S3)
        self.suspended = True

    def wake(self) -> None:
        """Let a domain that sleeps go on, at its firmware's reset vector."""
        self.set_sleep_state(S0)
        self.suspended = False

    def set_sleep_state(self, state: int) -> None:
        """Set HVM_PARAM_ACPI_S_STATE, as QEMU does, to 0 or 3."""
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

    def attend(self, listener: Listener, ended: Callable[[], object]) -> None:
        """Listen to what the other side says unasked; call ``ended`` when the domain is gone.

        Nothing happens where the toolstack ends the emulator with its domain. The end of the other
        side itself is a HostError out of the listener's callback.
        """

    def close(self) -> None:
        """Give everything back but the ioreq servers themselves."""
