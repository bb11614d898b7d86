"""Both sides in one process: the vCPU's thread calls the machine itself, nothing crosses a page.

It is for speed and for debuggers. What differs from the real thing: one device model, no buffered
ring (VGA writes are done at once), and back ends get their turn a hundred times a second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dm.control.argv import parse
from dm.control.process import DeviceModel
from dm.device.deferral import Deferral
from dm.device.platform import MEMORY, PCI, PORT
from dm.errors import GuestError
from dm.server.executor import ALL_ONES
from dm.server.loop import Loop
from protocol import layouts
from tools.hypervisor.elements import config_target, crosses, parts
from tools.hypervisor.errors import DomainEnded

from .direct_hypervisor import DirectHypervisor

if TYPE_CHECKING:
    from dm.machine.bus import Bus
    from dm.machine.machine import Machine
    from tools.hypervisor.clock import Timer
    from tools.hypervisor.domain import Domain
    from tools.hypervisor.store import Store as HypervisorStore
    from tools.hypervisor.vcpu import Vcpu

__all__ = ["DirectModel", "DirectVcpu"]

BACK_END_INTERVAL = 10_000_000
"""Nanoseconds between two turns of the loop that serves back ends and monitors."""
PORT_SIZES = (1, 2, 4)
CONFIG_PORT = layouts.PCI_CONFIG_ADDRESS_PORT
DATA_PORT = layouts.PCI_CONFIG_DATA_PORT


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
        self._taken = domain.intercepts.taken
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
        hypervisor = model.hypervisor
        assert isinstance(hypervisor, DirectHypervisor)
        self._has = hypervisor.has
        spaces = model.machine.spaces
        # A register whose access needs nothing else: straight to it.
        self._reads = {size: spaces.reads[PORT, size] for size in PORT_SIZES}

    def read(self, space: int, address: int, size: int) -> int:
        """One element; ones where nobody answers, and when a device fails."""
        if space == PORT and not self._taken[address] and address & ~3 != DATA_PORT:
            with self._lock:
                # Under the lock: a reload puts others in their place.
                entry = self._reads[size].get(address)
                if entry is not None and entry[1] is None:
                    try:
                        return entry[0]()
                    except Deferral as deferral:
                        answer = self._await(deferral)
                        if answer is None:
                            return self._read_any(space, address, size)
                        return answer & ALL_ONES[size]
                    except Exception as error:
                        return self._contained(error, address, size)
        return self._read_any(space, address, size)

    def _contained(self, error: Exception, address: int, size: int) -> int:
        self._machine.contain(error, f"read of {size} bytes at {address:#x}")
        return ALL_ONES[size]

    def _await(self, deferral: Deferral) -> int | None:
        """The answer that a device gives later; called under the lock, which is let go meanwhile.

        As with two processes, a shutdown waits for it, too. None: the device is no more, another
        one stands in for it. DomainEnded: the vCPU is not to run any more.
        """
        answers: list[int] = []
        domain, machine = self.domain, self._machine

        def finish(value: int) -> None:
            answers.append(value)
            domain.changed.notify_all()

        deferral.attach(finish)
        domain.outstanding += 1
        try:
            while not answers:
                if self._vcpu.ended:
                    raise DomainEnded(f"vCPU {self.id} of domain {domain.domid}")
                if machine is not self._machine or deferral.device not in machine.devices:
                    return None
                domain.changed.wait()
        finally:
            domain.outstanding -= 1
            domain.finish_shutdown()
        return answers[0]

    def _read_any(self, space: int, address: int, size: int, *, waits: bool = True) -> int:
        if space == MEMORY and crosses(address, size):
            whole = shift = 0
            for part, length in parts(address, size):
                whole |= self._read_any(MEMORY, part, length, waits=waits) << shift
                shift += 8 * length
            return whole
        with self._lock:
            handler = self._find(space, address, size)
            if handler is not None:
                value = handler.read(address, size)
                if value is not None:
                    return value
            if space == PORT:
                target = config_target(self.domain.pci_cf8, address)
                if target is not None:
                    space, address = PCI, target
            if not self._has(space, address, size):
                return ALL_ONES[size]
            while True:
                try:
                    return self._bus.read(space, address, size)
                except Deferral as deferral:
                    if not waits:
                        return self._contained(_too_late(deferral), address, size)
                    answer = self._await(deferral)
                    if answer is not None:
                        return answer & ALL_ONES[size]
                except Exception as error:
                    return self._contained(error, address, size)

    def write(self, space: int, address: int, size: int, value: int, *, waits: bool = True) -> None:
        """One element; ``waits``: a device may say later that it is done."""
        if space == MEMORY and crosses(address, size):
            for part, length in parts(address, size):
                self.write(MEMORY, part, length, value & ALL_ONES[length], waits=waits)
                value >>= 8 * length
            return
        with self._lock:
            handler = self._find(space, address, size)
            if handler is not None and handler.write(address, size, value):
                return
            if space == PORT:
                if address == CONFIG_PORT and size == 4:
                    self.domain.pci_cf8 = value
                target = config_target(self.domain.pci_cf8, address)
                if target is not None:
                    space, address = PCI, target
            if not self._has(space, address, size):
                return
            try:
                self._bus.write(space, address, size, value)
            except Deferral as deferral:
                if waits:
                    # A write whose device is no more had its effects.
                    self._await(deferral)
                else:
                    self._contained(_too_late(deferral), address, size)
            except Exception as error:
                self._machine.contain(error, f"write of {size} bytes at {address:#x}")

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
            at = mmio + (-size if down else size) * index
            self.write(MEMORY, at, size, value, waits=False)

    def _elements(
        self, space: int, at: int, step: int, size: int, count: int, gpa: int, reads: bool, by: int
    ) -> None:
        memory = self.domain.memory
        for index in range(count):
            place = gpa + index * by
            if reads:
                value = self._read_any(space, at + index * step, size, waits=False)
                memory.write(place, value.to_bytes(size, "little"))
            else:
                value = int.from_bytes(memory.read(place, size), "little")
                self.write(space, at + index * step, size, value, waits=False)


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

    def interrupt(self) -> None:
        """Have a debugger left that a vCPU stands in; from any thread."""
        if self.model.observation is not None:
            self.model.observation.interrupt()

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
        # Who waits for an answer looks whether the device that owes it was replaced.
        self._domain.changed.notify_all()
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


def _too_late(deferral: Deferral) -> GuestError:
    return GuestError(f"{deferral.device.name} cannot answer a string later")
