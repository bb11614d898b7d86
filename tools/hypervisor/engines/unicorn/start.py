"""The first state of a processor: what each kind of start means in registers.

Facts: Intel SDM volume 3, 10.1.4 (state after reset); Xen's docs/misc/pvh.pandoc (32-bit entry).
Code that is entered in long mode also finds SSE on, which compilers for it take for granted.
"""

from __future__ import annotations

from typing import Final

from ...images.cpu_start import CpuStart
from .registers import CS, DS, ES, FS, GDT, GS, IDT, LDT, RAX, RBX, SS, TR, Registers, Segment

__all__ = ["start_state"]

REAL_LIMIT: Final = 0xFFFF
FLAT_LIMIT: Final = 0xFFFFFFFF
REAL_CODE, REAL_DATA = 0x9B00, 0x9300
FLAT_CODE, FLAT_DATA, LONG_CODE = 0xCF9B00, 0xCF9300, 0xAF9B00
"""Second words of descriptors: present, accessed, code or data, and their sizes."""
CODE_SELECTOR, DATA_SELECTOR = 0x08, 0x10
CR0_EXTENSION, CR0_PROTECTED, CR0_PAGING = 0x10, 0x11, 0x80000011
CR4_LONG: Final = 0x620
"""PAE, and SSE with its exceptions."""
EFER_LONG: Final = 0x500
DATA_SEGMENTS: Final = (ES, SS, DS, FS, GS)


def start_state(registers: Registers, start: CpuStart) -> None:
    """Put the whole state of ``start`` into loaded ``registers``."""
    if start.mode == "real":
        registers.reset(cr0=CR0_EXTENSION, cr3=0, cr4=0, efer=0)
        code = Segment(start.cs, start.code_base, REAL_LIMIT, REAL_CODE)
        data = Segment(0, 0, REAL_LIMIT, REAL_DATA)
    elif start.mode == "protected":
        registers.reset(cr0=CR0_PROTECTED, cr3=0, cr4=0, efer=0)
        code = Segment(CODE_SELECTOR, 0, FLAT_LIMIT, FLAT_CODE)
        data = Segment(DATA_SELECTOR, 0, FLAT_LIMIT, FLAT_DATA)
    else:
        registers.reset(cr0=CR0_PAGING, cr3=start.page_table, cr4=CR4_LONG, efer=EFER_LONG)
        code = Segment(CODE_SELECTOR, 0, FLAT_LIMIT, LONG_CODE)
        data = Segment(DATA_SELECTOR, 0, FLAT_LIMIT, FLAT_DATA)
    registers.set_segment(CS, code)
    for number in DATA_SEGMENTS:
        registers.set_segment(number, data)
    registers.set_segment(LDT, Segment(0, 0, REAL_LIMIT, 0x8200))
    registers.set_segment(TR, Segment(0, 0, REAL_LIMIT, 0x8B00))
    registers.set_segment(GDT, Segment(0, 0, REAL_LIMIT, 0))
    registers.set_segment(IDT, Segment(0, 0, REAL_LIMIT, 0))
    registers.refresh(0)
    registers.rip = start.ip
    registers.rsp = start.sp
    registers.set_general(RAX, start.eax)
    registers.set_general(RBX, start.ebx)
