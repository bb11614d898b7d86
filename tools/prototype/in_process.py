"""Both sides in one process: the vCPU's thread calls the machine itself, nothing crosses a page.

It is for speed and for debuggers. What differs from the real thing: one device model, no buffered
ring (VGA writes are done at once), and back ends get their turn a hundred times a second.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dm.control.argv import parse
from dm.control.process import DeviceModel
from dm.device.platform import MEMORY, PCI, PORT, GuestMemory
from dm.errors import GuestError, HostError
from dm.hypervisor.interface import Hypervisor, ServerPages, Store
from dm.server.executor import ALL_ONES
from dm.server.loop import Loop
from protocol import layouts
from tools.hypervisor.errors import HypercallError, NotRamError
from tools.hypervisor.store import HOME, StoreError

if TYPE_CHECKING:
    from dm.machine.bus import Bus
    from dm.machine.machine import Machine
    from tools.hypervisor.clock import Timer
    from tools.hypervisor.domain import Domain
    from tools.hypervisor.store import Store as HypervisorStore
    from tools.hypervisor.vcpu import Vcpu

__all__ = ["DirectHypervisor", "DirectModel", "DirectVcpu"]

BACK_END_INTERVAL = 10_000_000
"""Nanoseconds between two turns of the loop that serves back ends and monitors."""
CONFIG_PORT = layouts.PCI_CONFIG_ADDRESS_PORT
DATA_PORT = layouts.PCI_CONFIG_DATA_PORT
CONFIG_ENABLE = 0x8000_0000
SHUTDOWN_REASONS = {
    "poweroff": layouts.SHUTDOWN_REASON_POWEROFF,
    "reboot": layouts.SHUTDOWN_REASON_REBOOT,
    "suspend": layouts.SHUTDOWN_REASON_SUSPEND,
    "crash": layouts.SHUTDOWN_REASON_CRASH,
    "watchdog": layouts.SHUTDOWN_REASON_WATCHDOG,
}


class DirectMemory(GuestMemory):
    """The domain's RAM as a device sees it."""

    def __init__(self, domain: Domain) -> None:
        self._memory = domain.memory

    def read(self, gpa: int, length: int) -> bytes:
        """See `GuestMemory.read`."""
        try:
            return self._memory.read(gpa, length)
        except NotRamError as error:
            raise GuestError(str(error)) from None

    def write(self, gpa: int, data: bytes | bytearray | memoryview[int]) -> None:
        """See `GuestMemory.write`."""
        try:
            self._memory.write(gpa, data)
        except NotRamError as error:
            raise GuestError(str(error)) from None

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
        """All that the hypervisor does not answer itself is the machine's."""

    def release(self, space: int, first: int, last: int) -> None:
        """See `claim`."""

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


class DirectVcpu:
    """`tools.hypervisor.vcpu.Vcpu` for the engine, with the machine at the other end.

    The domain's lock is what keeps vCPUs, timers and back ends from each other.
    """

    def __init__(self, vcpu: Vcpu, model: DeviceModel) -> None:
        self.id = vcpu.id
        self._vcpu = vcpu
        self.domain = domain = vcpu.domain
        self._lock = domain.lock
        self._find = domain.intercepts.find
        self._machine: Machine
        self._bus: Bus
        self.attach(model)

    @property
    def attention(self) -> bool:
        """Whether the vCPU has something else to do than run guest code."""
        return self._vcpu.attention

    def attach(self, model: DeviceModel) -> None:
        """Have ``model`` answer from now on."""
        self._machine = model.machine
        self._bus = model.machine.bus

    def read(self, space: int, address: int, size: int) -> int:
        """One element; ones where nobody answers, and when a device fails."""
        with self._lock:
            handler = self._find(space, address, size)
            if handler is not None:
                value = handler.read(address, size)
                if value is not None:
                    return value
            if space == PORT and address & ~3 == DATA_PORT and self.domain.pci_cf8 & CONFIG_ENABLE:
                space, address = PCI, self._config_address(address)
            try:
                return self._bus.read(space, address, size)
            except Exception as error:
                self._machine.contain(error, f"read of {size} bytes at {address:#x}")
                return ALL_ONES[size]

    def write(self, space: int, address: int, size: int, value: int) -> None:
        """One element."""
        with self._lock:
            handler = self._find(space, address, size)
            if handler is not None and handler.write(address, size, value):
                return
            if space == PORT:
                if address == CONFIG_PORT and size == 4:
                    self.domain.pci_cf8 = value
                elif address & ~3 == DATA_PORT and self.domain.pci_cf8 & CONFIG_ENABLE:
                    space, address = PCI, self._config_address(address)
            try:
                self._bus.write(space, address, size, value)
            except Exception as error:
                self._machine.contain(error, f"write of {size} bytes at {address:#x}")

    def _config_address(self, port: int) -> int:
        latch = self.domain.pci_cf8
        return (latch >> 8 & 0xFFFF) << 32 | latch & 0xFC | port & 3

    def string(
        self, *, port: int, size: int, count: int, gpa: int, reads: bool, down: bool
    ) -> None:
        """Elements between a port and RAM."""
        self._elements(PORT, port, 0, size, count, gpa, reads, -size if down else size)

    def move(self, *, mmio: int, size: int, count: int, gpa: int, reads: bool, down: bool) -> None:
        """Elements between MMIO and RAM."""
        step = -size if down else size
        self._elements(MEMORY, mmio, step, size, count, gpa, reads, step)

    def fill(self, *, mmio: int, size: int, count: int, value: int, down: bool) -> None:
        """The same value to a run of MMIO."""
        for index in range(count):
            self.write(MEMORY, mmio + (-size if down else size) * index, size, value)

    def _elements(
        self, space: int, at: int, step: int, size: int, count: int, gpa: int, reads: bool, by: int
    ) -> None:
        memory = self.domain.memory
        for index in range(count):
            place = gpa + index * by
            if reads:
                value = self.read(space, at + index * step, size) & ALL_ONES[size]
                memory.write(place, value.to_bytes(size, "little"))
            else:
                value = int.from_bytes(memory.read(place, size), "little")
                self.write(space, at + index * step, size, value)


class DirectModel:
    """A device model in this process, to be saved and ended as one in another process is.

    ``words``: the argument vector of `ioreqd-dm`; ``ended``: called when a monitor ends it.
    Timers and back ends get their turns by the domain's clock, under the domain's lock.
    """

    def __init__(
        self,
        domain: Domain,
        store: HypervisorStore,
        words: Sequence[str],
        ended: Callable[[], object],
    ) -> None:
        self._domain = domain
        self._clock = domain.clock
        self._ended = ended
        self._next: Timer | None = None
        self._turns: Timer | None = None
        options = parse([*words, "-xen-domid", str(domain.domid)])
        self.model = DeviceModel(options, Loop(), DirectHypervisor(domain, store))
        with domain.lock:
            self.model.machine.timers.on_change = self._schedule
            self.model.open()
            self._turn()
            self._schedule()

    def vcpus(self) -> list[DirectVcpu]:
        """What an engine's vCPUs make their accesses on."""
        return [DirectVcpu(vcpu, self.model) for vcpu in self._domain.vcpus]

    def save(self, path: Path) -> None:
        """Stop the devices and write their state to ``path``."""
        with self._domain.lock:
            self.model.stop()
            path.write_bytes(self.model.save())

    def end(self) -> int:
        """Close everything; gives an exit status."""
        with self._domain.lock:
            for timer in (self._next, self._turns):
                if timer is not None:
                    timer.cancel()
            self._next = self._turns = None
            self.model.machine.timers.on_change = lambda: None
            self.model.close()
        return 0

    def _turn(self) -> None:
        self.model.loop.run_once(0)
        if self.model.ended:
            self._ended()
            return
        self._turns = self._clock.call_at(self._clock.now() + BACK_END_INTERVAL, self._turn)

    def _fire(self) -> None:
        self._next = None
        self.model.machine.run_timers()
        self._schedule()

    def _schedule(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None
        machine = self.model.machine
        deadline = machine.timers.next_deadline()
        if deadline is not None:
            wait = max(deadline - machine.clock.now(), 0)
            self._next = self._clock.call_at(self._clock.now() + wait, self._fire)


def _absolute(path: str) -> str:
    return path if path.startswith(("/", "@")) else f"{HOME}/{path}"
