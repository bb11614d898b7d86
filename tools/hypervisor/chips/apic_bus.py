"""How messages find local APICs: destinations, delivery modes, and what each does on arrival.

Sources: Intel SDM volume 3, "Advanced Programmable Interrupt Controller"; xen/arch/x86/hvm/
vlapic.c (vlapic_match_dest, vlapic_lowest_prio, vlapic_ipi) and vmsi.c for what Xen delivers.
Not modelled: x2APIC, SMI, remote read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .lapic import Lapic

__all__ = [
    "EXTINT",
    "FIXED",
    "INIT",
    "LOWEST_PRIORITY",
    "NMI",
    "STARTUP",
    "ApicBus",
    "logical",
    "physical",
]

FIXED, LOWEST_PRIORITY, SMI, REMOTE_READ, NMI, INIT, STARTUP, EXTINT = range(8)
"""Delivery modes, as in every register that has one."""

_BROADCAST = 0xFF
_FLAT, _CLUSTER = 0xF, 0x0
_ALL, _SELF, _ALL_INCLUDING, _ALL_BUT = range(4)
"""Shorthands of an ICR; 0 is none."""


def physical(lapic: Lapic, destination: int) -> bool:
    """Whether a physical destination means this local APIC."""
    return destination in (_BROADCAST, lapic.id >> 24)


def logical(lapic: Lapic, destination: int) -> bool:
    """Whether a logical destination means this local APIC, in the model its DFR selects."""
    own = lapic.ldr >> 24
    if lapic.dfr >> 28 == _FLAT:
        return bool(own & destination)
    if lapic.dfr >> 28 == _CLUSTER:
        return own >> 4 == destination >> 4 and bool(own & destination & 0xF)
    return False


class ApicBus:
    """The local APICs of one domain, in the order of their vCPUs.

    ``on_nmi`` and ``on_init`` are told which vCPU, ``on_startup`` also the vector: the vCPU starts
    in real mode at vector << 12.
    """

    def __init__(self) -> None:
        self.lapics: Sequence[Lapic] = ()
        self.end_of_interrupt: Callable[[int], None] = lambda vector: None
        """Told of the end of a level-triggered interrupt."""
        self.on_nmi: Callable[[int], None] = lambda vcpu: None
        self.on_init: Callable[[int], None] = lambda vcpu: None
        self.on_startup: Callable[[int, int], None] = lambda vcpu, vector: None
        self.last_chosen = 0
        """The vCPU that took the last interrupt of lowest priority."""

    def send(self, mode: int, vector: int, destination: int, is_logical: bool, level: bool) -> bool:
        """Deliver a message of an I/O APIC or an MSI; whether a local APIC took it."""
        match = logical if is_logical else physical
        targets = [index for index, one in enumerate(self.lapics) if match(one, destination)]
        return self._deliver(targets, mode, vector, level)

    def send_command(self, source: int, low: int, high: int) -> None:
        """Deliver what vCPU ``source`` wrote to its interrupt command register."""
        mode, vector = low >> 8 & 7, low & 0xFF
        if mode in (FIXED, LOWEST_PRIORITY) and vector < 16:
            self.lapics[source].report_send_error()
            return
        if mode == INIT and low & 0xC000 == 0x8000:
            return  # the de-assertion of INIT is for APICs older than this one
        self._deliver(self._targets(source, low, high), mode, vector, False)

    def _targets(self, source: int, low: int, high: int) -> list[int]:
        shorthand, everyone = low >> 18 & 3, range(len(self.lapics))
        if shorthand == _SELF:
            return [source]
        if shorthand == _ALL_INCLUDING:
            return list(everyone)
        if shorthand == _ALL_BUT:
            return [index for index in everyone if index != source]
        match = logical if low & 0x800 else physical
        return [index for index in everyone if match(self.lapics[index], high >> 24)]

    def _deliver(self, targets: list[int], mode: int, vector: int, level: bool) -> bool:
        if mode in (FIXED, LOWEST_PRIORITY):
            targets = [index for index in targets if self.lapics[index].enabled]
            if mode == LOWEST_PRIORITY and targets:
                targets = [self._lowest(targets)]
            for index in targets:
                self.lapics[index].accept(vector, level)
        elif mode == NMI:
            for index in targets:
                self.on_nmi(index)
        elif mode == INIT:
            for index in targets:
                self.lapics[index].reset()
                self.on_init(index)
        elif mode == STARTUP:
            for index in targets:
                self.on_startup(index, vector)
        return bool(targets)

    def _lowest(self, targets: list[int]) -> int:
        """Of those with the lowest processor priority, the next one after the last that served."""
        number = len(self.lapics)
        chosen = min(
            targets,
            key=lambda one: (self.lapics[one].priority(), (one - self.last_chosen - 1) % number),
        )
        self.last_chosen = chosen
        return chosen
