"""The life of a vCPU on its processor: guest code in chunks, and what happens between them.

Between two chunks come the things that cannot be done in a hook: interrupts and exceptions are
delivered, timers run, the vCPU halts, rests, starts anew or ends.
"""

from __future__ import annotations

import threading
from itertools import cycle
from time import monotonic_ns
from typing import TYPE_CHECKING, Final, Protocol

from protocol import layouts

from ...clock import NEVER, VirtualClock
from ...errors import DomainEnded
from ...images.cpu_start import CpuStart
from .exits import (
    EXIT_BASE,
    HALT,
    HYPERCALL_LENGTH,
    MSR,
    hypercall,
    is_hypercall,
    read_msr,
    write_msr,
)
from .paging import FaultError
from .processor import FAST_SYSTEM_CALL, UNDEFINED, Processor
from .strings import fetch
from .turns import Turns
from .vectoring import Event, Kind, NotModelledError, TripleFaultError, Vectoring

if TYPE_CHECKING:
    from ...chips.board import Board
    from ...domain import Domain
    from ...vcpu import Vcpu
    from ...vcpu_thread import Event as Injected
    from .state import ProcessorState

__all__ = ["DOWN", "INIT", "UP", "Loop"]

LONGEST_CHUNK: Final = 20_000
SHORTEST_CHUNK: Final = 64
"""Instructions. A longer chunk costs less, a shorter one lets interrupts in sooner."""
WINDOW_CHUNKS: Final = (61, 67, 71, 73, 79)
"""Lengths while an interrupt waits for the guest to let it in. Primes, in turn: a loop that lets
interrupts in for one instruction must not be in step with them."""
LONGEST_NS: Final = 1_000_000
"""A chunk that took longer, for the accesses in it, is followed by a shorter one."""
VIRTUAL_NS: Final = 1
"""Nanoseconds that an instruction takes in virtual time."""
LONGEST_WAIT: Final = 3600.0
MOST_ROUNDS: Final = 8
"""Chunks in which the elements of one request are handed out; a guest that does not want them any
more, because of an exception, rests without."""
NMI: Final = 2
PAGE_FAULT: Final = 14
HLT: Final = 0xF4
SHORT_INT: Final = {3: b"\xcc", 4: b"\xce"}
INIT, DOWN, UP = -1, -2, -3
NO_ERROR_CODE: Final = 0xFFFFFFFF


class Neighbours(Protocol):
    """What a vCPU asks about all of its domain, itself included."""

    def look_at_down(self) -> None:
        """A vCPU is down: end the domain if all are."""

    def leap(self) -> bool:
        """Let virtual time leap to the next deadline if no vCPU runs guest code; whether it did."""


class Loop:
    """Runs one vCPU. `run` is its thread's; `kick` and `post` are anybody's.

    ``turns``: None when the domain has one processor. ``start``: None for a vCPU that waits for
    STARTUP. ``down``: only INIT and STARTUP can wake it.
    """

    def __init__(
        self,
        domain: Domain,
        vcpu: Vcpu,
        processor: Processor,
        board: Board,
        turns: Turns | None,
        start: CpuStart | None,
        engine: Neighbours,
    ) -> None:
        self._domain, self._vcpu, self._processor, self._board = domain, vcpu, processor, board
        self._turns, self._neighbours = turns, engine
        self._clock = domain.clock
        self._virtual = self._clock if isinstance(self._clock, VirtualClock) else None
        self._registers = processor.registers
        self._vectoring = Vectoring(self._registers, processor.memory)
        self._wake = threading.Event()
        self._mail: list[int | CpuStart] = []
        self._chunk = LONGEST_CHUNK
        self._windows = cycle(WINDOW_CHUNKS)
        self._halted = False
        self._rounds = 0
        """How often the vCPU ran on although it was to rest."""
        self.down = self._sleeps = self._initialised = start is None
        if start is not None:
            processor.enter(start)
        vcpu.on_kick.append(self.kick)

    @property
    def asleep(self) -> bool:
        """Whether it runs no guest code, and nothing has woken it yet."""
        return self._sleeps and not self._wake.is_set()

    def kick(self) -> None:
        """Have the loop look around, should it sleep."""
        self._wake.set()

    def leave_guest(self) -> None:
        """Have the chunk end at the next port access that the guest makes, at the latest."""
        self._processor.access.leave = True

    def post(self, message: int | CpuStart) -> None:
        """A message of a local APIC: `INIT`, or the vector of a STARTUP; or of a hypercall: how to
        begin, `DOWN` or `UP`."""
        self._mail.append(message)
        self._wake.set()

    def close(self) -> None:
        """Free the processor. The thread has ended."""
        if self.kick in self._vcpu.on_kick:
            self._vcpu.on_kick.remove(self.kick)
        self._processor.close()

    def run(self) -> None:
        """Run the guest until its domain ends: DomainEnded."""
        self._board.bind_thread(self._vcpu.id)
        try:
            while True:
                self._step()
        except TripleFaultError:
            reason = self._domain.params.get(layouts.HVM_PARAM_TRIPLE_FAULT_REASON)
            self._domain.shutdown(reason)
        except NotModelledError as error:
            self._domain.crash(f"vCPU {self._vcpu.id}: {error}")
        raise DomainEnded(f"vCPU {self._vcpu.id} of domain {self._domain.domid}")

    def _step(self) -> None:
        clock = self._clock
        self._wake.clear()
        if self._vcpu.attention and not self._unfinished():
            self._rest()
        if self._mail:
            self._read_mail()
        if clock.deadline != NEVER and clock.now() >= clock.deadline:
            self._board.run_due()
        if not self.down:
            self._interrupt()
        if self.down or self._halted:
            self._sleep()
            return
        stopped = self._run_chunk()
        if stopped is not None:
            self._serve(stopped)

    def save(self, state: ProcessorState) -> None:
        """Fill in what the vCPU, which is parked, has of state."""
        self._read_mail()
        self._registers.load()
        state.take(self._registers)
        state.halted, state.down = int(self._halted), int(self.down)
        state.initialised = int(self._initialised)

    def restore(self, state: ProcessorState) -> None:
        """Go on from a state, before `run`."""
        self._processor.put(state)
        self._halted, self.down = bool(state.halted), bool(state.down)
        self._sleeps, self._initialised = self.down, bool(state.initialised)

    def _unfinished(self) -> bool:
        """Whether elements of a request that was made are still to be handed out: they go to the
        guest before it rests, for a saved state has no place for them."""
        left = self._processor.access.left
        self._rounds = self._rounds + 1 if left else 0
        return 0 < self._rounds <= MOST_ROUNDS

    def _rest(self) -> None:
        self._vcpu.rest()
        self._processor.forget()
        event = self._vcpu.take_event()
        if event is not None and not self.down:
            self._registers.load()
            self._deliver(_from_outside(event))

    def _read_mail(self) -> None:
        while self._mail:
            message = self._mail.pop(0)
            if isinstance(message, CpuStart):
                self.down = self._initialised = self._halted = False
                self._processor.enter(message)
            elif message == UP:
                self.down = False
            elif message == DOWN:
                self.down = True
                self._neighbours.look_at_down()
            elif message == INIT:
                self.down = self._initialised = True
            elif self._initialised:
                self._initialised = self.down = self._halted = False
                self._processor.enter(CpuStart("real", ip=0, cs=message << 8))

    def _sleep(self) -> None:
        """Wait until something may have changed for a processor that does not run."""
        if self._vcpu.attention or self._mail:
            return
        self._sleeps = True
        clock, wait = self._clock, LONGEST_WAIT
        if self._virtual is not None:
            if self._neighbours.leap():
                wait = 0
        elif clock.deadline != NEVER:
            wait = min((clock.deadline - clock.now()) / 1e9, LONGEST_WAIT)
        if wait > 0:
            self._wake.wait(wait)
        self._sleeps = False

    def _interrupt(self) -> None:
        """Deliver what is pending if the guest takes it now; else see to it that it soon will."""
        board, number, access = self._board, self._vcpu.id, self._processor.access
        access.blocked = False
        if not board.pending[number] and not board.nmi[number]:
            return
        if access.busy:
            access.blocked = True
        elif board.nmi[number] and not self._registers.shadowed:
            board.nmi[number] = False
            self._deliver(Event(NMI, Kind.EXTERNAL))
        elif self._registers.interruptible:
            vector = board.acknowledge(number)
            if vector is not None:
                self._deliver(Event(vector, Kind.EXTERNAL))
        else:
            access.blocked = True

    def _deliver(self, event: Event) -> None:
        self._vectoring.deliver(event)
        self._registers.store()
        self._halted = False

    def _run_chunk(self) -> int | None:
        count = self._chunk
        if self._rounds:
            count = self._processor.access.left
        elif self._processor.access.blocked:
            count = 1 if self._registers.shadowed else next(self._windows)
        if self._turns is not None:
            self._turns.take()
        before = monotonic_ns()
        try:
            return self._processor.run(count)
        finally:
            if self._turns is not None:
                self._turns.give()
            if self._virtual is None:
                long = monotonic_ns() - before > LONGEST_NS
                chunk = self._chunk // 2 if long else self._chunk * 2
                self._chunk = max(SHORTEST_CHUNK, min(chunk, LONGEST_CHUNK))
            else:
                self._domain.step_clock(count * VIRTUAL_NS)

    def _serve(self, stopped: int) -> None:
        """Deal with what ended a chunk."""
        registers = self._registers
        if stopped == EXIT_BASE + HALT:
            self._halt()
        elif stopped == FAST_SYSTEM_CALL:
            raise NotModelledError(f"SYSCALL or SYSENTER before {registers.rip:#x}")
        else:
            try:
                self._serve_instruction(stopped)
            except FaultError as fault:
                event = Event(fault.vector, Kind.EXCEPTION, fault.error_code, fault.cr2)
                self._deliver(event)

    def _serve_instruction(self, stopped: int) -> None:
        registers, hypercalls = self._registers, self._domain.hypercalls
        if stopped == EXIT_BASE + MSR:
            if registers.error_code:
                write_msr(registers, hypercalls)
                self._processor.forget()
            else:
                read_msr(registers, self._vcpu.id, self._clock.now())
            self._pass(2)
        elif stopped >= EXIT_BASE:
            raise NotModelledError(f"SVM exit {stopped - EXIT_BASE:#x} at {registers.rip:#x}")
        elif stopped == UNDEFINED and hypercalls is not None and is_hypercall(self._code()):
            hypercall(registers, self._vcpu.id, hypercalls)
            self._pass(HYPERCALL_LENGTH)
        elif registers.software:
            self._deliver(Event(stopped, Kind.SOFTWARE, length=self._length_of_int(stopped)))
        else:
            self._deliver(Event.exception(stopped, registers.error_code))

    def _halt(self) -> None:
        """HLT, after any prefixes. With interrupts off nothing but INIT wakes the vCPU again."""
        self._pass(self._code().index(HLT) + 1)
        self._halted = True
        if not self._registers.interrupts_on:
            self.down = True
            self._neighbours.look_at_down()

    def _length_of_int(self, vector: int) -> int:
        """Bytes of the INT, INT3 or INTO that was just performed."""
        short = SHORT_INT.get(vector)
        return 1 if short is not None and self._code(-1)[:1] == short else 2

    def _code(self, offset: int = 0) -> bytes:
        return fetch(self._registers, self._processor.memory, offset)

    def _pass(self, length: int) -> None:
        """Go on after an instruction of ``length`` bytes that the engine has performed."""
        self._registers.rip += length
        self._registers.settle()
        self._registers.store()


def _from_outside(event: Injected) -> Event:
    """What inject_event asked for, as an event."""
    if event.kind == layouts.EVENT_TYPE_EXT_INT:
        return Event(event.vector, Kind.EXTERNAL)
    code = None if event.error_code == NO_ERROR_CODE else event.error_code
    cr2 = event.cr2 if event.vector == PAGE_FAULT else None
    return Event(event.vector, Kind.EXCEPTION, code, cr2)
