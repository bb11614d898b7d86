"""What a vCPU's thread does with KVM: run, and post each access that comes out to `Vcpu`.

A repeated string instruction comes out with all of its elements but without its buffer's address,
so its elements are posted one by one. A hypercall is a write to a port here: the guest's page of
stubs is filled with OUT instead of VMCALL, which the kernel would answer itself.

The kernel's I/O APIC has 24 pins where Xen's has 48: an INTx line whose GSI is 24 or above reaches
a guest only by its link and the 8259 pair.
"""

from __future__ import annotations

import ctypes as c
import os
from collections.abc import Callable
from errno import EAGAIN, EINTR
from typing import TYPE_CHECKING, NoReturn

from protocol import layouts
from protocol.kvm import KvmExit, KvmMmio

from ...chips.timekeepers import Timekeepers
from ...errors import DomainEnded, EngineUnavailable
from ...memory import PAGE_SHIFT
from ...vcpu import MEMORY, PORT
from .. import Engine
from .ending import describe
from .events import inject
from .kick import forget_kicks, kick, kickable
from .machine import KvmCpu, KvmMachine
from .orders import Orders
from .start import enter
from .virtual_wire import wire

if TYPE_CHECKING:
    from ...domain import Domain
    from ...images.cpu_start import CpuStart
    from ...vcpu import Vcpu
    from ...vcpu_thread import Event

__all__ = ["KvmEngine"]

HYPERCALL_PORT = 0xEA
HYPERCALL = bytes((0xE7, HYPERCALL_PORT))
"""OUT to the port, from EAX."""
ARGUMENTS_32 = ("rbx", "rcx", "rdx", "rsi", "rdi")
ARGUMENTS_64 = ("rdi", "rsi", "rdx", "r10", "r8")
"""Registers of hypercall arguments (public/arch-x86/xen-x86_32.h and xen-x86_64.h)."""
MASK_32 = 0xFFFFFFFF


class KvmEngine(Engine):
    """Runs ``domain`` from ``start``. EngineUnavailable: KVM cannot be used here."""

    name = "kvm"

    def __init__(self, domain: Domain, start: CpuStart) -> None:
        super().__init__(domain)
        self._machine = KvmMachine()
        try:
            self._set_up(domain, start)
        except OSError as error:
            self._machine.close()
            raise EngineUnavailable(f"KVM refuses this guest: {error.strerror}") from None
        except BaseException:
            self._machine.close()
            raise

    def _set_up(self, domain: Domain, start: CpuStart) -> None:
        machine, calls = self._machine, domain.hypercalls
        # Xen gives vCPU n the APIC id 2n.
        self._cpus = {vcpu.id: machine.add_cpu(2 * vcpu.id) for vcpu in domain.vcpus}
        first = self._cpus[domain.vcpus[0].id]
        if calls is not None:
            machine.let_msrs_out()
            calls.shared.tsc_khz = first.tsc_khz() or calls.shared.tsc_khz
        for number, cpu in self._cpus.items():
            machine.identify(cpu, self._leaves(number))
        enter(first, start)
        self._orders = Orders(domain)
        domain.on_vcpu = self._orders.give
        with domain.lock:
            self._show_memory()
            Timekeepers(domain)
            domain.memory.on_change.append(self._show_memory)
            domain.interrupts.sink = machine

    def _show_memory(self) -> None:
        """Let the guest have the RAM that it has now. Called under the domain's lock."""
        memory = self.domain.memory
        base = c.addressof(c.c_char.from_buffer(memory.map))
        self._machine.show_memory(
            (gpa, size, base + offset, writable) for gpa, size, offset, writable in memory.runs()
        )

    def _leaves(self, vcpu: int) -> list[tuple[int, tuple[int, ...]]]:
        """Xen's leaves of CPUID, as ``vcpu`` sees them."""
        calls = self.domain.hypercalls
        if calls is None:
            return []
        first = layouts.XEN_CPUID_FIRST
        found = ((leaf, calls.cpuid(leaf, vcpu)) for leaf in range(first, first + 0x100))
        return [(leaf, registers) for leaf, registers in found if registers is not None]

    def stop(self) -> None:
        """See `Engine.stop`; KVM is given back, unless a vCPU's own thread calls this."""
        super().stop()
        if self.join(0):
            with self.domain.lock:
                told = self.domain.memory.on_change
                told[:] = [one for one in told if one != self._show_memory]
                self._machine.close()

    def run(self, vcpu: Vcpu) -> None:
        """See `Engine.run`."""
        cpu = self._cpus[vcpu.id]
        with kickable(cpu) as thread:

            def interrupt() -> None:
                kick(cpu, thread)

            with self.domain.lock:
                vcpu.on_kick.append(interrupt)
            # Whoever wanted something of this vCPU before could not kick it.
            cpu.run.immediate_exit = 1
            try:
                self._loop(vcpu, cpu)
            finally:
                with self.domain.lock:
                    vcpu.on_kick.remove(interrupt)

    def _loop(self, vcpu: Vcpu, cpu: KvmCpu) -> None:
        handlers: dict[int, Callable[[Vcpu, KvmCpu], None]] = {
            KvmExit.IO: self._port,
            KvmExit.MMIO: self._memory,
            KvmExit.SHUTDOWN: self._triple_fault,
            KvmExit.X86_RDMSR: self._read_msr,
            KvmExit.X86_WRMSR: self._write_msr,
            KvmExit.INTR: _nothing,
        }
        run = cpu.run
        event: Event | None = None
        while True:
            # The kick's flag, not ``vcpu.attention``: an access that waits sees to the latter
            # itself, and an event would be left where it is.
            if run.immediate_exit:
                run.immediate_exit = 0
                vcpu.rest()
                self._orders.follow(vcpu.id, cpu)
                event = event or vcpu.take_event()
                if event is not None:
                    # First comes the end of the access that the last exit was about, which takes
                    # an entry; the guest is not to go on with it.
                    run.immediate_exit = 1
            error = cpu.enter()
            if not error:
                handlers.get(run.exit_reason, self._fail)(vcpu, cpu)
            elif error in (EINTR, EAGAIN):
                # Kicked; or a vCPU that waits for its start was made ready, which is no exit.
                forget_kicks()
                if event is not None:
                    self._inject(vcpu, cpu, event)
                    event = None
            else:
                self._crash(vcpu, cpu, os.strerror(error))

    def _inject(self, vcpu: Vcpu, cpu: KvmCpu, event: Event) -> None:
        try:
            inject(cpu, event)
        except OSError as error:
            what = f"vector {event.vector:#x} of type {event.kind}: {error.strerror}"
            self._crash(vcpu, cpu, f"it does not inject {what}")

    def _port(self, vcpu: Vcpu, cpu: KvmCpu) -> None:
        io = cpu.run.exit.io
        port, size, at = io.port, io.size, io.data_offset
        page = cpu.page
        for _ in range(io.count):
            if not io.direction:
                page[at : at + size] = vcpu.read(PORT, port, size).to_bytes(size, "little")
            elif port == HYPERCALL_PORT and size == 4 and self.domain.hypercalls is not None:
                self._hypercall(vcpu, cpu)
            else:
                vcpu.write(PORT, port, size, int.from_bytes(page[at : at + size], "little"))
            at += size

    def _memory(self, vcpu: Vcpu, cpu: KvmCpu) -> None:
        mmio = cpu.run.exit.mmio
        size = mmio.len
        if self._is_ram(mmio.phys_addr):
            self._touch(mmio.phys_addr, mmio)
        elif mmio.is_write:
            vcpu.write(MEMORY, mmio.phys_addr, size, int.from_bytes(mmio.data[:size], "little"))
        else:
            mmio.data[:size] = vcpu.read(MEMORY, mmio.phys_addr, size).to_bytes(size, "little")

    def _touch(self, gpa: int, mmio: KvmMmio) -> None:
        """RAM that was being mapped anew when this vCPU came to it, or that is read-only."""
        read_only = self.domain.memory.types.get(gpa >> PAGE_SHIFT) == layouts.MEM_TYPE_RAM_RO
        with self.domain.lock:
            if mmio.is_write and read_only:
                return
            if mmio.is_write:
                self.domain.memory.write(gpa, bytes(mmio.data[: mmio.len]))
            else:
                mmio.data[: mmio.len] = self.domain.memory.read(gpa, mmio.len)

    def _hypercall(self, vcpu: Vcpu, cpu: KvmCpu) -> None:
        assert self.domain.hypercalls is not None
        wide = bool(cpu.sregs().cs.l)
        regs = cpu.regs()
        names = ARGUMENTS_64 if wide else ARGUMENTS_32
        mask = ~0 if wide else MASK_32
        arguments = [getattr(regs, name) & mask for name in names]
        number = regs.rax & MASK_32
        try:
            regs.rax = self.domain.hypercalls.call(vcpu.id, number, arguments, wide)
        except OSError as error:
            self._crash(vcpu, cpu, f"its memory cannot be mapped: {error.strerror}")
        cpu.set_regs(regs)
        if number == layouts.HYPERCALL_HVM_OP and vcpu.id == 0:
            # Firmware makes one of these, at least, after it has set up the interrupt controllers.
            wire(self._machine, cpu)

    def _read_msr(self, vcpu: Vcpu, cpu: KvmCpu) -> None:
        cpu.run.exit.msr.error = 1

    def _write_msr(self, vcpu: Vcpu, cpu: KvmCpu) -> None:
        msr, calls = cpu.run.exit.msr, self.domain.hypercalls
        msr.error = 1
        if calls is not None and msr.index == calls.msr and self._is_page(msr.data):
            calls.fill_page(msr.data, HYPERCALL, wide=bool(cpu.sregs().cs.l))
            msr.error = 0

    def _is_ram(self, gpa: int) -> bool:
        """Whether the guest has RAM there, which no emulator is to answer for."""
        kind = self.domain.memory.types.get(gpa >> PAGE_SHIFT)
        return self._is_page(gpa) and kind != layouts.MEM_TYPE_MMIO_DM

    def _is_page(self, gpa: int) -> bool:
        return self.domain.memory.find(gpa) is not None

    def _triple_fault(self, vcpu: Vcpu, cpu: KvmCpu) -> None:
        """The guest's, which ends it as HVM_PARAM_TRIPLE_FAULT_REASON says."""
        reason = self.domain.params.get(layouts.HVM_PARAM_TRIPLE_FAULT_REASON)
        self.domain.shutdown(reason)

    def _fail(self, vcpu: Vcpu, cpu: KvmCpu) -> None:
        self._crash(vcpu, cpu, describe(cpu.run))

    def _crash(self, vcpu: Vcpu, cpu: KvmCpu, why: str) -> NoReturn:
        message = f"KVM cannot run vCPU {vcpu.id} at {cpu.regs().rip:#x}: {why}"
        self.domain.crash(message)
        raise DomainEnded(message)


def _nothing(*_: object) -> None:
    """The vCPU was interrupted, for what is looked at before it goes on."""
