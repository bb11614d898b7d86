"""Whether KVM can be used: found out by running a few instructions, not by opening the device.

A paravirtual or nested /dev/kvm may open and make virtual machines, and still not run every mode:
one that emulates what the hardware cannot do lacks the return from an interrupt in protected mode.
"""

from __future__ import annotations

import ctypes as c
import mmap
import os
import struct
from errno import EINTR
from functools import cache
from typing import Literal

from protocol.kvm import KvmExit

from ...errors import EngineUnavailable
from ...images.cpu_start import CpuStart
from .ending import describe
from .kick import interrupted_after
from .machine import KvmMachine
from .start import enter

__all__ = ["unusable"]

Mode = Literal["real", "protected", "long"]
SIZE = 1 << 16
ENTRY, TABLES, GDT, STACK = 0x8000, 0x1000, 0x500, 0x7000
PORT = 0xEA
"""Nobody's: neither the kernel's controllers nor a device has it."""
SAY = b"\xb0\x5a\xe6" + bytes((PORT,)) + b"\xeb\xfa"
"""MOV AL, 0x5a; OUT; back to the first: the same bytes in all modes."""
RETURNS = {
    "real": b"\x9c\x0e\xe8\x02\x00\xeb\x01\xcf",
    "protected": b"\x9c\x0e\xe8\x02\x00\x00\x00\xeb\x01\xcf",
    "long": b"\x48\x89\xe1\x8c\xd0\x50\x51\x9c\x8c\xc8\x50\xe8\x02\x00\x00\x00\xeb\x02\x48\xcf",
}
"""What each mode does before: it makes a frame as an interrupt does, and an IRET from it."""
DESCRIPTORS = {
    "real": (),
    "protected": (0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF),
    "long": (0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF),
}
"""The GDT of each mode: nothing, code, data."""
PATIENCE = 1.0
"""Seconds for a dozen instructions."""
PRESENT_WRITABLE, LARGE = 3, 1 << 7


@cache
def unusable(mode: Mode) -> str | None:
    """Why KVM cannot run ``mode`` (real, protected or long) here, in one line; None: it can."""
    try:
        machine = KvmMachine()
    except EngineUnavailable as error:
        return str(error)
    memory = mmap.mmap(-1, SIZE)
    try:
        return _try(machine, memory, mode)
    except OSError as error:
        return f"KVM does not run {mode} mode: {error.strerror}"
    finally:
        machine.close()


def _try(machine: KvmMachine, memory: mmap.mmap, mode: Mode) -> str | None:
    code = RETURNS[mode] + SAY
    memory[ENTRY : ENTRY + len(code)] = code
    gdt = struct.pack(f"<{len(DESCRIPTORS[mode])}Q", *DESCRIPTORS[mode])
    memory[GDT : GDT + len(gdt)] = gdt
    for level, table in enumerate((TABLES, TABLES + 0x1000, TABLES + 0x2000)):
        entry = LARGE | PRESENT_WRITABLE if level == 2 else table + 0x1000 | PRESENT_WRITABLE
        memory[table : table + 8] = entry.to_bytes(8, "little")
    machine.show_memory([(0, SIZE, c.addressof(c.c_char.from_buffer(memory)), True)])
    cpu = machine.add_cpu(0)
    machine.identify(cpu)
    enter(cpu, CpuStart(mode, ip=ENTRY, sp=STACK, page_table=TABLES))
    sregs = cpu.sregs()
    sregs.gdt.base, sregs.gdt.limit = GDT, max(len(gdt), 1) - 1
    cpu.set_sregs(sregs)
    with interrupted_after(PATIENCE, cpu):
        while (error := cpu.enter()) == EINTR and not cpu.run.immediate_exit:
            pass  # Some other signal of this thread's.
    if error == EINTR:
        return f"KVM does not run {mode} mode: it takes longer than {PATIENCE:.0f} s"
    if error:
        raise OSError(error, os.strerror(error))
    reason, io = cpu.run.exit_reason, cpu.run.exit.io
    if reason == KvmExit.IO and io.port == PORT and cpu.page[io.data_offset] == 0x5A:
        return None
    return f"KVM does not run all of {mode} mode here: {describe(cpu.run)}"
