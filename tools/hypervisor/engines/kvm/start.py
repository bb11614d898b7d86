"""How a `CpuStart` becomes KVM's registers. Facts: Intel SDM volume 3, 10.1 and 3.4.5."""

from __future__ import annotations

from protocol.kvm import KvmRegs, KvmSegment, KvmSregs

from ...images.cpu_start import CpuStart
from .machine import KvmCpu

__all__ = ["enter"]

CODE, DATA = 0x08, 0x10
EXECUTE_READ_ACCESSED, READ_WRITE_ACCESSED = 11, 3
CR0_PROTECTION, CR0_EXTENSION, CR0_PAGING = 1 << 0, 1 << 4, 1 << 31
CR4_PAE = 1 << 5
EFER_LONG_ENABLE, EFER_LONG_ACTIVE = 1 << 8, 1 << 10
RFLAGS_FIXED = 2
DATA_SEGMENTS = ("ds", "es", "fs", "gs", "ss")


def enter(cpu: KvmCpu, start: CpuStart) -> None:
    """Put ``cpu`` where ``start`` says."""
    sregs = cpu.sregs()
    if start.mode == "real":
        _real(sregs, start)
    else:
        _flat(sregs, long=start.mode == "long")
        if start.mode == "long":
            sregs.cr3 = start.page_table
            sregs.cr4 |= CR4_PAE
            sregs.efer |= EFER_LONG_ENABLE | EFER_LONG_ACTIVE
            sregs.cr0 |= CR0_PAGING
    cpu.set_sregs(sregs)
    registers = KvmRegs(rip=start.ip, rax=start.eax, rbx=start.ebx, rsp=start.sp)
    registers.rflags = RFLAGS_FIXED
    cpu.set_regs(registers)


def _real(sregs: KvmSregs, start: CpuStart) -> None:
    sregs.cs.selector = start.cs
    sregs.cs.base = start.code_base
    for name in DATA_SEGMENTS:
        segment = getattr(sregs, name)
        segment.selector = segment.base = 0


def _flat(sregs: KvmSregs, *, long: bool) -> None:
    sregs.cr0 |= CR0_PROTECTION | CR0_EXTENSION
    code = _segment(CODE, EXECUTE_READ_ACCESSED)
    code.db, code.l = (0, 1) if long else (1, 0)
    sregs.cs = code
    for name in DATA_SEGMENTS:
        setattr(sregs, name, _segment(DATA, READ_WRITE_ACCESSED))


def _segment(selector: int, kind: int) -> KvmSegment:
    return KvmSegment(limit=0xFFFFFFFF, selector=selector, type=kind, present=1, db=1, s=1, g=1)
