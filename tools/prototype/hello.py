"""What a run without a guest does: it finds each device, as a guest would, and shows its registers.

A PCI function is looked for on bus 0 and its BARs are placed; every register that can be read is
read once, which a device may notice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from dm.control.argv import parse
from dm.control.devices import make_device
from dm.device.pci import PciDevice
from dm.device.window import MmioBar, MmioWindow, PortBar, PortWindow

from .doc_model import RegisterDoc, describe

if TYPE_CHECKING:
    from dm.device.device import Device

    from .script import GuestBus

__all__ = ["hello"]

COMMAND, BAR0 = 0x04, 0x10
DECODE_AND_MASTER = 0x7
"""The command register's bits for I/O space, memory space and bus mastering."""
MEMORY_START, PORT_START = 0xF000_0000, 0xC000
"""Where BARs are placed: above all RAM below 4 GiB (`Run`), and above a PC's fixed ports."""
PORT_SIZES, MEMORY_SIZES = (1, 2, 4), (1, 2, 4, 8)
SHOWN = 8
"""How many registers of an array are shown."""


def hello(words: Sequence[str], show: Callable[[str], object]) -> Callable[[GuestBus], None]:
    """A guest's body for a device model with the argument vector ``words``; ``show`` takes lines.

    It raises LookupError for a PCI function that is not there.
    """

    def body(bus: GuestBus) -> None:
        places = _Places(bus)
        options = parse([*words, "-xen-domid", "1"])
        for number, (driver, values) in enumerate(options.devices):
            device = make_device(driver, values, number)
            if device is not None:
                for line in _device(bus, device, places):
                    show(line)

    return body


class _Places:
    """PCI functions that were found, and the addresses that are free for BARs."""

    def __init__(self, bus: GuestBus) -> None:
        self._bus = bus
        self._found: set[int] = set()
        self._memory, self._ports = MEMORY_START, PORT_START

    def find(self, device: PciDevice) -> int:
        """The devfn of the next function with the device's ids."""
        vendor, kind = device.identity.vendor, device.identity.device
        for devfn in range(256):
            ids = self._bus.config_read32(devfn, 0)
            if ids == kind << 16 | vendor and devfn not in self._found:
                self._found.add(devfn)
                return devfn
        raise LookupError(f"{device.name}: there is no PCI function {vendor:04x}:{kind:04x}")

    def place(self, devfn: int, bar: MmioBar[Any] | PortBar[Any]) -> int:
        """Give a BAR an address, a multiple of its size."""
        size: int = bar.bank.size
        if isinstance(bar, PortBar):
            base = -(-self._ports // size) * size
            self._ports = base + size
        else:
            base = -(-self._memory // size) * size
            self._memory = base + size
        self._bus.config_write32(devfn, BAR0 + 4 * bar.index, base & 0xFFFFFFFF)
        if isinstance(bar, MmioBar) and bar.bits == 64:
            self._bus.config_write32(devfn, BAR0 + 4 * bar.index + 4, base >> 32)
        self._bus.config_write16(devfn, COMMAND, DECODE_AND_MASTER)
        return base


def _device(bus: GuestBus, device: Device, places: _Places) -> Iterator[str]:
    doc = describe(type(device))
    yield f"{device.name}: {doc.name}" + (f", {doc.summary}" if doc.summary else "")
    devfn = None
    if isinstance(device, PciDevice):
        devfn = places.find(device)
        yield f"  PCI function 00:{devfn >> 3:02x}.{devfn & 7}"
    for window in doc.windows:
        declaration: Any = type(device)._declared[window.name]
        if isinstance(declaration, MmioBar | PortBar) and devfn is not None:
            base: int | None = places.place(devfn, declaration)
        elif isinstance(declaration, MmioWindow | PortWindow):
            base = declaration.default_base(device)
        else:
            continue
        if base is None:
            yield f"  {window.name}: nowhere yet"
            continue
        ports = isinstance(declaration, PortWindow | PortBar)
        yield f"  {window.name} at {'port ' if ports else ''}{base:#x}"
        yield from _registers(bus, window.registers, base, ports=ports)


def _registers(
    bus: GuestBus, registers: Sequence[RegisterDoc], base: int, *, ports: bool
) -> Iterator[str]:
    """A line for each that can be read; of those that share a place, for the first."""
    sizes, read = (PORT_SIZES, bus.port_read) if ports else (MEMORY_SIZES, bus.memory_read)
    seen = set()
    for register in registers:
        size = register.width // 8
        if size not in sizes or register.access == "WO" or register.offset in seen:
            continue
        seen.add(register.offset)
        for index in range(min(register.count, SHOWN)):
            value = read(base + register.offset + index * register.stride, size)
            name = f"{register.name}[{index}]" if register.count > 1 else register.name
            fields = " ".join(_fields(register, value))
            yield f"    {name:<24} {value:#0{2 * size + 2}x} {fields}".rstrip()


def _fields(register: RegisterDoc, value: int) -> Iterator[str]:
    for field in reversed(register.fields):
        bits = value >> field.low & (1 << field.high - field.low + 1) - 1
        yield f"{field.name}={field.values.get(bits, f'{bits:#x}' if bits > 9 else bits)}"
