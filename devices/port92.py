"""What system control port A (0x92) knows: the fast A20 gate's bit and the fast reset.

The hottest port of a SeaBIOS boot: each switch to 32-bit code reads it and writes it back with
bit 1 set (src/romlayout.S: transition32). Xen's A20 is always open, so bit 1 is only remembered.
Bit 0 always reads as zero, so that a read-modify-write never resets the machine.

Sources: IBM PS/2 Hardware Interface Technical Reference, system control port A; behaviour compared
with QEMU's hw/i386/port92.c, where the bits with other meanings are storage, too.
Not modelled: the A20 gate, the watchdog status, the disk lights.
What a hostile guest can do: reboot itself.
"""

from __future__ import annotations

from dm import WO, Bank, Bit, Device, PortWindow, Register

__all__ = ["Port92"]


class SystemControl(Register, width=8):
    """Port 0x92."""

    fast_reset = Bit(0, access=WO)
    a20 = Bit(1)


class ControlPort(Bank, size=1, width=8):
    """The one port."""

    control = SystemControl.at(0, writable=0xFE)


class Port92(Device):
    """System control port A."""

    summary = "system control port A: A20 and fast reset"

    port = PortWindow(ControlPort, at=0x92)

    @ControlPort.control.on_write
    def _written(self, new: int, old: int) -> None:
        if SystemControl.fast_reset.of(new):
            self.platform.shutdown("reboot")
