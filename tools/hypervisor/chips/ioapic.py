"""The I/O APIC of an HVM guest: 48 pins, each with an entry that says where its interrupt goes.

Sources: Intel's 82093AA data sheet; xen/arch/x86/hvm/vioapic.c for what an HVM guest finds:
version 0x11 with 48 entries, polarity without meaning, reserved bits that read as written, no
directed EOI register, and an ExtINT entry of pin 0 that lets the 8259's interrupts through.
Not modelled: the delivery modes SMI, INIT and, on other pins, ExtINT, which deliver nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from .apic_bus import EXTINT, FIXED, LOWEST_PRIORITY, NMI, ApicBus
from .chip import Chip
from .lapic import Lapic

__all__ = ["IOAPIC_BASE", "IOAPIC_SIZE", "PINS", "IoApic"]

IOAPIC_BASE = 0xFEC00000
IOAPIC_SIZE = 0x100
PINS = 48
VERSION = 0x11

_SELECT, _WINDOW = 0x00, 0x10
_ID, _VERSION, _ARBITRATION, _TABLE = 0x00, 0x01, 0x02, 0x10
_LOGICAL, _STATUS, _REMOTE_IRR, _LEVEL, _MASKED = 1 << 11, 1 << 12, 1 << 14, 1 << 15, 1 << 16
_LOW = 0xFFFFFFFF
_DELIVERED = (FIXED, LOWEST_PRIORITY, NMI)


class IoApic(Chip):
    """``retarget`` is called when the entry of pin 0 has changed."""

    STATE = {"id": 15, "select": 0xFF, "entries": (1 << 64) - 1, "levels": (1 << PINS) - 1}

    def __init__(self, bus: ApicBus, retarget: Callable[[], None]) -> None:
        self._bus = bus
        self._retarget = retarget
        self.id = 0
        self.select = 0
        self.entries = [_MASKED] * PINS
        self.levels = 0
        """Bit n: pin n is asserted."""

    def set_pin(self, pin: int, level: int) -> None:
        """Drive pin ``pin``."""
        bit = 1 << pin
        if bool(self.levels & bit) == bool(level):
            return
        self.levels ^= bit
        if level:
            self._request(pin)

    def end_of_interrupt(self, vector: int) -> None:
        """A local APIC has ended a level-triggered interrupt: ask again while the pin asks."""
        for pin, entry in enumerate(self.entries):
            if entry & 0xFF == vector:
                self.entries[pin] = entry & ~_REMOTE_IRR
                if entry & _LEVEL and self.levels >> pin & 1:
                    self._request(pin)

    def takes_pic(self, lapic: Lapic) -> bool:
        """Whether pin 0's entry lets the 8259's interrupts through to ``lapic``."""
        entry = self.entries[0]
        is_extint = entry >> 8 & 7 == EXTINT and not entry & _MASKED
        return is_extint and entry >> 56 == lapic.id >> 24 and lapic.enabled

    def read(self, address: int, size: int) -> int | None:
        """Read the index or the window; all else reads as zeros."""
        value = 0
        if address & 0xFF == _SELECT:
            value = self.select
        elif address & 0xFF == _WINDOW:
            value = self._read_register()
        return value & (1 << 8 * size) - 1

    def write(self, address: int, size: int, value: int) -> bool:
        """Write the index or the window; all else does nothing."""
        if address & 0xFF == _SELECT:
            self.select = value & 0xFF
        elif address & 0xFF == _WINDOW:
            self._write_register(value & _LOW)
        return True

    def after_load(self) -> None:
        """Pin 0 may have changed hands."""
        self._retarget()

    def _read_register(self) -> int:
        if self.select in (_ID, _ARBITRATION):
            return self.id << 24
        if self.select == _VERSION:
            return PINS - 1 << 16 | VERSION
        pin, high = divmod(self.select - _TABLE, 2)
        if not 0 <= pin < PINS:
            return 0
        return self.entries[pin] >> 32 if high else self.entries[pin] & _LOW

    def _write_register(self, value: int) -> None:
        if self.select == _ID:
            self.id = value >> 24 & 15
        pin, high = divmod(self.select - _TABLE, 2)
        if not 0 <= pin < PINS:
            return
        entry = self.entries[pin]
        if high:
            self.entries[pin] = entry & _LOW | value << 32
        else:
            low = value & ~(_STATUS | _REMOTE_IRR) | entry & _REMOTE_IRR
            if not low & _LEVEL:
                low &= ~_REMOTE_IRR
            self.entries[pin] = entry >> 32 << 32 | low
        if pin == 0:
            self._retarget()
        elif not high and low & _LEVEL and self.levels >> pin & 1:
            self._request(pin)

    def _request(self, pin: int) -> None:
        """Send the interrupt of an asserted pin, unless it is masked or still being served."""
        entry = self.entries[pin]
        if entry & (_MASKED | _REMOTE_IRR):
            return
        if entry & _LEVEL:
            self.entries[pin] = entry | _REMOTE_IRR
        mode = entry >> 8 & 7
        if mode in _DELIVERED:
            self._bus.send(
                mode,
                entry & 0xFF,
                entry >> 56,
                is_logical=bool(entry & _LOGICAL),
                level=bool(entry & _LEVEL),
            )
