"""The ioreq servers of one domain: which exist, who may drive them, and who gets an access.

Facts: xen/common/ioreq.c (ioreq_server_create, _select, _destroy); for the default server and its
place, xen/arch/x86/hvm/hvm.c of Xen 4.5 to 4.11 (hvm_create_ioreq_server, hvm_set_dm_domain).
"""

from __future__ import annotations

from collections.abc import Iterator
from errno import EINVAL, ENOENT, ENOMEM, ENOSPC, EPERM
from typing import TYPE_CHECKING

from protocol import layouts

from .errors import HypercallError
from .ioreq_server import IoreqServer
from .memory import PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from .domain import Domain
    from .vcpu import Vcpu

__all__ = ["IoreqServers"]

CACHE_LIMIT = 4096
"""Remembered selections; a guest that touches more addresses starts over."""


class IoreqServers:
    """All servers of a domain. The domain's lock guards it.

    ``default``: the original design's default server, once it exists.
    """

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._table: list[IoreqServer | None] = [None] * layouts.IOREQ_SERVER_MAX
        self._selected: dict[tuple[int, int, int], IoreqServer | None] = {}
        self.default: IoreqServer | None = None

    def __iter__(self) -> Iterator[IoreqServer]:
        """All servers, the highest id first, the default one last."""
        yield from [one for one in reversed(self._table) if one is not None]
        if self.default is not None:
            yield self.default

    def changed(self) -> None:
        """Ranges or states changed: what was selected before may be wrong."""
        self._selected.clear()

    def create(self, emulator: int, mode: int) -> IoreqServer:
        """Create a server under the lowest free id. HypercallError: EINVAL mode, ENOSPC, ports."""
        if mode > layouts.BUFIOREQ_MODE_ATOMIC:
            raise HypercallError(EINVAL, f"there is no buffered mode {mode}")
        if None not in self._table:
            raise HypercallError(ENOSPC, f"the domain has {len(self._table)} ioreq servers")
        number = self._table.index(None)
        server = IoreqServer(self._domain, number, emulator, mode)
        self._add_vcpus(server)
        self._table[number] = server
        return server

    def create_default(self, emulator: int) -> IoreqServer:
        """The default server, created at the first call: ring in legacy mode, enabled at once.

        Its pages are those of the guest that the parameters IOREQ_PFN and BUFIOREQ_PFN name.
        HypercallError, EINVAL: they are not RAM.
        """
        if self.default is not None:
            return self.default
        domain = self._domain
        mode = layouts.BUFIOREQ_MODE_LEGACY
        server = IoreqServer(domain, -1, emulator, mode, default=True)
        server.gfns = [
            domain.params.peek(layouts.HVM_PARAM_IOREQ_PFN),
            domain.params.peek(layouts.HVM_PARAM_BUFIOREQ_PFN),
        ]
        self._use_guest_pages(server)
        self._add_vcpus(server)
        self.default = server
        server.enable()
        self.changed()
        return server

    def _add_vcpus(self, server: IoreqServer) -> None:
        try:
            for vcpu in self._domain.vcpus:
                server.add_vcpu(vcpu)
        except HypercallError:
            self._free_ports(server)
            raise

    def _free_ports(self, server: IoreqServer) -> None:
        for vcpu in self._domain.vcpus:
            server.remove_vcpu(vcpu)

    def _use_guest_pages(self, server: IoreqServer) -> None:
        """Let the server's pages be those of the guest at ``gfns``: synchronous page, ring."""
        memory = self._domain.memory
        try:
            views = [memory.view(gfn << PAGE_SHIFT, PAGE_SIZE) for gfn in server.gfns]
        except LookupError as error:
            server.gfns = []
            raise HypercallError(EINVAL, str(error)) from None
        server.set_pages(views[0], views[1] if len(views) > 1 else None)

    def map_guest_pages(self, server: IoreqServer) -> None:
        """The GFN flavour: give the server pages of the guest's pool, once.

        HypercallError: EPERM after the other flavour, EINVAL a domain that dies, ENOMEM an empty
        pool.
        """
        if server.gfns:
            return
        if server.page is not None:
            raise HypercallError(EPERM, f"server {server.id} has acquired its pages")
        if not self._domain.alive:
            raise HypercallError(EINVAL, "the domain is dying")
        params = self._domain.params
        base = params.peek(layouts.HVM_PARAM_IOREQ_SERVER_PFN)
        pool = range(base, base + params.peek(layouts.HVM_PARAM_NR_IOREQ_SERVER_PAGES))
        used = {gfn for one in self for gfn in one.gfns}
        free = [gfn for gfn in pool if gfn not in used]
        need = 2 if server.has_ring else 1
        if len(free) < need:
            raise HypercallError(ENOMEM, "no page of the pool is free")
        server.gfns = free[:need]
        self._use_guest_pages(server)

    def get(self, number: int, emulator: int) -> IoreqServer:
        """A server by its id. HypercallError: ENOENT no such server, EPERM another domain's."""
        server = self._table[number] if number < len(self._table) else None
        if server is None:
            raise HypercallError(ENOENT, f"there is no ioreq server {number}")
        if server.emulator != emulator:
            raise HypercallError(EPERM, f"ioreq server {number} is domain {server.emulator}'s")
        return server

    def destroy(self, server: IoreqServer) -> None:
        """Take a server away, outstanding requests and all.

        Its ranges, pages and ports are gone and the id is free. A vCPU that waits for it sleeps on
        until something else wakes it: for ever, unless another emulator signals one of its ports.
        """
        for number in sorted(server.pending):
            self._domain.punishments.append(
                f"vCPU {number} never wakes: ioreq server {server.id} was destroyed while it waited"
            )
        server.disable()
        self._free_ports(server)
        self._table[server.id] = None
        self.changed()

    def destroy_all(self) -> None:
        """The domain is destroyed: nobody waits any more."""
        for server in self:
            server.enabled = False
            self._free_ports(server)
        self._table = [None] * len(self._table)
        self.default = None
        self.changed()

    def add_vcpu(self, vcpu: Vcpu) -> None:
        """A vCPU came: every server gives it a port, or none does (HypercallError)."""
        try:
            for server in self:
                server.add_vcpu(vcpu)
        except HypercallError:
            self.remove_vcpu(vcpu)
            raise

    def remove_vcpu(self, vcpu: Vcpu) -> None:
        """A vCPU goes."""
        for server in self:
            server.remove_vcpu(vcpu)

    def select(self, space: int, first: int, last: int) -> IoreqServer | None:
        """Who gets an access to ``first`` to ``last``: the enabled server with the highest id that
        has all of it in one range. The default server is not considered."""
        key = (space, first, last)
        try:
            return self._selected[key]
        except KeyError:
            pass
        found = None
        for server in reversed(self._table):
            if server is not None and server.enabled and server.ranges[space].contains(first, last):
                found = server
                break
        if len(self._selected) >= CACHE_LIMIT:
            self._selected.clear()
        self._selected[key] = found
        return found
