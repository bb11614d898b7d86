"""How an event of XEN_DMOP_inject_event gets into a vCPU of KVM.

Facts: xen/arch/x86/hvm/hvm.c (hvm_inject_event), Documentation/virt/kvm/api.rst
(KVM_SET_VCPU_EVENTS, KVM_NMI). A software interrupt is pushed with the address behind its
instruction, which an interrupt from outside is without further ado once RIP is there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol import layouts
from protocol.kvm import KvmRequest, KvmVcpuEvents

from .control import control

if TYPE_CHECKING:
    from ...vcpu_thread import Event
    from .machine import KvmCpu

__all__ = ["inject"]

MASK_32 = 0xFFFFFFFF
NO_ERROR_CODE = MASK_32
PAGE_FAULT = 14


def inject(cpu: KvmCpu, event: Event) -> None:
    """Have the guest take ``event`` when it goes on; no access of its is under way.

    Raises OSError when the kernel refuses, as it does an exception beyond vector 31.
    """
    if event.kind == layouts.EVENT_TYPE_NMI:
        control(cpu.fd, KvmRequest.NMI)
        return
    events = KvmVcpuEvents()
    control(cpu.fd, KvmRequest.GET_VCPU_EVENTS, events)
    if event.kind == layouts.EVENT_TYPE_HW_EXC:
        events.exception_injected, events.exception_nr = 1, event.vector
        events.exception_has_error_code = int(event.error_code != NO_ERROR_CODE)
        events.exception_error_code = event.error_code & MASK_32
        if event.vector == PAGE_FAULT:
            sregs = cpu.sregs()
            sregs.cr2 = event.cr2
            cpu.set_sregs(sregs)
    else:
        events.interrupt_injected, events.interrupt_nr = 1, event.vector
        if event.kind != layouts.EVENT_TYPE_EXT_INT:
            regs = cpu.regs()
            regs.rip += event.length
            cpu.set_regs(regs)
    control(cpu.fd, KvmRequest.SET_VCPU_EVENTS, events)
