"""How a script spells a guest's accesses: one method for each width and kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dm.device.pci import PciDevice

__all__ = ["Accesses", "devfn_of", "fits"]


class Accesses:
    """Accesses by width, as a guest's instructions make them. Values are unsigned."""

    def memory_read(self, gpa: int, size: int) -> int:
        """Load ``size`` bytes from MMIO."""
        raise NotImplementedError

    def memory_write(self, gpa: int, value: int, size: int) -> None:
        """Store the low ``size`` bytes of ``value`` to MMIO."""
        raise NotImplementedError

    def port_read(self, port: int, size: int) -> int:
        """IN of ``size`` bytes."""
        raise NotImplementedError

    def port_write(self, port: int, value: int, size: int) -> None:
        """OUT of ``size`` bytes."""
        raise NotImplementedError

    def config_read(self, devfn: int, register: int, size: int) -> int:
        """Read configuration space of a function on bus 0."""
        raise NotImplementedError

    def config_write(self, devfn: int, register: int, value: int, size: int) -> None:
        """Write configuration space of a function on bus 0."""
        raise NotImplementedError

    def read8(self, gpa: int) -> int:
        """Load a byte from MMIO."""
        return self.memory_read(gpa, 1)

    def read16(self, gpa: int) -> int:
        """Load 16 bits from MMIO."""
        return self.memory_read(gpa, 2)

    def read32(self, gpa: int) -> int:
        """Load 32 bits from MMIO."""
        return self.memory_read(gpa, 4)

    def read64(self, gpa: int) -> int:
        """Load 64 bits from MMIO."""
        return self.memory_read(gpa, 8)

    def write8(self, gpa: int, value: int) -> None:
        """Store a byte to MMIO."""
        self.memory_write(gpa, fits(value, 1), 1)

    def write16(self, gpa: int, value: int) -> None:
        """Store 16 bits to MMIO."""
        self.memory_write(gpa, fits(value, 2), 2)

    def write32(self, gpa: int, value: int) -> None:
        """Store 32 bits to MMIO."""
        self.memory_write(gpa, fits(value, 4), 4)

    def write64(self, gpa: int, value: int) -> None:
        """Store 64 bits to MMIO."""
        self.memory_write(gpa, fits(value, 8), 8)

    def in8(self, port: int) -> int:
        """IN of a byte."""
        return self.port_read(port, 1)

    def in16(self, port: int) -> int:
        """IN of 16 bits."""
        return self.port_read(port, 2)

    def in32(self, port: int) -> int:
        """IN of 32 bits."""
        return self.port_read(port, 4)

    def out8(self, port: int, value: int) -> None:
        """OUT of a byte."""
        self.port_write(port, fits(value, 1), 1)

    def out16(self, port: int, value: int) -> None:
        """OUT of 16 bits."""
        self.port_write(port, fits(value, 2), 2)

    def out32(self, port: int, value: int) -> None:
        """OUT of 32 bits."""
        self.port_write(port, fits(value, 4), 4)

    def config_read8(self, function: PciDevice | int, register: int) -> int:
        """Read a byte of configuration space."""
        return self.config_read(devfn_of(function), register, 1)

    def config_read16(self, function: PciDevice | int, register: int) -> int:
        """Read 16 bits of configuration space."""
        return self.config_read(devfn_of(function), register, 2)

    def config_read32(self, function: PciDevice | int, register: int) -> int:
        """Read 32 bits of configuration space."""
        return self.config_read(devfn_of(function), register, 4)

    def config_write8(self, function: PciDevice | int, register: int, value: int) -> None:
        """Write a byte of configuration space."""
        self.config_write(devfn_of(function), register, fits(value, 1), 1)

    def config_write16(self, function: PciDevice | int, register: int, value: int) -> None:
        """Write 16 bits of configuration space."""
        self.config_write(devfn_of(function), register, fits(value, 2), 2)

    def config_write32(self, function: PciDevice | int, register: int, value: int) -> None:
        """Write 32 bits of configuration space."""
        self.config_write(devfn_of(function), register, fits(value, 4), 4)


def devfn_of(function: PciDevice | int) -> int:
    """``slot << 3 | function`` of a device, or of itself."""
    return function if isinstance(function, int) else function.devfn


def fits(value: int, size: int) -> int:
    """``value``; ValueError when it is wider than ``size`` bytes."""
    if value >> 8 * size:
        raise ValueError(f"{value:#x} does not fit into {size} bytes")
    return value
