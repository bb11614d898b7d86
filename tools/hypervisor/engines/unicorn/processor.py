"""One virtual processor: a library instance with the domain's memory, its hooks, and its state.

Code that was translated is translated anew when the guest writes to it, when a string port access
fills it, and when the processor starts or rests; not when an emulator's DMA or another vCPU changes
it, which the library does not see. The time-stamp counter counts nanoseconds of guest time.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from ...images.cpu_start import CpuStart
from .access import Access, Requests
from .address_map import HIDDEN, AddressMap, Span
from .exits import CONTROL_SIZE, EXITS, control_pages
from .identity import cpuid
from .library import (
    HOOK_ALL,
    HOOK_INSN_INVALID,
    HOOK_INTR,
    INTERRUPT_HOOK,
    PLAIN_HOOK,
    Emulator,
)
from .paging import LinearMemory
from .registers import RAX, RBX, RCX, RDX, Registers
from .start import start_state
from .vectoring import NotModelledError

if TYPE_CHECKING:
    from ...chips.board import Board
    from ...domain import Domain
    from .state import ProcessorState

__all__ = ["FAST_SYSTEM_CALL", "UNDEFINED", "Processor"]

UNDEFINED: Final = 6
FAST_SYSTEM_CALL: Final = -1
GENERAL: Final = {RAX: 35, RBX: 37, RCX: 38, RDX: 40}
"""The library's numbers of the registers that CPUID and RDTSC write."""
MASK_32: Final = 0xFFFFFFFF


class Processor:
    """The processor of vCPU ``number``, whose accesses ``requests`` answers."""

    def __init__(self, domain: Domain, number: int, requests: Requests, board: Board) -> None:
        self._domain, self._number = domain, number
        self._stopped: int | None = None
        self._pages = mmap.mmap(-1, CONTROL_SIZE)
        self._pages[:] = control_pages(HIDDEN)
        self._emulator = Emulator()
        self.registers = Registers(self._emulator)
        self.memory = LinearMemory(self.registers, domain.memory)
        self.access = Access(self._emulator, self.registers, domain.memory, requests, board, number)
        self._map = self._make_map()
        self._hook()

    def _make_map(self) -> AddressMap:
        memory = self._domain.memory
        self._buffers = [
            (ctypes.c_ubyte * 1).from_buffer(memory.map),
            (ctypes.c_ubyte * 1).from_buffer(self._pages),
        ]
        start, control = (ctypes.addressof(buffer) for buffer in self._buffers)
        hidden = Span(HIDDEN, CONTROL_SIZE, control)
        return AddressMap(self._emulator, memory, self.access, start, hidden)

    def _hook(self) -> None:
        emulator, stop, handle = self._emulator, self._emulator.library.stop, self._emulator.handle

        def interrupt(_handle: int, number: int, _user: None) -> None:
            self._stopped = number
            stop(handle)

        def invalid(_handle: int, _user: None) -> int:
            self._stopped = UNDEFINED
            stop(handle)
            return 1

        def system_call(_handle: int, _user: None) -> int:
            self._stopped = FAST_SYSTEM_CALL
            stop(handle)
            return 1

        emulator.hook(HOOK_INTR, INTERRUPT_HOOK, interrupt, HOOK_ALL)
        emulator.hook(HOOK_INSN_INVALID, PLAIN_HOOK, invalid, HOOK_ALL)
        emulator.hook_instruction("CPUID", self._cpuid)
        emulator.hook_instruction("SYSCALL", system_call)
        emulator.hook_instruction("SYSENTER", system_call)
        emulator.hook_instruction("RDTSC", self._rdtsc)

    def _cpuid(self, _handle: int, _user: None) -> int:
        try:
            self.registers.load()
            leaf = self.registers.general(RAX) & MASK_32
            subleaf = self.registers.general(RCX) & MASK_32
            answer = cpuid(leaf, subleaf, self._number, self._domain.hypercalls)
            self._set(zip((RAX, RBX, RCX, RDX), answer, strict=True))
        except BaseException as error:
            self.access.fail(error)
        return 1

    def _rdtsc(self, _handle: int, _user: None) -> int:
        try:
            now = self._domain.clock.now()
            self._set(((RAX, now & MASK_32), (RDX, now >> 32 & MASK_32)))
        except BaseException as error:
            self.access.fail(error)
        return 1

    def _set(self, values: Iterable[tuple[int, int]]) -> None:
        """Write registers from a hook."""
        write, handle = self._emulator.library.free.uc_reg_write, self._emulator.handle
        for register, value in values:
            write(handle, GENERAL[register], value.to_bytes(8, "little"))

    def enter(self, start: CpuStart) -> None:
        """Set the whole state to that of ``start``."""
        self.registers.load()
        start_state(self.registers, start)
        self.registers.intercept(HIDDEN, EXITS)
        self.registers.store()
        self.forget()

    def put(self, state: ProcessorState) -> None:
        """Set the whole state to what was saved."""
        self.registers.load()
        state.put(self.registers)
        self.registers.intercept(HIDDEN, EXITS)
        self.registers.store()
        self.forget()

    def forget(self) -> None:
        """Drop what is known of code and page tables."""
        self._emulator.forget_translations()
        self._emulator.forget_code()

    def run(self, count: int) -> int | None:
        """Run at most ``count`` instructions; gives the number of the interrupt that ended it.

        None: the count or a port access did. The registers are loaded afterwards. Raises what an
        access raised, and NotModelledError.
        """
        self.access.leave = False
        if self._map.stale:
            self._update_map()
        if self.access.stale:
            self.access.stale = False
            self._emulator.forget_code()
        self._stopped = None
        error = self._emulator.run(self.registers.rip, count)
        self.registers.load()
        if self.access.failure is not None:
            failure, self.access.failure = self.access.failure, None
            raise failure
        if error and self._stopped is None:
            words = self._emulator.library.error(error)
            raise NotModelledError(f"at {self.registers.rip:#x} the library gave up: {words}")
        return self._stopped

    def _update_map(self) -> None:
        """Take over what the guest has changed of its memory."""
        self.registers.load()
        with self._domain.lock:
            self._map.update()
        self.registers.store()
        self.forget()

    def close(self) -> None:
        """Free the library's instance. Nobody uses the processor any more."""
        self.registers.close()
        self._emulator.close()
        self._buffers.clear()
