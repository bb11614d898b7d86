"""What the pvpanic device knows: a guest kernel writes why it died to one port.

Sources: QEMU's docs/specs/pvpanic.txt and hw/misc/pvpanic.c; Linux drivers/misc/pvpanic.
Not modelled: announcing the port to the guest by ACPI or fw_cfg.
What a hostile guest can do: claim to have panicked, as often as it likes; reports are counted
nowhere and logged at a limited rate.
"""

from __future__ import annotations

from dm import WO, Bank, Bit, ConfigError, Device, Option, PortWindow, Register, Transient

__all__ = ["CRASH_LOADED", "PANICKED", "Pvpanic"]


class Events(Register, width=8):
    """Bits read: the events that the device understands. Bits written: what happened."""

    panicked = Bit(0)
    crash_loaded = Bit(1)


PANICKED = Events.panicked.mask
"""The guest panicked and can do no more."""
CRASH_LOADED = Events.crash_loaded.mask
"""The guest panicked and its crash kernel takes over."""

KNOWN = PANICKED | CRASH_LOADED


class PanicPort(Bank, size=1, width=8):
    """The one port."""

    events = Events.at(0, access=WO)


class Pvpanic(Device):
    """A port on which a guest reports its panic.

    ``report``, set by whoever watches the guest, is called with the event bits.
    """

    summary = "paravirtual panic notification"

    ioport = Option(int, 0x505, "port number")
    events = Option(int, KNOWN, "events that the guest may report, a bit mask")

    port = PortWindow(PanicPort, at=ioport)
    report = Transient()

    def on_reset(self) -> None:
        """Refuse events that the device cannot pass on."""
        if self.events & ~KNOWN:
            raise ConfigError(f"{self.name}: events={self.events:#x} has unknown bits")

    @PanicPort.events.computed
    def _read(self) -> int:
        return self.events

    @PanicPort.events.on_write
    def _written(self, new: int, old: int) -> None:
        event = new & KNOWN
        if not event:
            return
        self.warn("the guest panicked" if event & PANICKED else "the guest starts a crash kernel")
        if self.report is not None:
            self.report(event)
