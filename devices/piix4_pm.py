"""What the PIIX4 power management function knows: sleep, the APM ports, GPE0 and hotplug.

Of the ACPI registers Xen keeps PM1a_STS, PM1a_EN and the PM timer for itself
(xen/arch/x86/hvm/pmtimer.c); here are PM1a_CNT, through which a guest powers itself off, GPE0, and
the hotplug controllers whose events it carries. hvmloader sets the PM base and, by way of the APM
control port, SCI_EN; it stops the guest when that does not read back
(tools/firmware/hvmloader/hvmloader.c: acpi_enable_sci).

The SCI is ISA interrupt 9. Xen's own PM1 block drives the same line, and Xen keeps one bit for it.

Sources: Intel 82371AB (PIIX4) datasheet (290562), 7.1 (configuration), 7.2 (PMCNTRL), APM ports;
ACPI 6.4, 4.8.3.2 (PM1 control), 4.8.4.1 (GPE blocks); tools/libacpi/mk_dsdt.c for how a guest of
Xen reads the hotplug controllers (PCI up bits once per slot, so reading clears none); behaviour
compared with QEMU's hw/acpi/{core,piix4,pcihp,cpu_hotplug}.c and hw/isa/apm.c.
Not modelled: SMBus, SMI, device monitors, the CPU hotplug register file that QEMU switches to when
a guest writes the CPU bitmap.
What a hostile guest can do: power itself off; move PM1a_CNT over other ports, where the device
that was added first wins; announce to itself the events it was told of.
"""

from __future__ import annotations

from dm import (
    RO,
    W1C,
    WO,
    Bank,
    BankMemory,
    Bit,
    ConfigError,
    Field,
    IsaLine,
    Option,
    PciConfig,
    PciDevice,
    PciIdentity,
    PciWindow,
    PortWindow,
    Register,
    Transient,
)

__all__ = ["MAX_VCPUS", "Piix4Pm"]

SCI_IRQ = 9
PM1_CONTROL_OFFSET = 4
APM_ENABLE_ACPI = 0xF1
APM_DISABLE_ACPI = 0xF0
MAX_VCPUS = 256
SLOTS = 32

SOFT_OFF, SUSPEND_TO_RAM, SUSPEND_TO_DISK = 0, 1, 2
"""Sleep types as the guest's _S5, _S3 and _S4 name them (QEMU's piix4: s4_val is 2)."""


class PmBase(Register, width=32, reset=0x0000_0001):
    """Configuration 0x40: where in port space the power management registers are."""

    space = Bit(0)
    reserved_low = Field(5, 1)
    base = Field(15, 6)
    reserved_high = Field(31, 16)


class PmEnable(Register, width=8):
    """Configuration 0x80 (PMREGMISC): whether they are there at all."""

    enable = Bit(0)
    reserved = Field(7, 1)


class PmConfig(PciConfig):
    """The function's configuration; what nothing here acts upon is plain bytes."""

    status = PciConfig.status.variant(reset=0x0280)
    interrupt_line = PciConfig.interrupt_line.variant(reset=SCI_IRQ)
    pm_base = PmBase.at(0x40)
    device_activity_b = Register.at(0x58, width=32, reset=0x0200_0000)
    pm_enable = PmEnable.at(0x80)
    rest = BankMemory(0x40, 0xC0)


class Pm1Control(Register, width=16):
    """PM1a_CNT. Bits that have no name are storage, as in QEMU."""

    sci_enable = Bit(0)
    bus_master_reload = Bit(1)
    global_release = Bit(2)
    sleep_type = Field(12, 10)
    sleep_enable = Bit(13, access=WO)


class Pm1Block(Bank, size=2, width=16):
    """The part of the PM block that is not Xen's."""

    control = Pm1Control.at(0, writable=0xDFFF)


class ApmPorts(Bank, size=2, width=8):
    """APMC, which an operating system writes to change modes, and APMS."""

    control = Register.at(0)
    status = Register.at(1)


class GpeBits(Register, width=16):
    """The general purpose events that exist here."""

    pci_hotplug = Bit(1)
    cpu_hotplug = Bit(2)


class Gpe0(Bank, size=4, width=16):
    """GPE0: a status bit and an enable bit for each of 16 events."""

    status = GpeBits.at(0, access=W1C)
    enable = GpeBits.at(2, writable=0xFFFF)


class PciHotplug(Bank, size=16, width=32, gap=0, sizes=(4,)):
    """Bitmaps of slots: came, should go, eject (write), may go."""

    up = Register.at(0, access=RO)
    down = Register.at(4, access=RO)
    eject = Register.at(8, access=WO)
    removable = Register.at(12, access=RO, reset=0xFFFF_FFFC)


class CpuHotplug(Bank, size=MAX_VCPUS // 8, width=8, gap=0, sizes=(1,)):
    """A bitmap of the vCPUs that are present."""

    present = Register.array(0, MAX_VCPUS // 8, access=RO)


class Piix4Pm(PciDevice):
    """Power management: 8086:7113 at 00:01.3.

    ``ejected``, set by whoever owns the PCI bus, is called with the slot that the guest ejects.
    """

    summary = "PIIX4 power management"
    identity = PciIdentity(
        vendor=0x8086,
        device=0x7113,
        class_code=0x068000,
        revision=3,
        subsystem_vendor=0x1AF4,
        subsystem=0x1100,
        pin=1,
    )

    addr = Option(str, "1.3", "slot.function on bus 0, in hexadecimal")
    cpus = Option(int, 1, "number of vCPUs that are present at boot")

    config = PciWindow(PmConfig)
    pm1 = PortWindow(Pm1Block)
    apm = PortWindow(ApmPorts, at=0xB2)
    gpe0 = PortWindow(Gpe0, at=0xAFE0)
    pci_hotplug = PortWindow(PciHotplug, at=0xAE00)
    cpu_hotplug = PortWindow(CpuHotplug, at=0xAF00)
    sci = IsaLine(SCI_IRQ)
    ejected = Transient()

    def on_reset(self) -> None:
        """Mark the vCPUs that are there from the start."""
        if not 1 <= self.cpus <= MAX_VCPUS:
            raise ConfigError(f"{self.name}: cpus={self.cpus} is not 1 to {MAX_VCPUS}")
        for vcpu in range(self.cpus):
            self._set_present(vcpu)

    @pm1.address
    def _pm1_base(self) -> int | None:
        config = self.config
        if not config.pm_enable.enable or not config.pm_base.base:
            return None
        return (config.pm_base.value & PmBase.base.mask) + PM1_CONTROL_OFFSET

    @PmConfig.pm_base.on_write
    @PmConfig.pm_enable.on_write
    def _moved(self, new: int, old: int) -> None:
        self.remap()

    @Pm1Block.control.on_write
    def _control_written(self, new: int, old: int) -> None:
        if not Pm1Control.sleep_enable.of(new):
            return
        kind = Pm1Control.sleep_type.of(new)
        if kind == SUSPEND_TO_RAM:
            self.platform.suspend()
        elif kind in (SOFT_OFF, SUSPEND_TO_DISK):
            self.platform.shutdown("poweroff")
        else:
            self.warn("the guest asked for sleep type %d, which does not exist", kind)

    @ApmPorts.control.on_write
    def _apm_command(self, new: int, old: int) -> None:
        if new == APM_ENABLE_ACPI:
            self.pm1.control.sci_enable = 1
        elif new == APM_DISABLE_ACPI:
            self.pm1.control.sci_enable = 0

    @sci.level
    def _sci_level(self) -> bool:
        return bool(self.gpe0.status.value & self.gpe0.enable.value)

    @Gpe0.status.on_write
    @Gpe0.enable.on_write
    def _gpe_written(self, new: int, old: int) -> None:
        # Xen drops the line's one bit when its own PM1 block has nothing to say any more.
        if self._sci_level():
            self.platform.set_isa_irq(SCI_IRQ, 1)

    @PciHotplug.eject.on_write
    def _eject(self, new: int, old: int) -> None:
        lowest = new & -new & self.pci_hotplug.removable.value
        if not lowest:
            return
        self.pci_hotplug.up.value &= ~lowest
        self.pci_hotplug.down.value &= ~lowest
        if self.ejected is not None:
            self.ejected(lowest.bit_length() - 1)

    @property
    def online(self) -> list[int]:
        """The vCPUs that are present, ascending."""
        bitmap = self.cpu_hotplug.present
        return [vcpu for vcpu in range(MAX_VCPUS) if bitmap[vcpu >> 3].value >> (vcpu & 7) & 1]

    def plug_vcpu(self, vcpu: int) -> bool:
        """Tell the guest that ``vcpu`` (0..255) has come; says whether it was not there before.

        ConfigError for a number that cannot be.
        """
        if not 0 <= vcpu < MAX_VCPUS:
            raise ConfigError(f"{self.name}: there is no vCPU {vcpu}")
        if vcpu in self.online:
            return False
        self._set_present(vcpu)
        self._raise_event(GpeBits.cpu_hotplug.mask)
        return True

    def plug_slot(self, slot: int) -> None:
        """Tell the guest that the device in PCI ``slot`` has come. ConfigError if it cannot."""
        self.pci_hotplug.up.value |= self._slot_bit(slot)
        self._raise_event(GpeBits.pci_hotplug.mask)

    def unplug_slot(self, slot: int) -> None:
        """Ask the guest to eject PCI ``slot``; `ejected` follows. ConfigError if it cannot."""
        self.pci_hotplug.down.value |= self._slot_bit(slot)
        self._raise_event(GpeBits.pci_hotplug.mask)

    def _slot_bit(self, slot: int) -> int:
        if not 0 <= slot < SLOTS or not self.pci_hotplug.removable.value >> slot & 1:
            raise ConfigError(f"{self.name}: PCI slot {slot} cannot be plugged")
        return 1 << slot

    def _set_present(self, vcpu: int) -> None:
        self.cpu_hotplug.present[vcpu >> 3].value |= 1 << (vcpu & 7)

    def _raise_event(self, event: int) -> None:
        self.gpe0.status.value |= event
        self.settle()
