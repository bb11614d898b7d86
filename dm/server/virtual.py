"""Virtual time: a loop that never lets time pass, and what is done when the other side moves it."""

from __future__ import annotations

from select import EPOLLIN

from .loop import Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dm.hypervisor.interface import VirtualClock
    from dm.machine.machine import Machine

    from .loop import Poller
    from .server import IoreqServer

__all__ = ["VirtualLoop", "answer_clock"]

ROUNDS = 64
"""Rounds of timers at one and the same time, each of which may start others that are due."""
NEXT_TRY = 1_000
"""Nanoseconds after which timers go on that are due again after so many rounds."""


class VirtualLoop(Loop):
    """A loop by a clock that stands still while it sleeps: only a descriptor ends its sleep."""

    def __init__(self, clock: VirtualClock, poller: Poller | None = None) -> None:
        super().__init__(poller, clock.now)

    def timeout(self) -> float:
        """0 when something is due, else -1."""
        deadline = self.deadline()
        return -1 if deadline is None or deadline > self.now() else 0


def answer_clock(loop: Loop, clock: VirtualClock, machine: Machine, server: IoreqServer) -> None:
    """Have ``loop`` answer the clock's questions: do all that is due, then say what comes next.

    What the guest wrote before, through the ring, is done before any timer.
    """

    def asked(events: int) -> None:
        question = clock.question()
        if question is None:
            return
        if not server.paused:
            server.drain()
        for _ in range(ROUNDS):
            loop.run_calls()
            deadline = loop.deadline()
            if deadline is None or deadline > clock.now():
                break
            machine.run_timers()
        else:
            deadline = clock.now() + NEXT_TRY
        clock.answer(question, deadline)

    loop.add(clock.fd, EPOLLIN, asked)
