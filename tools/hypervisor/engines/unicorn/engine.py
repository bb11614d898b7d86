"""The unicorn engine: one processor and one thread for each vCPU of a domain, and their board."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from protocol import layouts

from ...chips.board import Board
from ...images.cpu_start import CpuStart
from .. import Engine
from .access import Requests
from .loop import DOWN, INIT, UP, Loop
from .processor import Processor
from .state import EngineState
from .turns import Turns

if TYPE_CHECKING:
    from ...domain import Domain
    from ...vcpu import Vcpu

__all__ = ["UnicornEngine"]


class UnicornEngine(Engine):
    """Runs a domain's vCPUs on the Unicorn library.

    ``start``: how the first vCPU begins; the others wait for INIT and STARTUP from a local APIC.
    ``vcpus``: what answers the accesses of each vCPU, by its number, where that is not the domain's
    own `Vcpu`: devices in this process. ``board``: the domain's interrupt controllers and timers,
    if they exist already. EngineUnavailable: there is no library.
    """

    name = "unicorn"

    def __init__(
        self,
        domain: Domain,
        start: CpuStart,
        vcpus: Sequence[Requests] | None = None,
        board: Board | None = None,
    ) -> None:
        super().__init__(domain)
        self.board = Board(domain) if board is None else board
        requests: Sequence[Requests] = domain.vcpus if vcpus is None else vcpus
        turns = Turns() if len(domain.vcpus) > 1 else None
        self._loops: dict[int, Loop] = {}
        self._leaping = threading.Lock()
        for vcpu, own in zip(domain.vcpus, requests, strict=True):
            answers = own if turns is None else turns.around(own)
            self._loops[vcpu.id] = Loop(
                domain,
                vcpu,
                Processor(domain, vcpu.id, answers, self.board),
                self.board,
                turns,
                start if vcpu.id == 0 else None,
                self,
            )
        domain.memory.on_type.append(self._leave_guest)
        self.board.on_interrupt = lambda number: self._loops[number].kick()
        domain.on_vcpu = lambda number, begin, up: self._loops[number].post(
            begin or (UP if up else DOWN)
        )
        self.board.bus.on_init = lambda number: self._loops[number].post(INIT)
        self.board.bus.on_startup = lambda number, vector: self._loops[number].post(vector)

    def run(self, vcpu: Vcpu) -> None:
        """Run one vCPU until its domain ends."""
        self._loops[vcpu.id].run()

    def stop(self) -> None:
        """Bring every vCPU to rest for good, join the threads, and free the processors."""
        super().stop()
        told = self.domain.memory.on_type
        told[:] = [one for one in told if one != self._leave_guest]
        for loop in self._loops.values():
            loop.close()

    def _leave_guest(self, first_gfn: int, count: int, mem_type: int) -> None:
        """Pages have another type: every processor is to see it as soon as its chunk can end."""
        for loop in self._loops.values():
            loop.leave_guest()

    def save_state(self) -> dict[str, Any]:
        """The processors and the board's chips."""
        return EngineState(len(self._loops), self.board).save_from(self._loops)

    def load_state(self, state: object) -> None:
        """Take the processors and the chips over. StateError, and then nothing has changed."""
        EngineState(len(self._loops), self.board).load_into(self._loops, state)

    def leap(self) -> bool:
        """Let virtual time leap to the next deadline if no vCPU runs guest code; whether it did."""
        with self._leaping:
            before = self.domain.clock.now()
            if not all(loop.asleep for loop in self._loops.values()):
                return False
            return self.domain.step_clock(None) > before

    def look_at_down(self) -> None:
        """A domain all of whose vCPUs are down has powered itself off (hvm_vcpu_down)."""
        if all(loop.down for loop in self._loops.values()):
            self.domain.shutdown(layouts.SHUTDOWN_REASON_POWEROFF)
