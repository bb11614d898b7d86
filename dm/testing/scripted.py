"""A scripted bus: the guest, its memory and the host's ends of devices, played by a test.

`ScriptedBus` puts devices into a machine whose guest is the test. What a handler raises comes out
of the access that called it, so that a failing test shows the line of the device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from dm.device.character import LiveCharacter
from dm.device.pci import MsiCapability, PciDevice
from dm.device.platform import MEMORY, PORT
from dm.device.window import MmioBar, PortBar
from dm.machine.container import load, save
from dm.machine.fakes import FakeCharacter, TestBench

from .accesses import Accesses

if TYPE_CHECKING:
    from dm.device.device import Device
    from dm.machine.fakes import FakeMemory

__all__ = ["MachineOf", "ScriptedBus", "ScriptedCharacter", "ScriptedMemory"]

RAM_SIZE = 1 << 20

FIRES_LIMIT = 1_000_000
"""Firings in one `advance`; a timer that restarts itself with no delay is found by it."""

COMMAND, BAR0 = 0x04, 0x10
"""Registers of PCI configuration space (PCI Local Bus 3.0, 6.1)."""
COMMAND_IO, COMMAND_MEMORY, COMMAND_MASTER = 1, 2, 4
MSI_CONTROL, MSI_ADDRESS, MSI_ADDRESS_HIGH, MSI_DATA = 2, 4, 8, 12
"""Offsets into the MSI capability with 64-bit addresses (6.8.1)."""
MSI_BASE = 0xFEE00000
"""Where x86 guests aim MSIs: the local APIC of CPU 0 (Intel SDM 3A, 11.11)."""


class MachineOf(Protocol):
    """The type of the fixture ``machine_of``: devices in, the bus of their machine out."""

    def __call__(self, *devices: Device, memory: int = RAM_SIZE) -> ScriptedBus:
        """Make a machine of ``devices`` with ``memory`` bytes of RAM from GPA 0."""


class ScriptedMemory:
    """The guest's RAM by guest-physical address: ``memory[gpa]`` is a byte, a slice is bytes.

    IndexError for an address that is not RAM: the test is wrong, not the device.
    """

    def __init__(self, ram: FakeMemory) -> None:
        self._ram = ram

    def __len__(self) -> int:
        return len(self._ram.ram)

    def __getitem__(self, gpa: slice) -> bytes:
        first, last = self._bounds(gpa)
        return bytes(self._ram.ram[first:last])

    def __setitem__(self, gpa: slice, data: bytes) -> None:
        first, last = self._bounds(gpa)
        if len(data) != last - first:
            raise ValueError(f"{len(data)} bytes do not fill {first:#x}..{last:#x}")
        self._ram.ram[first:last] = data

    def _bounds(self, gpa: slice) -> tuple[int, int]:
        first = 0 if gpa.start is None else gpa.start
        last = len(self) if gpa.stop is None else gpa.stop
        if gpa.step not in (None, 1) or not 0 <= first <= last <= len(self):
            raise IndexError(f"{first:#x}..{last:#x} is not all RAM, which ends at {len(self):#x}")
        return first, last

    def read(self, gpa: int, length: int) -> bytes:
        """``length`` bytes at ``gpa``."""
        return self[gpa : gpa + length]

    def write(self, gpa: int, data: bytes) -> None:
        """Store ``data`` at ``gpa``."""
        self[gpa : gpa + len(data)] = data

    def read32(self, gpa: int) -> int:
        """The little-endian 32-bit word at ``gpa``."""
        return int.from_bytes(self[gpa : gpa + 4], "little")

    def write32(self, gpa: int, value: int) -> None:
        """Store a little-endian 32-bit word at ``gpa``."""
        self[gpa : gpa + 4] = value.to_bytes(4, "little")


class ScriptedCharacter(FakeCharacter):
    """The host's end of a chardev: ``feed`` types into the device, ``output`` is what it sent."""

    @property
    def output(self) -> bytes:
        """All bytes that the device sent so far."""
        return bytes(self.sent)

    def take(self) -> bytes:
        """What the device sent since the last call."""
        taken = bytes(self.sent)
        self.sent.clear()
        return taken


class ScriptedBus(Accesses):
    """A machine of ``devices`` whose guest is a test; ``memory`` bytes of RAM lie from GPA 0.

    Time stands still but for `advance`. Addresses that nobody claims read as ones. PCI functions
    are named by the device itself or by their devfn (slot << 3 | function) on bus 0.
    """

    def __init__(self, *devices: Device, memory: int = RAM_SIZE) -> None:
        self.devices = devices
        self.bench = TestBench(*devices, memory=memory)
        self.memory = ScriptedMemory(self.bench.memory)
        self._characters: dict[tuple[Device, str], ScriptedCharacter] = {}
        for device in devices:
            for name in device._declared:
                plug = device.__dict__.get(name)
                if isinstance(plug, LiveCharacter):
                    self._characters[device, name] = ScriptedCharacter()
                    plug.attach(self._characters[device, name])

    @property
    def device(self) -> Device:
        """The first device."""
        return self.devices[0]

    def memory_read(self, gpa: int, size: int) -> int:
        """See `Accesses.memory_read`."""
        return self.bench.load(gpa, size)

    def memory_write(self, gpa: int, value: int, size: int) -> None:
        """See `Accesses.memory_write`."""
        self.bench.store(gpa, value, size)

    def port_read(self, port: int, size: int) -> int:
        """See `Accesses.port_read`."""
        return self.bench.read(port, size)

    def port_write(self, port: int, value: int, size: int) -> None:
        """See `Accesses.port_write`."""
        self.bench.write(port, value, size)

    def config_read(self, devfn: int, register: int, size: int) -> int:
        """See `Accesses.config_read`."""
        return self.bench.config_read(devfn, register, size)

    def config_write(self, devfn: int, register: int, value: int, size: int) -> None:
        """See `Accesses.config_write`."""
        self.bench.config_write(devfn, register, value, size)

    def ins(self, port: int, size: int, count: int) -> bytes:
        """REP INS: ``count`` elements of ``size`` bytes from ``port``."""
        return self.bench.machine.bus.read_string(PORT, port, size, count)

    def outs(self, port: int, size: int, data: bytes) -> None:
        """REP OUTS: the elements of ``data``, ``size`` bytes each, to ``port``."""
        self.bench.machine.bus.write_string(PORT, port, size, data)

    def read_block(self, gpa: int, length: int, size: int = 4) -> bytes:
        """REP MOVS from MMIO: ``length`` bytes in elements of ``size``, ascending."""
        return self.bench.machine.bus.read_block(MEMORY, gpa, size, length // size, size)

    def write_block(self, gpa: int, data: bytes, size: int = 4) -> None:
        """REP MOVS to MMIO: ``data`` in elements of ``size`` bytes, ascending."""
        self.bench.machine.bus.write_block(MEMORY, gpa, size, size, data)

    def map_bar(self, device: PciDevice, bar: int, base: int) -> int:
        """Place ``device``'s BAR at ``base`` and let it decode and master the bus; gives ``base``.

        ``base``: a GPA, or a port for an I/O BAR. ValueError when the device has no such BAR or
        the base is not a multiple of its size.
        """
        window = next(
            (
                declaration
                for declaration in device._declared.values()
                if isinstance(declaration, MmioBar | PortBar) and declaration.index == bar
            ),
            None,
        )
        if window is None:
            raise ValueError(f"{device.name} has no BAR {bar}")
        if base % window.bank.size or not base:
            raise ValueError(f"BAR {bar} of {device.name}: {base:#x} is no place for its size")
        self.config_write32(device, BAR0 + 4 * bar, base & 0xFFFFFFFF)
        if isinstance(window, MmioBar) and window.bits == 64:
            self.config_write32(device, BAR0 + 4 * bar + 4, base >> 32)
        decode = COMMAND_IO if isinstance(window, PortBar) else COMMAND_MEMORY
        command = self.config_read16(device, COMMAND)
        self.config_write16(device, COMMAND, command | decode | COMMAND_MASTER)
        return base

    def enable_msi(self, device: PciDevice, data: int = 0, address: int = MSI_BASE) -> None:
        """Have ``device`` interrupt by messages of ``data`` to ``address``, as a driver does.

        ValueError when it declares no MSI capability.
        """
        found = [c for c in device.capabilities if isinstance(c, MsiCapability)]
        if not found:
            raise ValueError(f"{device.name} declares no MsiCapability")
        at = found[0].offset
        self.config_write32(device, at + MSI_ADDRESS, address & 0xFFFFFFFF)
        self.config_write32(device, at + MSI_ADDRESS_HIGH, address >> 32)
        self.config_write16(device, at + MSI_DATA, data)
        self.config_write16(device, at + MSI_CONTROL, 1)
        command = self.config_read16(device, COMMAND)
        self.config_write16(device, COMMAND, command | COMMAND_MASTER)

    def irq(self, number: int) -> int:
        """The level of ISA interrupt ``number`` (0..15)."""
        return self.bench.platform.isa.get(number, 0)

    def intx(self, device: PciDevice, pin: int | None = None) -> int:
        """The level of ``device``'s interrupt pin, or of ``pin`` (1 = INTA) of its slot."""
        number = device.identity.pin if pin is None else pin
        return self.bench.platform.intx.get((device.devfn >> 3, number - 1), 0)

    @property
    def msis(self) -> list[tuple[int, int]]:
        """The MSIs that were sent so far, as (address, data)."""
        return self.bench.platform.msis

    @property
    def shutdowns(self) -> list[str]:
        """The reasons for which devices ended the guest."""
        return self.bench.platform.shutdowns

    @property
    def now(self) -> int:
        """Guest time in nanoseconds."""
        return self.bench.machine.clock.now()

    def advance(self, *, s: float = 0, ms: float = 0, us: float = 0, ns: int = 0) -> None:
        """Let guest time pass; timers fire in order, each at its own time.

        What a timer's handler raises comes out. AssertionError when timers fire without end.
        """
        bench, machine = self.bench, self.bench.machine
        end = machine.clock.now() + round(s * 1e9) + round(ms * 1e6) + round(us * 1e3) + ns
        for _ in range(FIRES_LIMIT):
            deadline = machine.timers.next_deadline()
            if deadline is None or deadline > end:
                bench.host_time += end - machine.clock.now()
                return
            bench.host_time += max(deadline - machine.clock.now(), 0)
            for timer in machine.timers.due():
                timer.handler()
        raise AssertionError(f"timers fired {FIRES_LIMIT} times, in one advance")

    def chardev(self, device: Device | None = None, plug: str | None = None) -> ScriptedCharacter:
        """The host's end of a character plug.

        ``device`` defaults to the first that has a plug, ``plug`` (an attribute's name) to its
        first. LookupError when there is none.
        """
        for (owner, name), character in self._characters.items():
            if device in (None, owner) and plug in (None, name):
                return character
        raise LookupError(f"no {plug or 'Character plug'} here")

    def reset(self) -> None:
        """Reset the machine, as the platform's reset line does."""
        self.bench.machine.reset()

    def save(self) -> bytes:
        """The saved state of the machine, as it is sent when a guest migrates."""
        machine = self.bench.machine
        machine.stop()
        try:
            return save(machine)
        finally:
            machine.start()

    def load(self, data: bytes) -> None:
        """Go on from saved state, as after a migration; RAM and time of day are not part of it."""
        machine = self.bench.machine
        machine.stop()
        try:
            load(machine, data)
        finally:
            machine.start()
