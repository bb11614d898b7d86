"""A device whose every answer depends on all accesses before it: one lost or doubled is seen.

Each vCPU has four registers of its own, so that its answers do not depend on the others' pace:
``mix`` takes what is written into an accumulator, ``draw`` gives the next number of a generator,
``value`` just stores, ``sum`` reads the accumulator. A `rep outs` or `rep ins` does the same.
"""

from __future__ import annotations

from dm import RO, Bank, Device, Option, PortWindow, Register, Timer, Word

__all__ = ["Hammered"]

VCPUS = 8
STRIDE = 16
MASK = 0xFFFFFFFF


class Ports(Bank, size=STRIDE * VCPUS, width=32):
    """Four registers for each vCPU."""

    mix = Register.array(0, VCPUS, stride=STRIDE)
    draw = Register.array(4, VCPUS, stride=STRIDE)
    value = Register.array(8, VCPUS, stride=STRIDE)
    sum = Register.array(12, VCPUS, stride=STRIDE, access=RO)


class Hammered(Device):
    """See the file. A timer counts as well: ``ticks`` of ``PERIOD`` each."""

    base = Option(int, 0x5000, "first port")

    ports = PortWindow(Ports, at=base)
    mixed = Word(64)
    ticks = Word(32)
    tick = Timer()

    @Ports.mix.on_write
    def _mix(self, index: int, new: int, old: int) -> None:
        total = self.ports.sum[index]
        total.value = (total.value * 31 + new) & MASK
        self.mixed = self.mixed + 1

    @Ports.draw.on_read
    def _draw(self, index: int) -> int:
        register = self.ports.draw[index]
        register.value = (register.value * 1664525 + 1013904223 + index) & MASK
        return int(register.value)

    @tick.expired
    def _ticked(self) -> None:
        self.ticks = self.ticks + 1
