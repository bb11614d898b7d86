"""How a processor takes an interrupt or exception: vector table, gate, stack, frame.

The library stops at each of them and does none of this itself.

Facts: Intel SDM volume 3, chapter 6 (6.12 to 6.15 for gates, stack switches, error codes and the
double fault's classes) and 20.1.4 for real mode. Not modelled, and a crash of the domain with a
line that says so: task gates, virtual-8086 mode. Shadow stacks and nested NMIs are not modelled.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum
from typing import Final

from .paging import FaultError, LinearMemory, UnreachableError
from .registers import CS, GDT, IDT, IF, LDT, NT, RF, SS, TF, TR, VM, Registers, Segment

__all__ = ["Event", "Kind", "NotModelledError", "TripleFaultError", "Vectoring"]

DOUBLE_FAULT, INVALID_TSS, NOT_PRESENT, STACK, PROTECTION, PAGE_FAULT = 8, 10, 11, 12, 13, 14
WITH_ERROR_CODE: Final = (8, 10, 11, 12, 13, 14, 17, 21)
CONTRIBUTORY: Final = (0, 10, 11, 12, 13)
AC: Final = 1 << 18

TASK_GATE: Final = 5
GATES: Final = {6: (2, IF), 7: (2, 0), 14: (4, IF), 15: (4, 0)}
"""Gate types: bytes of a frame's word, and whether the gate turns interrupts off."""
LONG_GATES: Final = {14: (8, IF), 15: (8, 0)}
PRESENT, CODE, CONFORMING = 1 << 15, 1 << 11, 1 << 10
SYSTEM_BIT: Final = 1 << 12
WRITABLE: Final = 1 << 9
GRANULAR, BIG, LONG_CODE = 1 << 23, 1 << 22, 1 << 21
BUSY_TSS_32: Final = 11
IST_OFFSET: Final = 0x24
EXTERNAL: Final = 1
FROM_IDT: Final = 2


class Kind(Enum):
    """Where an event comes from."""

    EXTERNAL = "external interrupt"
    SOFTWARE = "INT instruction"
    EXCEPTION = "exception"


@dataclass(frozen=True)
class Event:
    """Something to be delivered.

    ``error_code``: None when the vector has none. ``length``: bytes of the instruction that raised
    it and is behind RIP already; a fault on the way points at it again.
    """

    vector: int
    kind: Kind
    error_code: int | None = None
    cr2: int | None = None
    length: int = 0

    @classmethod
    def exception(cls, vector: int, error_code: int = 0) -> Event:
        """An exception; the error code counts only for vectors that have one."""
        return cls(vector, Kind.EXCEPTION, error_code if vector in WITH_ERROR_CODE else None)


class TripleFaultError(Exception):
    """A double fault could not be delivered: the processor shuts down."""


class NotModelledError(Exception):
    """What the guest asks for is not modelled; the message says what."""


@dataclass(frozen=True)
class Target:
    """Where an event leads: code segment and entry, word size, flag to clear, privilege level."""

    selector: int
    segment: Segment
    rip: int
    word: int
    clear: int
    cpl: int
    ist: int


class Vectoring:
    """Delivers events to one processor, whose registers are loaded; the caller stores them."""

    def __init__(self, registers: Registers, memory: LinearMemory) -> None:
        self._registers = registers
        self._memory = memory

    def deliver(self, event: Event) -> None:
        """Deliver, or deliver what goes wrong on the way.

        TripleFaultError: nothing could be delivered. NotModelledError: see the module.
        """
        while True:
            before = self._registers.cr(2)
            try:
                if event.cr2 is not None:
                    self._registers.set_cr2(event.cr2)
                self._once(event)
            except FaultError as fault:
                self._registers.rip -= event.length
                event = self._combine(event, fault)
            except UnreachableError as error:
                self._registers.set_cr2(before)
                raise NotModelledError(
                    f"delivering {event.kind.value} {event.vector}: {error}"
                ) from None
            else:
                self._registers.settle()
                return

    @staticmethod
    def _combine(first: Event, second: FaultError) -> Event:
        """What a fault during a delivery becomes."""
        if first.kind is Kind.EXCEPTION:
            if first.vector == DOUBLE_FAULT:
                raise TripleFaultError
            contributory = second.vector in CONTRIBUTORY
            if (first.vector in CONTRIBUTORY and contributory) or (
                first.vector == PAGE_FAULT and (contributory or second.vector == PAGE_FAULT)
            ):
                return Event(DOUBLE_FAULT, Kind.EXCEPTION, 0)
        return Event(second.vector, Kind.EXCEPTION, second.error_code, second.cr2)

    def _once(self, event: Event) -> None:
        registers = self._registers
        if not registers.protected:
            self._real(event.vector)
        elif registers.flags & VM:
            raise NotModelledError(f"{event.kind.value} {event.vector} in virtual-8086 mode")
        elif registers.long:
            self._long(event)
        else:
            self._protected(event)

    def _real(self, vector: int) -> None:
        """Through the real-mode table: an offset and a selector; a frame of three 16-bit words."""
        registers, table = self._registers, self._registers.segment(IDT)
        if vector * 4 + 3 > table.limit:
            raise FaultError(PROTECTION, vector * 8 + FROM_IDT)
        offset, selector = struct.unpack("<HH", self._memory.read(table.base + vector * 4, 4))
        flags, code = registers.flags, registers.segment(CS)
        self._push(struct.pack("<HHH", registers.rip & 0xFFFF, code.selector, flags & 0xFFFF))
        registers.flags = flags & ~(IF | TF | AC | RF)
        registers.set_segment(CS, code._replace(selector=selector, base=selector << 4))
        registers.rip = offset
        registers.refresh(0)

    def _protected(self, event: Event) -> None:
        registers = self._registers
        target = self._target(event, 8)
        flags, code, stack = registers.flags, registers.segment(CS), registers.segment(SS)
        words = [registers.rip & 0xFFFFFFFF, code.selector, flags]
        new_stack = stack
        pointer = registers.rsp & 0xFFFFFFFF
        if target.cpl < registers.cpl:
            new_stack, pointer = self._inner_stack(target.cpl)
            words += [registers.rsp & 0xFFFFFFFF, stack.selector]
        if event.error_code is not None:
            words.insert(0, event.error_code)
        mask = (1 << 8 * target.word) - 1
        frame = b"".join((word & mask).to_bytes(target.word, "little") for word in words)
        pointer = self._push_to(new_stack, pointer, frame)
        self._enter(target, flags, new_stack)
        if new_stack.flags & BIG:
            registers.rsp = pointer
        else:
            registers.rsp = registers.rsp & ~0xFFFF | pointer & 0xFFFF

    def _long(self, event: Event) -> None:
        """64-bit delivery: the frame always has the stack, which is aligned to 16 bytes."""
        registers = self._registers
        target = self._target(event, 16)
        flags, code, stack = registers.flags, registers.segment(CS), registers.segment(SS)
        new_stack, pointer = stack, registers.rsp
        if target.ist:
            pointer = self._long_stack(IST_OFFSET + 8 * (target.ist - 1))
        elif target.cpl < registers.cpl:
            pointer = self._long_stack(4 + 8 * target.cpl)
        if target.cpl < registers.cpl:
            new_stack = Segment(
                target.cpl, 0, 0, SYSTEM_BIT | PRESENT | WRITABLE | target.cpl << 13
            )
        words = [registers.rip, code.selector, flags, registers.rsp, stack.selector]
        if event.error_code is not None:
            words.insert(0, event.error_code)
        frame = struct.pack(f"<{len(words)}Q", *words)
        pointer = (pointer & ~0xF) - len(frame) & (1 << 64) - 1
        self._memory.write(pointer, frame)
        self._enter(target, flags, new_stack)
        registers.rsp = pointer

    def _enter(self, target: Target, flags: int, stack: Segment) -> None:
        registers = self._registers
        registers.set_segment(SS, stack)
        registers.set_segment(CS, target.segment)
        registers.flags = flags & ~(TF | VM | RF | NT | target.clear)
        registers.rip = target.rip
        registers.refresh(target.cpl)

    def _target(self, event: Event, size: int) -> Target:
        """Read and check the gate of a vector, and the code segment behind it."""
        registers, table = self._registers, self._registers.segment(IDT)
        external = 0 if event.kind is Kind.SOFTWARE else EXTERNAL
        code = event.vector * 8 + FROM_IDT + external
        at = event.vector * size
        if at + size - 1 > table.limit:
            raise FaultError(PROTECTION, code)
        low, high = struct.unpack("<II", self._memory.read(table.base + at, size)[:8])
        kind = high >> 8 & 0x1F
        if kind == TASK_GATE and size == 8:
            raise NotModelledError(f"a task gate for vector {event.vector}")
        gates = GATES if size == 8 else LONG_GATES
        if kind not in gates:
            raise FaultError(PROTECTION, code)
        if event.kind is Kind.SOFTWARE and high >> 13 & 3 < registers.cpl:
            raise FaultError(PROTECTION, code)
        if not high & PRESENT:
            raise FaultError(NOT_PRESENT, code)
        word, clear = gates[kind]
        rip = low & 0xFFFF | (high & 0xFFFF0000 if word > 2 else 0)
        ist = 0
        if size == 16:
            rip |= struct.unpack("<I", self._memory.read(table.base + at + 8, 4))[0] << 32
            ist = high & 7
        segment, cpl = self._code_segment(low >> 16, external, size == 16)
        return Target(low >> 16, segment, rip, word, clear, cpl, ist)

    def _code_segment(self, selector: int, external: int, long: bool) -> tuple[Segment, int]:
        """The code segment of a gate, and the privilege level that code in it has."""
        error = selector & ~3 | external
        if not selector & ~3:
            raise FaultError(PROTECTION, external)
        descriptor = self._descriptor(selector, PROTECTION, error)
        level = descriptor.flags >> 13 & 3
        if not descriptor.flags & SYSTEM_BIT or not descriptor.flags & CODE:
            raise FaultError(PROTECTION, error)
        if level > self._registers.cpl or (
            long and descriptor.flags & (LONG_CODE | BIG) != LONG_CODE
        ):
            raise FaultError(PROTECTION, error)
        if not descriptor.flags & PRESENT:
            raise FaultError(NOT_PRESENT, error)
        if descriptor.flags & CONFORMING:
            level = self._registers.cpl
        return descriptor._replace(selector=selector & ~3 | level), level

    def _descriptor(self, selector: int, vector: int, error: int) -> Segment:
        """A segment descriptor of the GDT or LDT. FaultError: beyond the table."""
        table = self._registers.segment(LDT if selector & 4 else GDT)
        at = selector & ~7
        if at + 7 > table.limit:
            raise FaultError(vector, error)
        low, high = struct.unpack("<II", self._memory.read(table.base + at, 8))
        limit = low & 0xFFFF | high & 0xF0000
        if high & GRANULAR:
            limit = limit << 12 | 0xFFF
        base = low >> 16 | (high & 0xFF) << 16 | high & 0xFF000000
        return Segment(selector, base, limit, high)

    def _inner_stack(self, level: int) -> tuple[Segment, int]:
        """The stack that a 16 or 32-bit TSS has for a privilege level."""
        task = self._registers.segment(TR)
        wide = task.flags >> 8 & 0xF in (BUSY_TSS_32, BUSY_TSS_32 - 2)
        at, size = (4 + 8 * level, 8) if wide else (2 + 4 * level, 4)
        if at + size - 1 > task.limit:
            raise FaultError(INVALID_TSS, task.selector & ~3)
        data = self._memory.read(task.base + at, size)
        pointer, selector = struct.unpack("<IHxx" if wide else "<HH", data)
        error = selector & ~3
        if not error:
            raise FaultError(INVALID_TSS, 0)
        stack = self._descriptor(selector, INVALID_TSS, error)
        if selector & 3 != level or stack.flags >> 13 & 3 != level:
            raise FaultError(INVALID_TSS, error)
        if stack.flags & (SYSTEM_BIT | CODE | WRITABLE) != SYSTEM_BIT | WRITABLE:
            raise FaultError(INVALID_TSS, error)
        if not stack.flags & PRESENT:
            raise FaultError(STACK, error)
        return stack, pointer

    def _long_stack(self, at: int) -> int:
        """A stack pointer of the 64-bit TSS."""
        task = self._registers.segment(TR)
        if at + 7 > task.limit:
            raise FaultError(INVALID_TSS, task.selector & ~3)
        pointer: int = struct.unpack("<Q", self._memory.read(task.base + at, 8))[0]
        return pointer

    def _push(self, frame: bytes) -> None:
        """Push on the present stack."""
        registers = self._registers
        stack = registers.segment(SS)
        pointer = self._push_to(stack, registers.rsp & 0xFFFFFFFF, frame)
        mask = 0xFFFFFFFF if stack.flags & BIG else 0xFFFF
        registers.rsp = registers.rsp & ~mask | pointer & mask

    def _push_to(self, stack: Segment, pointer: int, frame: bytes) -> int:
        """Store a frame below a stack's pointer; gives the new one. A 16-bit pointer wraps."""
        mask = 0xFFFFFFFF if stack.flags & BIG else 0xFFFF
        pointer = pointer - len(frame) & mask
        if pointer + len(frame) <= mask + 1:
            self._memory.write(stack.base + pointer, frame)
        else:
            room = mask + 1 - pointer
            self._memory.write(stack.base + pointer, frame[:room])
            self._memory.write(stack.base, frame[room:])
        return pointer
