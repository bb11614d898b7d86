"""PCI configuration space and its capabilities, as a function with a type-0 header shows them.

Source: PCI Local Bus Specification 3.0 (header, MSI, MSI-X), PCI Power Management 1.2 and, for the
message's bits on x86, Intel's SDM volume 3, "Message Signalled Interrupts".
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final

from construct import Array, Default, Int8ul, Int16ul, Int32ul, Padding, Struct

from protocol.bitfields import bitfields

__all__ = [
    "MSIX_CAPABILITY",
    "MSIX_LOCATION",
    "MSIX_TABLE_ENTRY",
    "MSI_32",
    "MSI_32_MASKED",
    "MSI_64",
    "MSI_64_MASKED",
    "MSI_MESSAGE_ADDRESS",
    "MSI_MESSAGE_DATA",
    "PCI_BAR_COUNT",
    "PCI_CAPABILITY",
    "PCI_CONFIG_ADDRESS",
    "PCI_CONFIG_ADDRESS_PORT",
    "PCI_CONFIG_DATA_PORT",
    "PCI_CONFIG_SIZE",
    "PCI_HEADER",
    "PCI_POINTER_MASK",
    "PCI_VENDOR_NONE",
    "PM_CAPABILITY",
    "MsiControl",
    "MsixControl",
    "MsixVectorControl",
    "PciBar",
    "PciCapabilityId",
    "PciClass",
    "PciCommand",
    "PciHeaderType",
    "PciInterruptPin",
    "PciRom",
    "PciStatus",
    "PmCapabilities",
    "PmControl",
]

PCI_CONFIG_SIZE: Final = 256
"""Bytes of conventional configuration space, which is all that the 0xcf8 mechanism reaches."""

PCI_BAR_COUNT: Final = 6
"""Base address registers in a type-0 header."""

PCI_CONFIG_ADDRESS_PORT: Final = 0xCF8
"""First of the four ports of configuration mechanism 1's address latch."""

PCI_CONFIG_DATA_PORT: Final = 0xCFC
"""First of the four ports of configuration mechanism 1's data window."""

PCI_VENDOR_NONE: Final = 0xFFFF
"""What the vendor id of an absent function reads as."""

PCI_POINTER_MASK: Final = 0xFC
"""Bits of a capability pointer that count; the low two are reserved."""


class PciCommand(IntFlag):
    """Bits of the command register."""

    IO = 0x1
    MEMORY = 0x2
    MASTER = 0x4
    SPECIAL = 0x8
    INVALIDATE = 0x10
    VGA_PALETTE = 0x20
    PARITY = 0x40
    WAIT = 0x80
    SERR = 0x100
    FAST_BACK = 0x200
    INTX_DISABLE = 0x400


class PciStatus(IntFlag):
    """Bits of the status register; DEVSEL_* are values of the field under DEVSEL_MASK."""

    INTERRUPT = 0x8
    CAP_LIST = 0x10
    MHZ_66 = 0x20
    FAST_BACK = 0x80
    PARITY = 0x100
    DEVSEL_MASK = 0x600
    DEVSEL_FAST = 0x000
    DEVSEL_MEDIUM = 0x200
    DEVSEL_SLOW = 0x400
    SIG_TARGET_ABORT = 0x800
    REC_TARGET_ABORT = 0x1000
    REC_MASTER_ABORT = 0x2000
    SIG_SYSTEM_ERROR = 0x4000
    DETECTED_PARITY = 0x8000


class PciHeaderType(IntEnum):
    """The header type register: layouts, the mask that selects them, and the multi-function bit."""

    NORMAL = 0
    BRIDGE = 1
    CARDBUS = 2
    MASK = 0x7F
    MULTI_FUNCTION = 0x80


class PciBar(IntEnum):
    """Bits of a base address register. MEM_TYPE_* are values of the field under MEM_TYPE_MASK."""

    SPACE_MEMORY = 0x0
    SPACE_IO = 0x1
    MEM_TYPE_MASK = 0x6
    MEM_TYPE_32 = 0x0
    MEM_TYPE_1M = 0x2
    MEM_TYPE_64 = 0x4
    MEM_PREFETCH = 0x8
    MEM_MASK = 0xFFFFFFF0
    IO_MASK = 0xFFFFFFFC


class PciRom(IntEnum):
    """Bits of the expansion ROM base address register."""

    ENABLE = 0x1
    ADDRESS_MASK = 0xFFFFF800


class PciInterruptPin(IntEnum):
    """The interrupt pin register."""

    NONE = 0
    A = 1
    B = 2
    C = 3
    D = 4


class PciCapabilityId(IntEnum):
    """First byte of a capability."""

    PM = 0x01
    MSI = 0x05
    VENDOR = 0x09
    EXPRESS = 0x10
    MSIX = 0x11


class PciClass(IntEnum):
    """Class codes, base class in the high byte. Source: PCI Code and ID Assignment.

    OTHERS and XEN_PLATFORM are values that QEMU gives to `edu` and to the Xen platform device.
    """

    OTHERS = 0x00FF
    STORAGE_IDE = 0x0101
    NETWORK_ETHERNET = 0x0200
    DISPLAY_VGA = 0x0300
    DISPLAY_OTHER = 0x0380
    BRIDGE_HOST = 0x0600
    BRIDGE_ISA = 0x0601
    BRIDGE_OTHER = 0x0680
    COMMUNICATION_SERIAL = 0x0700
    COMMUNICATION_OTHER = 0x0780
    SYSTEM_OTHER = 0x0880
    XEN_PLATFORM = 0xFF80


class MsiControl(IntFlag):
    """MSI message control. Q_CAPABLE and Q_ENABLED are fields: log2 of the number of messages."""

    ENABLE = 0x1
    Q_CAPABLE_MASK = 0xE
    Q_ENABLED_MASK = 0x70
    ADDRESS_64 = 0x80
    MASKING = 0x100


class MsixControl(IntFlag):
    """MSI-X message control. TABLE_SIZE is a field: the number of entries less one."""

    TABLE_SIZE_MASK = 0x7FF
    MASK_ALL = 0x4000
    ENABLE = 0x8000


class MsixVectorControl(IntFlag):
    """Vector control of an MSI-X table entry."""

    MASKED = 0x1


class PmCapabilities(IntFlag):
    """Power management capabilities register; VERSION is a field."""

    VERSION_MASK = 0x7
    DSI = 0x20
    D1 = 0x200
    D2 = 0x400
    PME_MASK = 0xF800


class PmControl(IntFlag):
    """Power management control and status register; STATE is a field, 0 (D0) to 3 (D3hot)."""

    STATE_MASK = 0x3
    NO_SOFT_RESET = 0x8
    PME_ENABLE = 0x100
    PME_STATUS = 0x8000


PCI_HEADER: Final = "pci_header" / Struct(
    "vendor_id" / Int16ul,
    "device_id" / Int16ul,
    "command" / Int16ul,
    "status" / Int16ul,
    "revision_id" / Int8ul,
    "prog_if" / Int8ul,
    "class_device" / Int16ul,
    "cache_line_size" / Int8ul,
    "latency_timer" / Int8ul,
    "header_type" / Int8ul,
    "bist" / Int8ul,
    "bar" / Array(PCI_BAR_COUNT, Int32ul),
    "cardbus_cis" / Int32ul,
    "subsystem_vendor_id" / Int16ul,
    "subsystem_id" / Int16ul,
    "rom_address" / Int32ul,
    "capability_list" / Int8ul,
    Padding(7),
    "interrupt_line" / Int8ul,
    "interrupt_pin" / Int8ul,
    "min_gnt" / Int8ul,
    "max_lat" / Int8ul,
)
"""The type-0 header, the first 64 bytes of configuration space."""

PCI_CONFIG_ADDRESS: Final = bitfields(register=8, function=3, device=5, bus=8, reserved=7, enable=1)
"""The latch at port 0xcf8. The low two bits of the data port replace its own low two."""

_CAPABILITY: Final = ("id" / Int8ul, "next" / Int8ul)
_MSI_LOW: Final = (*_CAPABILITY, "control" / Int16ul, "address" / Int32ul)
_MSI_HIGH: Final = (*_MSI_LOW, "address_high" / Int32ul)
_MSI_MASKS: Final = ("reserved" / Default(Int16ul, 0), "mask" / Int32ul, "pending" / Int32ul)

PCI_CAPABILITY: Final = "pci_capability" / Struct(*_CAPABILITY)
"""What every capability begins with: its id and the offset of the next one, 0 at the end."""

MSI_32: Final = "msi_32" / Struct(*_MSI_LOW, "data" / Int16ul)
"""MSI with a 32-bit address."""

MSI_32_MASKED: Final = "msi_32_masked" / Struct(*_MSI_LOW, "data" / Int16ul, *_MSI_MASKS)
"""MSI with a 32-bit address and masking per vector."""

MSI_64: Final = "msi_64" / Struct(*_MSI_HIGH, "data" / Int16ul)
"""MSI with a 64-bit address."""

MSI_64_MASKED: Final = "msi_64_masked" / Struct(*_MSI_HIGH, "data" / Int16ul, *_MSI_MASKS)
"""MSI with a 64-bit address and masking per vector."""

MSIX_CAPABILITY: Final = "msix_capability" / Struct(
    *_CAPABILITY, "control" / Int16ul, "table" / Int32ul, "pba" / Int32ul
)
"""MSI-X: `table` and `pba` are each an MSIX_LOCATION."""

MSIX_LOCATION: Final = bitfields(bir=3, offset=29)
"""Where a table lies: BAR number, and the offset in that BAR in units of eight bytes."""

MSIX_TABLE_ENTRY: Final = "msix_table_entry" / Struct(
    "address" / Int32ul,
    "address_high" / Int32ul,
    "data" / Int32ul,
    "vector_control" / Int32ul,
)
"""One vector in the table that a BAR holds."""

PM_CAPABILITY: Final = "pm_capability" / Struct(
    *_CAPABILITY,
    "capabilities" / Int16ul,
    "control" / Int16ul,
    "bridge_extensions" / Int8ul,
    "data" / Int8ul,
)
"""Power management."""

MSI_MESSAGE_ADDRESS: Final = bitfields(
    _low=2, dest_mode=1, redirection_hint=1, _middle=8, destination=8, base=12
)
"""Low 32 bits of a message's address on x86; `base` is 0xfee."""

MSI_MESSAGE_DATA: Final = bitfields(vector=8, delivery_mode=3, _middle=3, level=1, trigger_mode=1)
"""A message's data on x86."""
