"""A device whose answers say whose they are: which domain, device and vCPU, and which one."""

from __future__ import annotations

from dm import RO, Bank, Device, MmioWindow, Option, PortWindow, Register

__all__ = ["Echo"]

VCPUS = 8


class Numbers(Bank, size=0x1000, width=64):
    """A register for each vCPU that counts how often it was read."""

    number = Register.array(0, VCPUS, access=RO)


class Places(Bank, size=4 * VCPUS, width=32):
    """A register for each vCPU that gives what was written, mixed with the device's tag."""

    place = Register.array(0, VCPUS)


class Echo(Device):
    """``tag``, 16 bits: the domain and the device."""

    tag = Option(int, 0, "what its answers carry")
    base = Option(int, 0x5000, "first port")
    window = Option(int, 0xE0000000, "first address")

    ports = PortWindow(Places, at=base)
    numbers = MmioWindow(Numbers, at=window)

    @Numbers.number.on_read
    def _count(self, index: int) -> int:
        register = self.numbers.number[index]
        register.value += 1
        return self.tag << 48 | index << 40 | register.value

    @Places.place.on_read
    def _give(self, index: int) -> int:
        return int(self.ports.place[index].value) ^ self.tag << 16 ^ index
