"""What a PCI function is: its configuration space, BARs, capabilities, INTx and MSI.

Sources: PCI Local Bus Specification 3.0, 6.1-6.2 (type-0 header, command, status, BARs), 6.7
(capabilities) and 6.8 (MSI); the routing of INTx belongs to Xen (set_pci_intx_level).
"""

from __future__ import annotations

from .bank import Bank
from .device import Device
from .line import LiveLine
from .platform import PCI, PCI_SHIFT, PORT
from .register import RO, RW, W1C, Bit, DeclarationError, Field, Register, RegisterSlot
from .state import Option, Word
from .window import MmioBar, PortBar, Window

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    C_co = TypeVar("C_co", bound="PciConfig", covariant=True)
else:
    C_co = None

__all__ = [
    "Capability",
    "Command",
    "MsiCapability",
    "PciConfig",
    "PciDevice",
    "PciIdentity",
    "PciWindow",
    "Status",
]

CONFIG_SIZE = 256


class Command(Register, width=16):
    """The command register (6.2.2); writable as far as QEMU's functions have it."""

    io = Bit(0)
    memory = Bit(1)
    master = Bit(2)
    special_cycles = Bit(3, access=RO)
    memory_write_invalidate = Bit(4, access=RO)
    vga_snoop = Bit(5, access=RO)
    parity_response = Bit(6, access=RO)
    serr = Bit(8)
    fast_back_to_back = Bit(9, access=RO)
    interrupt_disable = Bit(10)


class Status(Register, width=16, access=RO):
    """The status register (6.2.3)."""

    interrupt = Bit(3)
    capabilities = Bit(4)
    fast_back_to_back = Bit(7)
    parity_error = Bit(8, access=W1C)
    devsel = Field(10, 9)
    signalled_target_abort = Bit(11, access=W1C)
    received_target_abort = Bit(12, access=W1C)
    received_master_abort = Bit(13, access=W1C)
    signalled_system_error = Bit(14, access=W1C)
    detected_parity_error = Bit(15, access=W1C)


class PciConfig(Bank, size=CONFIG_SIZE, width=8, gap=0, sizes=(1, 2, 4)):
    """A type-0 configuration space. Subclass it to add the function's own registers."""

    vendor_id = Register.at(0x00, width=16, access=RO)
    device_id = Register.at(0x02, width=16, access=RO)
    command = Command.at(0x04)
    status = Status.at(0x06)
    revision = Register.at(0x08, access=RO)
    programming_interface = Register.at(0x09, access=RO)
    subclass = Register.at(0x0A, access=RO)
    base_class = Register.at(0x0B, access=RO)
    cache_line_size = Register.at(0x0C)
    latency_timer = Register.at(0x0D, access=RO)
    header_type = Register.at(0x0E, access=RO)
    self_test = Register.at(0x0F, access=RO)
    bar0 = Register.at(0x10, width=32, access=RO)
    bar1 = Register.at(0x14, width=32, access=RO)
    bar2 = Register.at(0x18, width=32, access=RO)
    bar3 = Register.at(0x1C, width=32, access=RO)
    bar4 = Register.at(0x20, width=32, access=RO)
    bar5 = Register.at(0x24, width=32, access=RO)
    cardbus_pointer = Register.at(0x28, width=32, access=RO)
    subsystem_vendor_id = Register.at(0x2C, width=16, access=RO)
    subsystem_id = Register.at(0x2E, width=16, access=RO)
    rom_base = Register.at(0x30, width=32, access=RO)
    capability_pointer = Register.at(0x34, access=RO)
    interrupt_line = Register.at(0x3C)
    interrupt_pin = Register.at(0x3D, access=RO)
    minimum_grant = Register.at(0x3E, access=RO)
    maximum_latency = Register.at(0x3F, access=RO)


class PciIdentity:
    """What a function says of itself.

    ``class_code``: 24 bits, base class, subclass, programming interface. ``pin``: 0 for none, 1..4
    for INTA..INTD. ``multifunction`` sets bit 7 of the header type.
    """

    __slots__ = (
        "class_code",
        "device",
        "multifunction",
        "pin",
        "revision",
        "subsystem",
        "subsystem_vendor",
        "vendor",
    )

    def __init__(
        self,
        vendor: int,
        device: int,
        class_code: int,
        *,
        revision: int = 0,
        subsystem_vendor: int = 0,
        subsystem: int = 0,
        pin: int = 0,
        multifunction: bool = False,
    ) -> None:
        if not 0 <= pin <= 4:
            raise DeclarationError(f"there is no interrupt pin {pin}")
        self.vendor = vendor
        self.device = device
        self.class_code = class_code
        self.revision = revision
        self.subsystem_vendor = subsystem_vendor
        self.subsystem = subsystem
        self.pin = pin
        self.multifunction = multifunction

    def resets(self) -> dict[str, int]:
        """The reset values of the configuration registers that identify the function."""
        return {
            "vendor_id": self.vendor,
            "device_id": self.device,
            "revision": self.revision,
            "programming_interface": self.class_code & 0xFF,
            "subclass": self.class_code >> 8 & 0xFF,
            "base_class": self.class_code >> 16,
            "header_type": 0x80 if self.multifunction else 0,
            "subsystem_vendor_id": self.subsystem_vendor,
            "subsystem_id": self.subsystem,
            "interrupt_pin": self.pin,
        }


class Capability:
    """A PCI capability: an id, an offset, and the registers that follow the two header bytes."""

    capability_id = 0
    length = 2

    def __init__(self, offset: int) -> None:
        if not 0x40 <= offset <= CONFIG_SIZE - self.length or offset & 3:
            raise DeclarationError(f"a capability cannot stand at {offset:#x}")
        self.offset = offset

    def registers(self) -> dict[str, RegisterSlot[Any]]:
        """The capability's registers behind its header, by name."""
        return {}


class MsiControl(Register, width=16, access=RO):
    """MSI message control (6.8.1.3)."""

    enable = Bit(0, access=RW)
    multiple_capable = Field(3, 1)
    multiple_enable = Field(6, 4, access=RW)
    address_64 = Bit(7)
    per_vector_masking = Bit(8)


class MsiCapability(Capability):
    """Message signalled interrupts with a 64-bit address and one vector, no masking."""

    capability_id = 0x05
    length = 14

    def registers(self) -> dict[str, RegisterSlot[Any]]:
        """Control, address and data (6.8.1)."""
        at = self.offset
        return {
            "msi_control": MsiControl.at(at + 2, reset=0x80, writable=0x0001),
            "msi_address": Register.at(at + 4, width=32, writable=0xFFFFFFFC),
            "msi_address_high": Register.at(at + 8, width=32),
            "msi_data": Register.at(at + 12, width=16),
        }


class PciWindow(Window[C_co]):
    """The configuration space of a PCI function, over `PciConfig` or a subclass of it."""

    space = PCI


class PciDevice(Device):
    """A function on PCI bus 0.

    Declares ``identity``; may declare ``capabilities``, BARs, and ``config = PciWindow(Bank)``
    where the bank, a subclass of `PciConfig`, has registers of the function's own. ``irq_level``
    derives the interrupt request: it is delivered as an MSI on its rising edge while the guest has
    MSI enabled, else as the level of the INTx pin.
    """

    identity: PciIdentity
    capabilities: tuple[Capability, ...] = ()

    addr = Option(str, "", "slot.function on bus 0, in hexadecimal (chosen when left out)")
    config = PciWindow(PciConfig)
    request = Word(1)
    pin_driven = Word(1)

    devfn: int

    def __init_subclass__(cls) -> None:
        cls.config = PciWindow(_configuration(cls))
        cls.config.name = "config"
        super().__init_subclass__()

    def place_at(self, devfn: int) -> None:
        """Say which device and function number (0..255) it has; the machine does, before bind."""
        self.__dict__["devfn"] = devfn

    @property
    def sbdf(self) -> int:
        """Segment 0, bus 0, the device and function number."""
        return self.devfn

    def bar_of(self, window: str) -> int | None:
        """The BAR behind which the window of that name lies; None when it has another place."""
        declaration = self._declared[window]
        return declaration.index if isinstance(declaration, MmioBar | PortBar) else None

    def more_lines(self) -> tuple[LiveLine, ...]:
        """The interrupt request, in a shape that the machine can settle and re-drive."""
        overridden = type(self).irq_level is not PciDevice.irq_level
        return (_PciInterrupt(self),) if overridden else ()

    def irq_level(self) -> bool:
        """Override: whether the function requests an interrupt; a pure function of state."""
        return False

    def window_base(self, declaration: Window[Any]) -> Callable[[], int | None]:
        """BARs give the place while the command register lets the function decode."""
        if isinstance(declaration, PciWindow):
            return lambda: self.sbdf << PCI_SHIFT
        if not isinstance(declaration, MmioBar | PortBar):
            return super().window_base(declaration)
        size, index = declaration.bank.size, declaration.index
        wide = isinstance(declaration, MmioBar) and declaration.bits == 64
        limit = 0x10000 if declaration.space == PORT else 1 << (64 if wide else 32)
        low: Register = getattr(self.config, f"bar{index}")
        high: Register | None = getattr(self.config, f"bar{index + 1}") if wide else None

        def base() -> int | None:
            command = self.config.command
            decodes = command.io if declaration.space == PORT else command.memory
            address = low.value & ~(0x3 if declaration.space == PORT else 0xF)
            if high is not None:
                address |= high.value << 32
            if not decodes or not address or address + size >= limit:
                return None
            return address

        return base

    @PciConfig.command.on_write
    def _command_written(self, new: int, old: int) -> None:
        if (new ^ old) & (Command.io.mask | Command.memory.mask):
            self.remap()

    @PciConfig.bar0.on_write
    @PciConfig.bar1.on_write
    @PciConfig.bar2.on_write
    @PciConfig.bar3.on_write
    @PciConfig.bar4.on_write
    @PciConfig.bar5.on_write
    def _bar_written(self, new: int, old: int) -> None:
        if new != old and (self.config.command.io or self.config.command.memory):
            self.remap()

    def send_msi(self) -> bool:
        """Send the function's MSI if the guest has it enabled; says whether it was."""
        bank: Any = self.config
        if not any(isinstance(c, MsiCapability) for c in self.capabilities):
            return False
        if not bank.msi_control.enable or not self.config.command.master:
            return False
        address = bank.msi_address.value | bank.msi_address_high.value << 32
        self.platform.inject_msi(address, bank.msi_data.value)
        return True

    @property
    def msi_enabled(self) -> bool:
        """Whether the guest has MSI enabled."""
        bank: Any = self.config
        has = any(isinstance(c, MsiCapability) for c in self.capabilities)
        return has and bool(bank.msi_control.enable)


class _PciInterrupt(LiveLine):
    """The interrupt of a PCI function: an edge to MSI or the level of the pin."""

    __slots__ = ("_device",)

    def __init__(self, device: PciDevice) -> None:
        self._device = device

    def settler(self) -> Callable[[], None]:
        """A function that delivers what changed."""
        return self._settle

    def _settle(self) -> None:
        """Deliver what the derived request, MSI enable and interrupt disable amount to."""
        device = self._device
        request = 1 if device.irq_level() else 0
        msi = device.msi_enabled
        if request != device.request:
            device.config.status.interrupt = request
            device.request = request
            if request and msi:
                device.send_msi()
        pin = 1 if request and not (msi or device.config.command.interrupt_disable) else 0
        if pin != device.pin_driven:
            self._drive_pin(pin)

    def lower(self) -> None:
        """Drive the pin low if it is high."""
        if self._device.pin_driven:
            self._drive_pin(0)

    def redrive(self) -> None:
        """Drive the pin whatever was driven last; an MSI that was sent is not sent again."""
        self._drive_pin(self._device.pin_driven)
        self._settle()

    def _drive_pin(self, level: int) -> None:
        device = self._device
        if device.identity.pin:
            device.platform.set_intx(device.devfn >> 3, device.identity.pin - 1, level)
        device.pin_driven = level


def _configuration(cls: type[PciDevice]) -> type[PciConfig]:
    """The configuration bank of a class: its ``Config`` with identity, BARs and capabilities."""
    base: type[PciConfig] = cls.config.bank
    resets = cls.identity.resets() if hasattr(cls, "identity") else {}
    body: dict[str, Any] = {
        name: _single(base, name).variant(reset=value) for name, value in resets.items()
    }
    pointer = 0
    for capability in reversed(cls.capabilities):
        header = Register.at(
            capability.offset, width=16, access=RO, reset=capability.capability_id | pointer << 8
        )
        body[f"capability_{capability.offset:02x}"] = header
        body.update(capability.registers())
        pointer = capability.offset
    if pointer:
        body["capability_pointer"] = _single(base, "capability_pointer").variant(reset=pointer)
        body["status"] = _single(base, "status").variant(reset=Status.capabilities.mask)
    body.update(_bars(cls, base))
    return type(f"{cls.__name__}Config", (base,), body)


def _bars(cls: type[PciDevice], base: type[PciConfig]) -> dict[str, RegisterSlot[Any]]:
    """The base address registers that the class's BAR windows need (6.2.5.1)."""
    bars: dict[str, RegisterSlot[Any]] = {}
    for owner in reversed(cls.__mro__):
        for window in owner.__dict__.values():
            if not isinstance(window, MmioBar | PortBar):
                continue
            size_mask = ~(window.bank.size - 1) & 0xFFFFFFFF
            type_bits = 0x1
            if isinstance(window, MmioBar):
                type_bits = (0x4 if window.bits == 64 else 0) | (0x8 if window.prefetchable else 0)
            names = [f"bar{window.index}"]
            if isinstance(window, MmioBar) and window.bits == 64:
                names.append(f"bar{window.index + 1}")
            for name in names:
                if name in bars and owner is cls:
                    raise DeclarationError(f"{cls.__name__}: two windows want {name}")
            flag_bits = 0x3 if window.space == PORT else 0xF
            bars[names[0]] = _single(base, names[0]).variant(
                reset=type_bits, writable=size_mask & ~flag_bits
            )
            for name in names[1:]:
                high_mask = ~(window.bank.size - 1) >> 32 & 0xFFFFFFFF
                bars[name] = _single(base, name).variant(writable=high_mask)
    return bars


def _single(bank: type[Bank], name: str) -> RegisterSlot[Any]:
    slot = bank.slots[name]
    if not isinstance(slot, RegisterSlot):
        raise DeclarationError(f"{bank.__name__}.{name} is not a single register")
    return slot
