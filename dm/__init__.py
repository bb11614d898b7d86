"""The authoring kit's public face: everything a device file needs, and nothing else."""

from __future__ import annotations

from dm.device.bank import Bank, BankMemory
from dm.device.character import Character
from dm.device.deferral import Deferral
from dm.device.device import Device
from dm.device.line import IsaLine
from dm.device.pci import (
    Capability,
    Command,
    MsiCapability,
    PciConfig,
    PciDevice,
    PciIdentity,
    PciWindow,
    Status,
)
from dm.device.platform import GuestMemory, Platform
from dm.device.register import (
    KEPT,
    RC,
    RO,
    RW,
    W1C,
    WO,
    Access,
    Bit,
    DeclarationError,
    Field,
    Register,
    RegisterArray,
    RegisterSlot,
)
from dm.device.state import Fifo, Memory, Option, Timer, Transient, Word
from dm.device.window import MmioBar, MmioWindow, PortBar, PortWindow, PrivateWindow
from dm.errors import ConfigError, GuestError, HostError

__all__ = [
    "KEPT",
    "RC",
    "RO",
    "RW",
    "W1C",
    "WO",
    "Access",
    "Bank",
    "BankMemory",
    "Bit",
    "Capability",
    "Character",
    "Command",
    "ConfigError",
    "DeclarationError",
    "Deferral",
    "Device",
    "Field",
    "Fifo",
    "GuestError",
    "GuestMemory",
    "HostError",
    "IsaLine",
    "Memory",
    "MmioBar",
    "MmioWindow",
    "MsiCapability",
    "Option",
    "PciConfig",
    "PciDevice",
    "PciIdentity",
    "PciWindow",
    "Platform",
    "PortBar",
    "PortWindow",
    "PrivateWindow",
    "Register",
    "RegisterArray",
    "RegisterSlot",
    "Status",
    "Timer",
    "Transient",
    "Word",
]
