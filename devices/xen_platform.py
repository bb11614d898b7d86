"""What the Xen platform device knows: the ports by which PV drivers announce themselves.

A guest with PV drivers checks the magic number at port 0x10, says who it is, and unplugs the
emulated disks and NICs that its drivers replace. Linux uses no PV device unless it finds the magic
(arch/x86/platform/xen/platform-pci-unplug.c), and takes the place of its grant tables from BAR 1,
over which it maps pages of its own.

Port 0x10 means three things, told apart by the width of the access, as does 0x12.

Sources: Xen's docs/misc/hvm-emulated-unplug.pandoc; Linux drivers/xen/platform-pci.c; behaviour
as in QEMU's hw/i386/xen/xen_platform.c.
Not modelled: refusing guests' drivers by the other magic number (0xd249), the interrupt, which
Xen raises itself for a guest that asks for it (HVM_PARAM_CALLBACK_IRQ).
What a hostile guest can do: unplug its own devices; make 0xc0000 to 0xfffff read-only for itself;
write 512 bytes of escaped text at a time to the log, at a limited rate.
"""

from __future__ import annotations

from dm import (
    RO,
    WO,
    Access,
    Bank,
    Bit,
    HostError,
    MmioBar,
    Option,
    PciDevice,
    PciIdentity,
    PortBar,
    PortWindow,
    Register,
    Transient,
    Word,
)

__all__ = [
    "UNPLUG_AUXILIARY_DISKS",
    "UNPLUG_DISKS",
    "UNPLUG_NICS",
    "UNPLUG_NVME",
    "XenPlatform",
]

KEPT = Access("KEPT", readable=False, stores=True)
"""Written and kept, but not readable."""

MAGIC = 0x49D2
PROTOCOL_VERSION = 1
ROM_FIRST_GFN = 0xC0
ROM_PAGES = 0x40
LOG_LINE = 512

UNPLUG_DISKS = 1
"""All IDE and SCSI disks, CD drives excepted."""
UNPLUG_NICS = 2
"""All emulated NICs."""
UNPLUG_AUXILIARY_DISKS = 4
"""All IDE disks but the primary master."""
UNPLUG_NVME = 8
"""All NVMe disks."""


class Flags(Register, width=8):
    """Port 0x10 as a byte."""

    rom_lock = Bit(0)


class FixedPorts(Bank, size=4):
    """Ports 0x10 to 0x13: each access means what its port and its width say, or nothing."""

    flags = Flags.at(0, exact=True)
    magic = Register.at(0, width=16, access=RO, reset=MAGIC, exact=True)
    unplug = Register.at(0, width=16, access=WO, exact=True)
    driver_build = Register.at(0, width=32, access=KEPT, exact=True)
    protocol = Register.at(2, width=8, access=RO, reset=PROTOCOL_VERSION, exact=True)
    log = Register.at(2, width=8, access=WO, exact=True)
    driver_product = Register.at(2, width=16, access=KEPT, exact=True)


class PciPorts(Bank, size=256, width=8):
    """BAR 0: the flags, and the unplug ports of XenLinux kernels."""

    flags = Flags.at(0)
    unplug_all = Register.at(4, access=WO)
    unplug_some = Register.at(8, access=WO)


class SharedPages(Bank, size=0x100_0000, gap=0):
    """BAR 1: a place for pages that the guest maps itself; nothing is behind it."""


class XenPlatform(PciDevice):
    """The platform device: 5853:0001 and ports 0x10 to 0x13.

    ``unplug``, set by whoever owns the devices, is called with a mask of ``UNPLUG_`` bits, once
    for each request and once after a load when something was unplugged before.
    """

    summary = "Xen platform device"
    identity = PciIdentity(
        vendor=0x5853,
        device=0x0001,
        class_code=0xFF8000,
        revision=1,
        subsystem_vendor=0x5853,
        subsystem=0x0001,
        pin=1,
    )

    addr = Option(str, "", "slot.function on bus 0, in hexadecimal (chosen when left out)")

    fixed = PortWindow(FixedPorts, at=0x10)
    ports = PortBar(PciPorts, index=0)
    pages = MmioBar(SharedPages, index=1, prefetchable=True)

    unplugged = Word(16)
    unplug = Transient()
    line = Transient()
    rom_locked = Transient()

    @FixedPorts.flags.on_write
    def _flags_written(self, new: int, old: int) -> None:
        try:
            self._set_rom_lock(Flags.rom_lock.of(new))
        except HostError:
            self.fixed.flags.value = old
            raise

    @PciPorts.flags.computed
    def _read_flags(self) -> int:
        return self.fixed.flags.value

    @PciPorts.flags.on_write
    def _bar_flags_written(self, new: int, old: int) -> None:
        self._set_rom_lock(Flags.rom_lock.of(new))
        self.fixed.flags.rom_lock = Flags.rom_lock.of(new)

    def _set_rom_lock(self, locked: int) -> None:
        self.platform.set_memory_type(ROM_FIRST_GFN, ROM_PAGES, writable=not locked)
        self.rom_locked = locked

    def forward(self) -> None:
        """Lock or unlock the ROM area again; it is writable until somebody says otherwise."""
        locked = self.fixed.flags.rom_lock
        if locked or self.rom_locked:
            self._set_rom_lock(locked)

    @FixedPorts.unplug.on_write
    def _unplug(self, new: int, old: int) -> None:
        self.unplugged |= new
        if new and self.unplug is not None:
            self.unplug(new)

    @PciPorts.unplug_all.on_write
    def _unplug_all(self, new: int, old: int) -> None:
        if new == 1:
            self._unplug(UNPLUG_DISKS | UNPLUG_NICS, 0)

    @PciPorts.unplug_some.on_write
    def _unplug_some(self, new: int, old: int) -> None:
        if new in (UNPLUG_DISKS, UNPLUG_NICS):
            self._unplug(new, 0)
        else:
            self._log(new, 0)

    @FixedPorts.log.on_write
    def _log(self, new: int, old: int) -> None:
        if self.line is None:
            self.line = bytearray()
        line: bytearray = self.line
        if new != 0x0A:
            line.append(new)
        if line and (new == 0x0A or len(line) == LOG_LINE):
            self.warn("the guest says: %s", ascii(line.decode("latin-1"))[1:-1])
            line.clear()

    def restored(self) -> None:
        """Unplug again what the guest had unplugged."""
        if self.unplugged and self.unplug is not None:
            self.unplug(self.unplugged)
