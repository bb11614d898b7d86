"""How a domain's interrupt lines are routed: Xen's counts, links and message-signalled interrupts.

Lines are levels and every call is idempotent. Several sources share one GSI, which is asserted
while any of them is. An INTx line goes to its GSI and, through the PCI link that its slot selects,
to the ISA interrupt that the PIIX3 has routed the link to. Of soft reset this state knows nothing:
it survives one.

Facts: xen/arch/x86/hvm/irq.c, xen/arch/x86/hvm/vmsi.c, xen/arch/x86/hvm/dm.c.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EINVAL, ERANGE, ESRCH
from typing import Protocol

from .chips.chip import Chip
from .errors import HypercallError

__all__ = ["GSIS", "ISA_IRQS", "InterruptSink", "Interrupts", "gsi_of_intx", "gsi_of_isa"]

ISA_IRQS = 16
GSIS = 48
"""Pins of the one I/O APIC that a Xen HVM guest has."""
_SLOTS = 32
_PINS = 4
_LINKS = 4

_FIXED, _LOWEST_PRIORITY = 0, 1


class InterruptSink(Protocol):
    """The interrupt controllers behind the lines: software ones, or those of KVM."""

    def set_gsi(self, gsi: int, level: int) -> None:
        """Set I/O APIC pin ``gsi``, 0 to 47."""

    def set_pic(self, irq: int, level: int) -> None:
        """Set 8259 input ``irq``, 0 to 15."""

    def inject_msi(self, address: int, data: int) -> bool | None:
        """Deliver a message with a vector; False when no local APIC took it."""


class _Nothing:
    """The sink of a domain whose engine has not come yet."""

    def set_gsi(self, gsi: int, level: int) -> None:
        pass

    def set_pic(self, irq: int, level: int) -> None:
        pass

    def inject_msi(self, address: int, data: int) -> bool | None:
        return None


def gsi_of_intx(device: int, intx: int) -> int:
    """The GSI of a slot's INTx line (hvm_pci_intx_gsi)."""
    return (device * 4 + device // 8 + intx & 31) + 16


def gsi_of_isa(irq: int) -> int:
    """The GSI of an ISA interrupt: IRQ 0 is wired to pin 2 (hvm_isa_irq_to_gsi)."""
    return 2 if irq == 0 else irq


class Interrupts(Chip):
    """The lines of one domain. Every method is called under the domain's lock.

    `listeners` are told (gsi, level) of every change of a GSI, before the sink.
    """

    STATE = {"isa": (1 << ISA_IRQS) - 1, "intx": (1 << _SLOTS * _PINS) - 1, "routes": 15}

    def __init__(self) -> None:
        self.isa = 0
        """Bit n: ISA interrupt n is asserted."""
        self.intx = 0
        """Bit 4 * slot + pin: that INTx line is asserted."""
        self.routes = [0] * _LINKS
        """The ISA interrupt that each PCI link is routed to; 0: none."""
        self.listeners: list[Callable[[int, int], None]] = []
        self._gsi_counts = [0] * GSIS
        self._link_counts = [0] * _LINKS
        self._sink: InterruptSink = _Nothing()

    @property
    def sink(self) -> InterruptSink:
        """Where the levels go; a new one is told of what is asserted."""
        return self._sink

    @sink.setter
    def sink(self, sink: InterruptSink) -> None:
        self._sink = sink
        self._drive_sink()

    def level(self, gsi: int) -> int:
        """Whether GSI ``gsi`` is asserted by anyone."""
        return int(self._gsi_counts[gsi] > 0)

    def set_isa_irq(self, irq: int, level: int) -> None:
        """Set ISA interrupt ``irq``. Raises HypercallError (EINVAL) for one that does not exist."""
        if not 0 <= irq < ISA_IRQS or level not in (0, 1):
            raise HypercallError(EINVAL, f"ISA interrupt {irq} to level {level}")
        bit = 1 << irq
        if bool(self.isa & bit) == bool(level):
            return
        self.isa ^= bit
        self._count(gsi_of_isa(irq), level, irq)

    def set_intx(self, device: int, intx: int, level: int) -> None:
        """Set the line of slot ``device``, pin ``intx`` (0 to 3: A to D); EINVAL as above."""
        if not (0 <= device < _SLOTS and 0 <= intx < _PINS and level in (0, 1)):
            raise HypercallError(EINVAL, f"INTx {device}.{intx} to level {level}")
        bit = 1 << device * _PINS + intx
        if bool(self.intx & bit) == bool(level):
            return
        self.intx ^= bit
        self._count(gsi_of_intx(device, intx), level, None)
        link = device + intx & 3
        self._link_counts[link] += 1 if level else -1
        if self._link_counts[link] == level and self.routes[link]:
            self._count(self.routes[link], level, self.routes[link])

    def set_link_route(self, link: int, irq: int) -> None:
        """Route PCI link ``link`` to ISA interrupt ``irq`` (0: to none); EINVAL as above.

        A link that is asserted leaves its old interrupt and asserts the new one.
        """
        if not (0 <= link < _LINKS and 0 <= irq < ISA_IRQS):
            raise HypercallError(EINVAL, f"PCI link {link} to ISA interrupt {irq}")
        old, self.routes[link] = self.routes[link], irq
        if old == irq or not self._link_counts[link]:
            return
        if old:
            self._count(old, 0, old)
        if irq:
            self._count(irq, 1, irq)

    def inject_msi(self, address: int, data: int) -> None:
        """Deliver a message-signalled interrupt.

        Raises HypercallError: EINVAL for a delivery mode other than fixed and lowest priority,
        ESRCH when no local APIC takes one of lowest priority. Vector 0 is Xen's way to remap a
        message to an event channel, for which this domain has no pirqs: ERANGE without a pirq
        number, EINVAL with one.
        """
        vector, mode = data & 0xFF, data >> 8 & 7
        if not vector:
            pirq = (address >> 32 & 0xFFFFFF00) | (address >> 12 & 0xFF)
            raise HypercallError(EINVAL if pirq else ERANGE, f"MSI remapped to pirq {pirq}")
        if mode not in (_FIXED, _LOWEST_PRIORITY):
            raise HypercallError(EINVAL, f"MSI with delivery mode {mode}")
        if self._sink.inject_msi(address, data) is False and mode == _LOWEST_PRIORITY:
            raise HypercallError(ESRCH, f"MSI to {address:#x}, where no local APIC is")

    def after_load(self) -> None:
        """Count the sources again, as Xen does, and tell the sink."""
        old = [self.level(gsi) for gsi in range(GSIS)]
        self._gsi_counts = [0] * GSIS
        self._link_counts = [0] * _LINKS
        for line in range(_SLOTS * _PINS):
            if self.intx >> line & 1:
                device, pin = divmod(line, _PINS)
                self._gsi_counts[gsi_of_intx(device, pin)] += 1
                self._link_counts[device + pin & 3] += 1
        for irq in range(ISA_IRQS):
            self._gsi_counts[gsi_of_isa(irq)] += self.isa >> irq & 1
        for link, route in enumerate(self.routes):
            if route and self._link_counts[link]:
                self._gsi_counts[route] += 1
        for gsi in range(GSIS):
            if old[gsi] != self.level(gsi):
                self._tell(gsi, self.level(gsi))

    def _count(self, gsi: int, level: int, irq: int | None) -> None:
        """A source of ``gsi``, behind PIC input ``irq``, was asserted or deasserted."""
        count = self._gsi_counts[gsi] + (1 if level else -1)
        self._gsi_counts[gsi] = count
        if count != level:
            return
        self._tell(gsi, level)
        self._sink.set_gsi(gsi, level)
        if irq is not None:
            self._sink.set_pic(irq, level)

    def _tell(self, gsi: int, level: int) -> None:
        for listener in self.listeners:
            listener(gsi, level)

    def _drive_sink(self) -> None:
        for gsi in range(GSIS):
            if self._gsi_counts[gsi]:
                self._sink.set_gsi(gsi, 1)
        asserted = self.isa
        for link, route in enumerate(self.routes):
            if self._link_counts[link]:
                asserted |= 1 << route
        for irq in range(ISA_IRQS):
            if asserted >> irq & 1 and self._gsi_counts[gsi_of_isa(irq)]:
                self._sink.set_pic(irq, 1)
