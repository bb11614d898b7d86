"""Which devices can be named on the command line, and where their classes are.

Names are QEMU's where QEMU has the device. A class is imported when it is asked for, not before.
"""

from __future__ import annotations

__all__ = ["DRIVERS", "MACHINES"]

DRIVERS = {
    "edu": "devices.edu:Edu",
    "isa-debugcon": "devices.debug_console:DebugConsole",
    "isa-serial": "devices.uart16550:Uart16550",
    "pvpanic": "devices.pvpanic:Pvpanic",
}
"""``-device NAME``: module and class."""

MACHINES = {
    "pc": "devices.xenfv:devices",
    "xenfv": "devices.xenfv:devices",
}
"""``-machine NAME``: module and the function that gives the machine's own devices."""
