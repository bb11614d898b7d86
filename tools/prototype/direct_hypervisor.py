"""A domain of this very process as a device model sees it: calls in place of messages."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dm.device.platform import MEMORY, PCI, PCI_SHIFT, PORT, GuestMemory
from dm.errors import GuestError, HostError
from dm.hypervisor.interface import SHUTDOWN_REASONS, Hypervisor, ServerPages, Store
from dm.machine.ranges import subtract, union
from protocol import layouts
from tools.hypervisor.errors import HypercallError, NotRamError
from tools.hypervisor.store import HOME, StoreError

if TYPE_CHECKING:
    from tools.hypervisor.domain import Domain
    from tools.hypervisor.store import Store as HypervisorStore

__all__ = ["DirectHypervisor"]

PAGE_SHIFT = 12
MOST_KNOWN = 65536
"""Places of accesses for which it is remembered whether they are claimed."""


class DirectMemory(GuestMemory):
    """The domain's RAM as a device sees it."""

    def __init__(self, domain: Domain) -> None:
        self._memory = domain.memory

    def read(self, gpa: int, length: int) -> bytes:
        """See `GuestMemory.read`."""
        try:
            return self._memory.read(gpa, length)
        except NotRamError:
            raise self._hole(gpa) from None

    def write(self, gpa: int, data: bytes | bytearray | memoryview[int]) -> None:
        """See `GuestMemory.write`."""
        try:
            self._memory.write(gpa, data)
        except NotRamError:
            raise self._hole(gpa) from None

    def _hole(self, gpa: int) -> GuestError:
        """Which page is missing, in the words of a device model of its own."""
        while region := self._memory.find(gpa):
            gpa = region.gpa + region.size
        return GuestError(f"GFN {gpa >> PAGE_SHIFT:#x} is not RAM")

    def invalidate(self) -> None:
        """Nothing is cached."""


class DirectStore(Store):
    """The hypervisor's xenstore, with paths relative to the control domain's home."""

    def __init__(self, store: HypervisorStore) -> None:
        self._store = store

    def read(self, path: str) -> str | None:
        """See `Store.read`."""
        return self._store.read(_absolute(path))

    def write(self, path: str, value: str) -> None:
        """See `Store.write`."""
        self._store.write(_absolute(path), value)

    def remove(self, path: str) -> None:
        """See `Store.remove`."""
        try:
            self._store.remove(_absolute(path))
        except StoreError:
            return


class DirectHypervisor(Hypervisor):
    """A domain of this very process. Its ioreq server is a page that nobody posts to."""

    def __init__(self, domain: Domain, store: HypervisorStore) -> None:
        self.domid = domain.domid
        self.memory = DirectMemory(domain)
        self.event_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._domain = domain
        self._store = store
        self._page = bytearray(layouts.IOREQ_PAGE_SIZE)
        self._claimed: dict[int, list[tuple[int, int]]] = {PORT: [], MEMORY: [], PCI: []}
        self._known: dict[tuple[int, int, int], bool] = {}

    def vcpu_count(self) -> int:
        """See `Hypervisor.vcpu_count`."""
        return len(self._domain.vcpus)

    def cpu_count(self) -> int:
        """One: there is nobody to watch for."""
        return 1

    def create_server(self) -> int:
        """See `Hypervisor.create_server`."""
        return 0

    def exclusive(self) -> Callable[[], None]:
        """See `Hypervisor.exclusive`."""
        return lambda: None

    def run_file(self, suffix: str) -> str | None:
        """There is no successor, so there is no file."""
        return None

    def server_ids(self) -> list[int]:
        """See `Hypervisor.server_ids`."""
        return []

    def use_server(self, server: int) -> None:
        """See `Hypervisor.use_server`."""

    def map_server(self, server: int) -> ServerPages:
        """See `Hypervisor.map_server`."""
        return ServerPages(memoryview(self._page), None)

    def unmap_server(self, server: int) -> None:
        """See `Hypervisor.unmap_server`."""

    def buffered_port(self, server: int) -> int:
        """See `Hypervisor.buffered_port`."""
        return 0

    def enable_server(self, server: int, *, enabled: bool) -> None:
        """See `Hypervisor.enable_server`."""

    def destroy_server(self, server: int) -> None:
        """See `Hypervisor.destroy_server`."""

    def bind(self, remote_port: int) -> int:
        """See `Hypervisor.bind`."""
        return 1

    def unbind(self, port: int) -> None:
        """See `Hypervisor.unbind`."""

    def events(self) -> Sequence[int]:
        """See `Hypervisor.events`."""
        return ()

    def unmask(self, ports: Sequence[int]) -> None:
        """See `Hypervisor.unmask`."""

    def notify(self, port: int) -> None:
        """See `Hypervisor.notify`."""

    def claim(self, space: int, first: int, last: int) -> None:
        """See `Platform.claim`."""
        self._claimed[space] = union([*self._claimed[space], (first, last)])
        self._known.clear()

    def release(self, space: int, first: int, last: int) -> None:
        """See `Platform.release`."""
        self._claimed[space] = subtract(self._claimed[space], [(first, last)])
        self._known.clear()

    def has(self, space: int, address: int, size: int) -> bool:
        """Whether an access is the machine's: whole or not at all, as Xen selects a server."""
        key = (space, address, size)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            first, last = address, address + size - 1
            if space == PCI:
                first, last = first >> PCI_SHIFT, last >> PCI_SHIFT
            claimed = self._claimed[space]
            found = self._known[key] = any(low <= first and last <= high for low, high in claimed)
        return found

    def set_isa_irq(self, irq: int, level: int) -> None:
        """See `Platform.set_isa_irq`."""
        with self._domain.lock:
            self._domain.interrupts.set_isa_irq(irq, level)

    def set_intx(self, slot: int, pin: int, level: int) -> None:
        """See `Platform.set_intx`."""
        with self._domain.lock:
            self._domain.interrupts.set_intx(slot, pin, level)

    def set_link_route(self, link: int, irq: int) -> None:
        """See `Platform.set_link_route`."""
        with self._domain.lock:
            self._domain.interrupts.set_link_route(link, irq)

    def inject_msi(self, address: int, data: int) -> None:
        """See `Platform.inject_msi`."""
        try:
            with self._domain.lock:
                self._domain.interrupts.inject_msi(address, data)
        except HypercallError as error:
            raise HostError(f"inject_msi: {error}", error.errno or 0) from None

    def set_memory_type(self, first_gfn: int, count: int, *, writable: bool) -> None:
        """See `Platform.set_memory_type`."""
        kind = layouts.MEM_TYPE_RAM_RW if writable else layouts.MEM_TYPE_RAM_RO
        with self._domain.lock:
            self._domain.memory.page_types(first_gfn, count, kind)

    def shutdown(self, reason: str) -> None:
        """See `Platform.shutdown`."""
        self._domain.shutdown(SHUTDOWN_REASONS[reason])

    def suspend(self) -> None:
        """See `Platform.suspend`; here a sleeping guest has ended."""
        self.shutdown("suspend")

    def set_dirty_log(self, *, enabled: bool) -> None:
        """Nobody migrates from here."""

    def restrict(self) -> None:
        """This process is the hypervisor: there is nothing to give up."""
        raise HostError("a device model inside the hypervisor cannot be restricted")

    def store(self) -> Store:
        """See `Hypervisor.store`."""
        return DirectStore(self._store)

    def close(self) -> None:
        """See `Hypervisor.close`."""
        os.close(self.event_fd)


def _absolute(path: str) -> str:
    return path if path.startswith(("/", "@")) else f"{HOME}/{path}"
