"""The software interrupt controllers and timers of one domain, wired as in an HVM guest.

For engines that have none in a kernel. The 8259 pair reaches the first vCPU whose local APIC lets
it through (LINT0, or pin 0 of the I/O APIC), as in Xen (xen/arch/x86/hvm/vlapic.c:
vlapic_adjust_i8259_target); a vCPU takes the 8259's interrupt before its local APIC's.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident
from typing import TYPE_CHECKING, Any

from .apic_bus import ApicBus
from .chip import Chip, StateError
from .ioapic import IOAPIC_BASE, IOAPIC_SIZE, IoApic
from .lapic import LAPIC_BASE, LAPIC_SIZE, Lapic
from .pic import PicPair
from .pit import Pit
from .timekeepers import Timekeepers

if TYPE_CHECKING:
    from ..domain import Domain

__all__ = ["Board"]

_MSI_LEVEL, _MSI_LOGICAL = 1 << 15, 1 << 2
_FARTHEST = 1 << 63


class Board(Chip):
    """Registers the chips with a domain and becomes the sink of its interrupts.

    All methods but `interrupt_pending` are called under the domain's lock, except where they say
    that they take it. `pending` has, for each vCPU, whether it has an interrupt to take: a loop
    may keep that list and index it. `nmi` has, for each vCPU, whether an NMI came; who delivers it
    resets it. A thread that runs a vCPU other than 0 says so once by `bind_thread`.

    ``vcpus``: how many local APICs there are (default: as many as the domain has vCPUs).
    ``epoch``: see `Rtc`.
    """

    PARTS = ("pic", "pit", "timekeepers", "ioapic", "lapics")

    def __init__(self, domain: Domain, vcpus: int | None = None, epoch: int | None = None) -> None:
        number = len(domain.vcpus) if vcpus is None else vcpus
        self.on_interrupt: Callable[[int], None] = lambda vcpu: None
        """Told, under the lock, which vCPU has something to take that had nothing before."""
        self.pending = [False] * number
        self.nmi = [False] * number
        self.bus = ApicBus()
        """Its on_init and on_startup are the engine's to set."""
        self._lock = domain.lock
        self._clock = domain.clock
        self._threads: dict[int, int] = {}
        self._target = 0
        """The vCPU that the 8259 reaches; -1: none."""
        self.lapics: list[Lapic] = []
        self.pic = PicPair(self._pic_changed)
        self.pit = Pit(domain.clock, lambda level: domain.interrupts.set_isa_irq(0, level))
        self.timekeepers = Timekeepers(domain, epoch)
        self.ioapic = IoApic(self.bus, self._retarget)
        for vcpu in range(number):
            self.lapics.append(Lapic(vcpu, domain.clock, self.bus, self._lapic_changed))
        self.bus.lapics = self.lapics
        self.bus.end_of_interrupt = self.ioapic.end_of_interrupt
        self.bus.on_nmi = self._nmi
        self._retarget()
        for chip in (self.pic, self.pit):
            for first, last in chip.PORTS:
                domain.intercepts.add_ports(first, last, chip)
        domain.intercepts.add_memory(IOAPIC_BASE, IOAPIC_BASE + IOAPIC_SIZE - 1, self.ioapic)
        domain.intercepts.add_memory(LAPIC_BASE, LAPIC_BASE + LAPIC_SIZE - 1, self)
        domain.interrupts.sink = self

    def interrupt_pending(self, vcpu: int) -> bool:
        """Whether ``vcpu`` has an interrupt to take, once its flags let it."""
        return self.pending[vcpu]

    def acknowledge(self, vcpu: int) -> int | None:
        """``vcpu`` takes its interrupt: the vector. None when it went away. Takes the lock."""
        with self._lock:
            if vcpu == self._target and self.pic.master.output:
                vector = self.pic.acknowledge()
                self._update(vcpu)
                return vector
            vector = self.lapics[vcpu].acknowledge()
            return None if vector < 0 else vector

    def run_due(self) -> None:
        """Run the timers that are due. Takes the lock."""
        with self._lock:
            self._clock.run_due()

    def bind_thread(self, vcpu: int) -> None:
        """The calling thread runs ``vcpu``: the local APIC that it sees is that vCPU's."""
        self._threads[get_ident()] = vcpu

    def read(self, address: int, size: int) -> int | None:
        """Read the calling vCPU's local APIC."""
        return self.lapics[self._threads.get(get_ident(), 0)].read(address - LAPIC_BASE, size)

    def write(self, address: int, size: int, value: int) -> bool:
        """Write the calling vCPU's local APIC."""
        self.lapics[self._threads.get(get_ident(), 0)].write(address - LAPIC_BASE, size, value)
        return True

    def set_gsi(self, gsi: int, level: int) -> None:
        """Part of being the sink: pin ``gsi`` of the I/O APIC."""
        self.ioapic.set_pin(gsi, level)

    def set_pic(self, irq: int, level: int) -> None:
        """Part of being the sink: input ``irq`` of the 8259 pair."""
        self.pic.set_irq(irq, level)

    def inject_msi(self, address: int, data: int) -> bool:
        """Part of being the sink: whether a local APIC took the message."""
        return self.bus.send(
            data >> 8 & 7,
            data & 0xFF,
            address >> 12 & 0xFF,
            is_logical=bool(address & _MSI_LOGICAL),
            level=bool(data & _MSI_LEVEL),
        )

    def save(self) -> dict[str, Any]:
        """The state of every chip, and the guest time to which its instants belong."""
        return {**super().save(), "now": self._clock.now()}

    def load(self, state: object, shift: int = 0) -> None:
        """Take a state over, its instants moved to this domain's guest time."""
        if not isinstance(state, dict) or type(now := state.get("now")) is not int:
            raise StateError("the board's state has no time")
        if not -_FARTHEST <= now <= _FARTHEST:
            raise StateError("the board's time is out of range")
        chips = {name: value for name, value in state.items() if name != "now"}
        super().load(chips, self._clock.now() - now + shift)

    def after_load(self) -> None:
        """Settle who has something to take."""
        self._retarget()

    def _pic_changed(self, level: int) -> None:
        if self._target >= 0:
            self._update(self._target)

    def _lapic_changed(self, vcpu: int) -> None:
        if vcpu < len(self.lapics):
            self._retarget()
            self._update(vcpu)

    def _retarget(self) -> None:
        """Find the vCPU that lets the 8259's interrupts through."""
        for lapic in self.lapics:
            if lapic.takes_pic or self.ioapic.takes_pic(lapic):
                target = lapic.vcpu
                break
        else:
            target = -1
        old, self._target = self._target, target
        if old != target:
            for vcpu in (old, target):
                if 0 <= vcpu < len(self.lapics):
                    self._update(vcpu)

    def _update(self, vcpu: int) -> None:
        pending = self.lapics[vcpu].deliverable() >= 0 or (
            vcpu == self._target and self.pic.master.output == 1
        )
        if pending != self.pending[vcpu]:
            self.pending[vcpu] = pending
            if pending:
                self.on_interrupt(vcpu)

    def _nmi(self, vcpu: int) -> None:
        if not self.nmi[vcpu]:
            self.nmi[vcpu] = True
            self.on_interrupt(vcpu)
