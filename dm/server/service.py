"""One turn of the process after the other: when to sleep, when to watch, what comes first.

The order of a turn: the ring, synchronous slots, due timers, back ends and QMP; then, if it pays,
watch the slots for a while, or yield the only CPU and look; then unmask the ports and sleep.
"""

from __future__ import annotations

from time import monotonic_ns

from .polling import PollWindow

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dm.hypervisor.interface import Hypervisor
    from dm.machine.machine import Machine

    from .loop import Call, Loop
    from .server import IoreqServer

__all__ = ["Service"]

RING_DELAY = 100_000_000
"""Nanoseconds for which buffered requests may wait (as QEMU's BUFFER_IO_MAX_DELAY); virtual time
may stand still for ever, so nothing waits then."""
LOOK_AROUND = 1_000_000
"""Nanoseconds of watching a busy guest after which the other descriptors get their turn; a few
more where system calls are dear."""
LOOKS, ANSWERS = 256, 8
"""So many looks at the slots, or answers, for one at the clock: that is a system call in a dom0."""
LOOK_AROUND_ALONE = 5_000_000
"""The same for yielding, where each look takes from the one CPU that there is."""
LONGEST_TURN = 20_000_000
"""Nanoseconds after which a turn ends, however busy the guest: it may have to be the last one."""


class Service:
    """Runs a server on a loop."""

    def __init__(
        self,
        loop: Loop,
        hypervisor: Hypervisor,
        machine: Machine,
        server: IoreqServer,
        window: PollWindow,
        now: Callable[[], int] = monotonic_ns,
    ) -> None:
        self._loop = loop
        self._hypervisor = hypervisor
        self._machine = machine
        self._server = server
        self.window = window
        self._now = now
        self.answers = 0
        self._ring_call: Call | None = None
        self._ring_delay = RING_DELAY if hypervisor.clock is None else 0
        hypervisor.announce_to(loop, self._on_events)
        loop.next_deadline = self._next_timer
        if hypervisor.clock is not None:
            from .virtual import answer_clock

            answer_clock(loop, hypervisor.clock, machine, server)

    def _next_timer(self) -> int | None:
        timers = self._machine.timers
        deadline = timers.next_deadline() if timers.armed else None
        if deadline is None:
            return None
        return self._loop.now() + max(deadline - self._machine.clock.now(), 0)

    def _on_events(self, ports: Sequence[int]) -> None:
        self.answers += self._server.announced(ports)
        if self._server.ring_announced and self._ring_call is None:
            self._ring_call = self._loop.call_at(
                self._loop.now() + self._ring_delay, self._drain_later
            )

    def _drain_later(self) -> None:
        """Drain the ring; go on doing so while it fills, else wait to be told again."""
        self._ring_call = None
        if self._server.paused:
            return
        if self._server.drain():
            self._ring_call = self._loop.call_at(
                self._loop.now() + self._ring_delay, self._drain_later
            )
        else:
            self._server.unmask_ring()

    def resume(self) -> None:
        """Serve what waited while the server was paused."""
        self.answers += self._server.serve_all()
        if self._server.ring_announced and self._ring_call is None:
            self._drain_later()

    def turn(self) -> None:
        """Wait for something, do it, and watch for more while that pays."""
        loop, window, timers = self._loop, self.window, self._machine.timers
        answers = self.answers
        timeout = loop.timeout() if loop.calls or timers.armed else -1
        if timeout and window.limit:
            before = self._now()
            loop.run_once(timeout)
            if self.answers != answers:
                window.woke(self._now() - before)
        else:
            loop.run_once(timeout)
        if timers.armed:
            self._run_timers()
        end = 0
        while self.answers != answers and (window.length or window.may_yield()):
            answers = self.answers
            end = end or self._now() + LONGEST_TURN
            if window.length:
                self._watch()
            else:
                self._yield()
            before = self._now()
            if before >= end:
                break
            loop.run_once(0)
            window.measured(self._now() - before)
            self._run_timers()
        self._server.unmask()

    def _run_timers(self) -> None:
        machine = self._machine
        deadline = machine.timers.next_deadline() if machine.timers.armed else None
        if deadline is not None and deadline <= machine.clock.now():
            machine.run_timers()

    def _watch(self) -> None:
        """Serve slots as they become READY, until the window has passed without one."""
        server, window, now = self._server, self.window, self._now
        look, serve = server.slots.look, server.serve_ready
        stretch = max(LOOK_AROUND, window.stretch)
        start = since = current = now()
        vcpu, answers, counts = -1, 0, True
        while not server.paused:
            vcpu = look(vcpu + 1, LOOKS)
            if vcpu >= 0:
                self.answers += serve(vcpu)
                answers += 1
                # The time of this answer is unknown; that of the next look at the clock will do.
                counts = False
                if answers % ANSWERS:
                    continue
            current = now()
            if current - start >= stretch and vcpu >= 0:
                break
            if not counts:
                since, counts = current, True
            elif current - since >= window.length:
                window.missed()
                break
        window.watched(answers, current - start)

    def _yield(self) -> None:
        """Yield the only CPU after each answer, as long as the guest comes back with a request."""
        server, window = self._server, self.window
        end = self._now() + LOOK_AROUND_ALONE
        vcpu, answers = -1, 0
        while not server.paused and (answers % ANSWERS or self._now() < end):
            if not self._hypervisor.yield_cpu():
                window.yields = False
                return
            vcpu = server.slots.next_ready(vcpu + 1)
            window.yielded(paid=vcpu >= 0)
            if vcpu < 0:
                return
            self.answers += server.serve_ready(vcpu)
            answers += 1
