"""How a vCPU begins: what an image asks of the engine that runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["RESET", "CpuStart"]


@dataclass(frozen=True)
class CpuStart:
    """The state of the first vCPU at its first instruction.

    ``real``: 16-bit segments; code at ``cs_base`` + ``ip``, where a base of 0 with a selector other
    than 0 is the selector's own (16 times ``cs``). ``protected``: flat 32-bit segments, paging off.
    ``long``: 64-bit code with paging by the tables at ``page_table`` (CR3). ``ebx`` is the GPA of a
    start-info structure or 0; ``eax`` what a guest gives a further vCPU; ``sp`` the stack pointer.
    Interrupts are off in every mode.
    """

    mode: Literal["real", "protected", "long"]
    ip: int
    cs: int = 0
    cs_base: int = 0
    ebx: int = 0
    sp: int = 0
    page_table: int = 0
    eax: int = 0

    @property
    def code_base(self) -> int:
        """The base of the code segment in real mode."""
        return self.cs_base or self.cs << 4


RESET = CpuStart("real", ip=0xFFF0, cs=0xF000, cs_base=0xFFFF0000)
"""The reset vector: the last 16 bytes below 4 GiB (Intel SDM volume 3, 10.1.4)."""
