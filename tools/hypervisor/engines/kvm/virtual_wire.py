"""The 8259 pair's way to the first vCPU, where a guest wires it through the I/O APIC.

hvmloader masks LINT0 of the local APIC and has pin 0 of the I/O APIC deliver ExtINT; Xen's models
know that (vlapic_accept_pic_intr), KVM's do not: they let the 8259's interrupts in by LINT0 alone
(arch/x86/kvm/lapic.c: kvm_apic_accept_pic_intr). So LINT0 is unmasked in its place, which a guest
could see if it read it back.
"""

from __future__ import annotations

from protocol.kvm_chips import KvmChipRequest, KvmLapicState

from .control import control
from .machine import KvmCpu, KvmMachine

__all__ = ["wire"]

LVT0 = 0x350
MASKED = 1 << 16
MODE = 7 << 8
EXTINT = 7 << 8


def wire(machine: KvmMachine, cpu: KvmCpu) -> None:
    """Let the 8259's interrupts reach ``cpu`` if the guest has them come by the I/O APIC."""
    if machine.ioapic().redirections[0] & (MODE | MASKED) != EXTINT:
        return
    state = KvmLapicState()
    control(cpu.fd, KvmChipRequest.GET_LAPIC, state)
    if state.registers[LVT0 // 4] & MASKED:
        state.registers[LVT0 // 4] = EXTINT
        control(cpu.fd, KvmChipRequest.SET_LAPIC, state)
