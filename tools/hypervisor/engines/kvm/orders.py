"""What a guest orders of its vCPUs by hypercall: each is carried out by that vCPU's own thread.

A vCPU that is down waits in the kernel as one does before its first INIT; its registers stay.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from protocol.kvm_chips import KvmRunState

from ...images.cpu_start import CpuStart
from .machine import KvmCpu
from .start import enter

if TYPE_CHECKING:
    from ...domain import Domain

__all__ = ["Orders"]


class Orders:
    """The orders to the vCPUs of one domain that have still to be carried out."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._waiting: dict[int, list[tuple[CpuStart | None, bool]]] = defaultdict(list)
        self._states: dict[int, int] = {}

    def give(self, number: int, start: CpuStart | None, up: bool) -> None:
        """See `Domain.on_vcpu`."""
        with self._domain.lock:
            self._waiting[number].append((start, up))
            self._domain.vcpus[number].kick()

    def follow(self, number: int, cpu: KvmCpu) -> None:
        """Carry out what vCPU ``number`` was ordered; called by its thread, out of the guest."""
        with self._domain.lock:
            orders = self._waiting.pop(number, [])
        for start, up in orders:
            if not up:
                if number not in self._states:
                    self._states[number] = cpu.run_state
                cpu.run_state = KvmRunState.UNINITIALIZED
                continue
            before = self._states.pop(number, KvmRunState.RUNNABLE)
            if start is not None:
                enter(cpu, start)
                before = KvmRunState.RUNNABLE
            cpu.run_state = before
