"""A domain: what belongs to one guest, and how it runs, pauses, shuts down, crashes and goes on.

Facts: xen/common/domain.c (domain_shutdown, vcpu_start_shutdown_deferral, domain_resume,
domain_soft_reset), xen/common/sched/core.c; what a soft reset leaves alone is the list in
xen/arch/x86/domain.c (arch_domain_soft_reset).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from errno import EINVAL, ENOSPC
from typing import TYPE_CHECKING, Literal

from protocol import layouts

from .clock import Clock, RealClock
from .errors import HypercallError
from .event_channel import EventChannels
from .intercepts import Intercepts
from .interrupts import Interrupts
from .ioreq_servers import IoreqServers
from .memory import DirtyLog, GuestMemory
from .params import Params
from .stepping import step
from .vcpu import Vcpu

if TYPE_CHECKING:
    from .connection import Connection
    from .hypercalls import Hypercalls
    from .images.cpu_start import CpuStart

__all__ = ["BUFIOREQ_GFN", "CONTROL_DOMAIN", "IOREQ_GFN", "POOL_GFN", "Domain"]

CONTROL_DOMAIN = 0
"""The domain that every emulator is in, unless it says otherwise."""
POOL_GFN = 0xFEFF0
POOL_PAGES = 8
IOREQ_GFN = 0xFEFFD
BUFIOREQ_GFN = 0xFEFFB
"""Where a toolstack puts the pages of ioreq servers (tools/libs/guest/xg_dom_x86.c)."""
SPECIAL_PAGES = 16
RESUMABLE = (layouts.SHUTDOWN_REASON_SUSPEND, layouts.SHUTDOWN_REASON_SOFT_RESET)
"""Shutdowns from which the vCPUs go on; after all others their threads end."""


class Domain:
    """One guest.

    ``vcpus``: how many there are, those from ``online`` on waiting to be brought up; ``ram``:
    (guest-physical address, bytes) of whole pages; ``max_vcpus``: how many there may be. With
    ``default_server`` the original design's default ioreq server can be had through the HVM
    parameters; else they refuse it as today's Xen does.

    ``lock`` guards everything but the contents of memory. ``punishments``: what real Xen would
    have answered with a vCPU that never wakes. ``on_shutdown``: called, without the lock, when a
    shutdown or crash is complete; after one that a handler of the hypervisor's own or a timer
    began, once that has returned (``intercepting``).
    """

    def __init__(
        self,
        domid: int,
        *,
        vcpus: int,
        ram: Iterable[tuple[int, int]],
        max_vcpus: int | None = None,
        online: int | None = None,
        clock: Clock | None = None,
        default_server: bool = False,
    ) -> None:
        self.domid = domid
        self.max_vcpus = vcpus if max_vcpus is None else max_vcpus
        if not 1 <= vcpus <= self.max_vcpus <= layouts.IOREQ_SLOT_COUNT:
            raise ValueError(f"a domain cannot have {vcpus} of {self.max_vcpus} vCPUs")
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        special = [(POOL_GFN << 12, SPECIAL_PAGES << 12)] if default_server else []
        self.memory = GuestMemory([*ram, *special])
        self.dirty = DirtyLog(self.memory)
        self.event_channels = EventChannels()
        self.intercepts = Intercepts()
        self.interrupts = Interrupts()
        self.clock: Clock = RealClock() if clock is None else clock
        self.servers = IoreqServers(self)
        self.params = Params(self, default_server=default_server)
        if default_server:
            self.params.set(layouts.HVM_PARAM_IOREQ_PFN, IOREQ_GFN)
            self.params.set(layouts.HVM_PARAM_BUFIOREQ_PFN, BUFIOREQ_GFN)
            self.params.set(layouts.HVM_PARAM_IOREQ_SERVER_PFN, POOL_GFN)
            self.params.set(layouts.HVM_PARAM_NR_IOREQ_SERVER_PAGES, POOL_PAGES)
        self.hypercalls: Hypercalls | None = None
        self.pinned: list[tuple[int, int, int]] = []
        self.pci_cf8 = 0
        self.connections: list[Connection] = []
        self.privileged = {CONTROL_DOMAIN}
        self.punishments: list[str] = []
        self.on_shutdown: list[Callable[[Domain], object]] = []
        self.on_reboot: Callable[[], object] | None = None
        """What a reboot does instead of ending the domain, on a platform that resets in place."""
        self.on_vcpu: Callable[[int, CpuStart | None, bool], object] | None = None
        """How an engine has a vCPU brought up (True) or down by hypercall; with how it begins, the
        first time. None: it cannot."""
        self.state: Literal["running", "shutting-down", "shutdown", "crashed"] = "running"
        self.shutdown_reason: int | None = None
        self.crash_message: str | None = None
        self.alive = True
        self.over = False
        self.shutting_down = False
        self.outstanding = 0
        self.intercepting = False
        self.suspended = False
        self._pauses = 0
        self._announcement_due = False
        up = vcpus if online is None else online
        self.vcpus = [Vcpu(self, number, online=number < up) for number in range(vcpus)]

    @property
    def held(self) -> bool:
        """Whether vCPUs must not go on now."""
        return self._pauses > 0 or self.state != "running"

    def shutdown(self, reason: int) -> None:
        """Begin a shutdown; ``reason``: a SHUTDOWN_REASON_* value, of which the first wins.

        vCPUs whose request is outstanding get their answer first; only then is the shutdown
        complete. A crash does not wait.
        """
        if reason == layouts.SHUTDOWN_REASON_REBOOT and self.on_reboot is not None:
            self.on_reboot()
            return
        with self.lock:
            if self.shutdown_reason is None:
                self.shutdown_reason = reason & 0xFF
            if self.state == "running":
                self.state = "shutting-down"
                self.shutting_down = True
                for vcpu in self.vcpus:
                    vcpu.kick()
                self.finish_shutdown()
        if not self.intercepting:
            self.announce()

    def crash(self, message: str, *, locked: bool = False) -> None:
        """End the domain at once; the first ``message`` is kept.

        ``locked``: the caller holds the lock, and calls `announce` when it has let it go.
        """
        with self.lock:
            if self.over:
                return
            self.crash_message = message
            if self.shutdown_reason is None:
                self.shutdown_reason = layouts.SHUTDOWN_REASON_CRASH
            self._complete("crashed")
        if not self.intercepting and not locked:
            self.announce()

    def finish_shutdown(self) -> None:
        """Complete a shutdown that no vCPU defers any more. Called under the lock."""
        if not self.shutting_down:
            return
        if self.shutdown_reason == layouts.SHUTDOWN_REASON_CRASH:
            self._complete("crashed")
        elif not self.outstanding:
            self._complete("shutdown")

    def _complete(self, state: Literal["shutdown", "crashed"]) -> None:
        self.state = state
        self.shutting_down = False
        self.over = state == "crashed" or self.shutdown_reason not in RESUMABLE
        self._announcement_due = True
        for vcpu in self.vcpus:
            vcpu.kick()
            if self.over:
                vcpu.wake()
        self.changed.notify_all()

    def announce(self) -> None:
        """Call ``on_shutdown`` if a shutdown was completed meanwhile. Called without the lock."""
        if not self._announcement_due:
            return
        with self.lock:
            due, self._announcement_due = self._announcement_due, False
            told = list(self.on_shutdown) if due else []
        for tell in told:
            tell(self)

    def resume(self) -> None:
        """Let a domain that was shut down to suspend or for a soft reset go on.

        HypercallError, EINVAL: it is not in such a state.
        """
        with self.changed:
            if self.state != "shutdown" or self.over:
                raise HypercallError(EINVAL, f"a domain in state {self.state} cannot resume")
            self.state = "running"
            self.shutdown_reason = None
            self.changed.notify_all()

    def soft_reset(self) -> None:
        """XEN_DOMCTL_soft_reset: the guest's own event channels are closed, the page that it shares
        with Xen and its grant table leave its memory, then it goes on.

        Untouched: ioreq servers, their pages, ranges and Xen-attached ports, HVM parameters,
        memory, interrupt lines, controllers, vCPUs. HypercallError, EINVAL: not every vCPU is
        paused for a shutdown.
        """
        with self.lock:
            if self.state != "shutdown" or self.over:
                raise HypercallError(EINVAL, f"no soft reset of a domain in state {self.state}")
            self.event_channels.reset()
            if self.hypercalls is not None:
                self.hypercalls.reset()
            self.resume()

    def pause(self) -> None:
        """Hold every vCPU; as many calls of `unpause` let them go on."""
        with self.lock:
            self._pauses += 1
            for vcpu in self.vcpus:
                vcpu.kick()

    def unpause(self) -> None:
        """Undo one `pause`. HypercallError, EINVAL: there is none."""
        with self.changed:
            if not self._pauses:
                raise HypercallError(EINVAL, "the domain is not paused")
            self._pauses -= 1
            self.changed.notify_all()

    def wait_parked(self, timeout: float) -> bool:
        """Wait until no vCPU of a held domain touches the guest.

        False: some still did after ``timeout`` seconds.
        """
        with self.changed:
            return self.changed.wait_for(lambda: all(one.parked for one in self.vcpus), timeout)

    def set_suspended(self, *, suspended: bool) -> None:
        """HVM_PARAM_ACPI_S_STATE: hold the guest in S3, or let it go on.

        What S3 does to the vCPUs (their reset) is the engine's, which sees ``suspended``.
        """
        with self.lock:
            if suspended == self.suspended:
                return
            self.suspended = suspended
            if suspended:
                self.pause()
            else:
                self.unpause()

    def add_vcpu(self) -> Vcpu:
        """One more vCPU with the lowest free id; every ioreq server gives it a port.

        HypercallError, ENOSPC: ``max_vcpus`` are there, or no port is free.
        """
        with self.lock:
            used = {vcpu.id for vcpu in self.vcpus}
            free = [number for number in range(self.max_vcpus) if number not in used]
            if not free:
                raise HypercallError(ENOSPC, f"the domain has {self.max_vcpus} vCPUs")
            vcpu = Vcpu(self, free[0])
            self.servers.add_vcpu(vcpu)
            self.vcpus.append(vcpu)
            self.vcpus.sort(key=lambda one: one.id)
            if self.held:
                vcpu.kick()
            return vcpu

    def remove_vcpu(self, number: int) -> None:
        """Take a vCPU away; its thread gets DomainEnded. HypercallError, EINVAL: no such vCPU."""
        with self.lock:
            found = [vcpu for vcpu in self.vcpus if vcpu.id == number]
            if not found:
                raise HypercallError(EINVAL, f"there is no vCPU {number}")
            self.servers.remove_vcpu(found[0])
            self.vcpus.remove(found[0])
            found[0].stop()

    def find_vcpu(self, number: int) -> Vcpu | None:
        """The vCPU with the id ``number``."""
        with self.lock:
            return next((vcpu for vcpu in self.vcpus if vcpu.id == number), None)

    def invalidate(self) -> None:
        """Pages of the guest are gone: every vCPU asks all emulators to drop their mappings."""
        with self.lock:
            for vcpu in self.vcpus:
                vcpu.ask_invalidate()

    def time_offset(self, seconds: int) -> bool:
        """The guest has set its clock by ``seconds``: tell every enabled server that has a ring.

        A change by 0 is not sent. False: some ring had no room, which is all that happens then.
        """
        if not seconds:
            return True
        data = seconds & ((1 << 64) - 1)
        with self.lock:
            sent = [
                server.send_buffered(layouts.IOREQ_TYPE_TIMEOFFSET, 0, data, 8, 0)
                for server in self.servers
                if server.enabled and server.has_ring
            ]
        return all(sent)

    def run_due(self) -> None:
        """Run what the clock has due."""
        with self.lock:
            if self.alive:
                with self.announcing_later():
                    self.clock.run_due()
        self.announce()

    @contextmanager
    def announcing_later(self) -> Iterator[None]:
        """For calls out under the lock, which may end the domain: `announce` is to be called after
        it."""
        before, self.intercepting = self.intercepting, True
        try:
            yield
        finally:
            self.intercepting = before

    def step_clock(self, length: int | None) -> int:
        """Let virtual time pass; see `stepping.step`."""
        return step(self, length)

    def destroy(self) -> None:
        """The domain is gone: its vCPU threads end, its servers and ports are freed."""
        with self.changed:
            self.alive = False
            self.over = True
            self.servers.destroy_all()
            self.event_channels.reset()
            for vcpu in self.vcpus:
                vcpu.stop()
