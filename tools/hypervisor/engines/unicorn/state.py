"""What is saved of the unicorn engine: registers by name, as numbers, and the board's chips.

Not saved, because the library's processor makes nothing of them: MTRRs, and the upper parts of
vector registers, of which the guest is not told (see identity).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from ...chips.chip import Chip, StateError
from .registers import (
    MSRS,
    REG_FP0,
    REG_FPCW,
    REG_FPSW,
    REG_FPTAG,
    REG_MXCSR,
    Registers,
    Segment,
)

if TYPE_CHECKING:
    from ...chips.board import Board
    from .loop import Loop

__all__ = ["EngineState", "ProcessorState"]

M16, M32, M64 = 0xFFFF, 0xFFFFFFFF, (1 << 64) - 1
GENERAL, SEGMENTS, CONTROLS, DEBUGS, FP_REGISTERS, XMMS = 16, 10, 5, 8, 8, 16
FP_BYTES: Final = 10
SMALL: Final = {
    "fpcw": (REG_FPCW, 2),
    "fpsw": (REG_FPSW, 2),
    "fptag": (REG_FPTAG, 2),
    "mxcsr": (REG_MXCSR, 4),
}
"""The library's number and the bytes of registers that are a field each."""


class ProcessorState(Chip):
    """One processor. `take` and `put` want loaded registers.

    ``halted`` after HLT; ``down``: only INIT and STARTUP wake it; ``initialised``: INIT has come.
    """

    STATE = {
        "general": M64,
        "rip": M64,
        "flags": M64,
        "selectors": M16,
        "bases": M64,
        "limits": M32,
        "descriptors": M32,
        "cpl": 3,
        "controls": M64,
        "efer": M64,
        "debugs": M64,
        "msrs": M64,
        "fpcw": M16,
        "fpsw": M16,
        "fptag": M16,
        "fps": (1 << 8 * FP_BYTES) - 1,
        "mxcsr": M32,
        "xmms": (1 << 128) - 1,
        "shadowed": 1,
        "halted": 1,
        "down": 1,
        "initialised": 1,
    }

    def __init__(self) -> None:
        self.general = [0] * GENERAL
        self.rip = self.flags = self.cpl = self.efer = 0
        self.selectors, self.bases = [0] * SEGMENTS, [0] * SEGMENTS
        self.limits, self.descriptors = [0] * SEGMENTS, [0] * SEGMENTS
        self.controls, self.debugs = [0] * CONTROLS, [0] * DEBUGS
        self.msrs = [0] * len(MSRS)
        self.fpcw = self.fpsw = self.fptag = self.mxcsr = 0
        self.fps, self.xmms = [0] * FP_REGISTERS, [0] * XMMS
        self.shadowed = self.halted = self.down = self.initialised = 0

    def take(self, registers: Registers) -> None:
        """Take over what the registers hold."""
        self.general = [registers.general(number) for number in range(GENERAL)]
        self.rip, self.flags = registers.rip, registers.flags
        self.cpl, self.efer = registers.cpl, registers.efer
        segments = [registers.segment(number) for number in range(SEGMENTS)]
        self.selectors = [one.selector & M16 for one in segments]
        self.bases = [one.base for one in segments]
        self.limits = [one.limit for one in segments]
        self.descriptors = [one.flags for one in segments]
        self.controls = [registers.cr(number) for number in range(CONTROLS)]
        self.debugs = [registers.debug(number) for number in range(DEBUGS)]
        self.msrs = [registers.msr(number) for number in MSRS]
        for name, (register, length) in SMALL.items():
            setattr(self, name, registers.read(register, length))
        self.fps = [registers.read(REG_FP0 + number, FP_BYTES) for number in range(FP_REGISTERS)]
        self.xmms = [registers.xmm(number) for number in range(XMMS)]
        self.shadowed = int(registers.shadowed)

    def put(self, registers: Registers) -> None:
        """Set the registers."""
        cr0, _, cr2, cr3, cr4 = self.controls
        registers.reset(cr0=cr0, cr3=cr3, cr4=cr4, efer=self.efer)
        registers.set_cr2(cr2)
        for number, value in enumerate(self.general):
            registers.set_general(number, value)
        registers.rip, registers.flags = self.rip, self.flags
        values = zip(self.selectors, self.bases, self.limits, self.descriptors, strict=True)
        for number, segment in enumerate(values):
            registers.set_segment(number, Segment(*segment))
        registers.refresh(self.cpl)
        for number, value in enumerate(self.debugs):
            registers.set_debug(number, value)
        for msr, value in zip(MSRS, self.msrs, strict=True):
            registers.set_msr(msr, value)
        for name, (register, length) in SMALL.items():
            registers.write(register, length, getattr(self, name))
        for number, value in enumerate(self.fps):
            registers.write(REG_FP0 + number, FP_BYTES, value)
        for number, value in enumerate(self.xmms):
            registers.set_xmm(number, value)
        if self.shadowed:
            registers.shadow()


class EngineState:
    """The processors of a domain and its ``board``."""

    def __init__(self, processors: int, board: Board) -> None:
        self.processors = [ProcessorState() for _ in range(processors)]
        self._board = board

    def save_from(self, loops: Mapping[int, Loop]) -> dict[str, Any]:
        """The state of processors that are parked."""
        for number, state in enumerate(self.processors):
            loops[number].save(state)
        saved = [state.save() for state in self.processors]
        return {"processors": saved, "board": self._board.save()}

    def load_into(self, loops: Mapping[int, Loop], saved: object) -> None:
        """Set processors and chips. StateError, and then nothing has changed."""
        if not isinstance(saved, dict) or set(saved) != {"processors", "board"}:
            raise StateError("the engine's state is not processors and a board")
        processors = saved["processors"]
        if not isinstance(processors, list) or len(processors) != len(self.processors):
            raise StateError(f"there are not the states of {len(self.processors)} processors")
        for number, (state, values) in enumerate(zip(self.processors, processors, strict=True)):
            state.check(values, f"processor {number}")
        self._board.load(saved["board"])
        for number, (state, values) in enumerate(zip(self.processors, processors, strict=True)):
            state.apply(values, 0)
            loops[number].restore(state)
