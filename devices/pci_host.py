"""What the i440FX host bridge knows: the configuration address latch and its own configuration.

Xen decodes configuration cycles itself and sends each to the function it addresses, by a copy of
the latch at 0xcf8 that it watches but never reads back (xen/arch/x86/hvm/ioreq.c: hvm_access_cf8).
Without a latch that reads back Linux finds no PCI at all (arch/x86/pci/direct.c: pci_check_type1).
Accesses of ports 0xcfc to 0xcff arrive undecoded while bit 31 of Xen's copy is clear. Xen's copy
is not among what it saves of a domain: a guest that is saved between its write of 0xcf8 and its
access of 0xcfc comes to the bridge with the latter, which the latch here then decodes.

The reset control register of the PIIX3 stands here because its byte, 0xcf9, lies inside the latch.

Sources: Intel 440FX PCIset datasheet (290549), 3.1.1 CONFADD and 3.2 (configuration registers);
Intel 82371SB datasheet, reset control register. Behaviour compared with QEMU's
hw/pci/pci_host.c:pci_host_config_write, hw/pci-host/i440fx.c and hw/isa/piix3.c:rcr_write.
Not modelled: undecoded accesses of functions that another emulator serves; what PAM (0x59 to 0x5f)
and SMRAM (0x72) do to memory, which is Xen's; they are plain registers.
What a hostile guest can do: reboot itself; change bytes that only it reads.
"""

from __future__ import annotations

from dm import (
    WO,
    Bank,
    BankMemory,
    Bit,
    Field,
    Option,
    PciConfig,
    PciDevice,
    PciIdentity,
    PciWindow,
    PortWindow,
    Register,
    Transient,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PciHost"]


class ConfigAddress(Register, width=32):
    """Port 0xcf8: the function and register that a configuration cycle addresses."""

    register = Field(7, 0)
    function = Field(10, 8)
    device = Field(15, 11)
    bus = Field(23, 16)
    reserved = Field(30, 24)
    enable = Bit(31)


class ResetControl(Register, width=8):
    """Port 0xcf9: writing ``reset_cpu`` as one resets the machine, hard or soft alike."""

    hard_reset = Bit(1)
    reset_cpu = Bit(2, access=WO)


class ConfigPorts(Bank, size=4):
    """The ports at 0xcf8.

    Only a 32-bit access reaches the latch; narrower ones read as ones, so that Linux's probe for
    configuration mechanism 2 (bytes at 0xcf8 and 0xcfa that read as zero) fails as it must.
    """

    address = ConfigAddress.at(0, exact=True)
    reset_control = ResetControl.at(1, exact=True)


class DataPorts(Bank, size=4, width=8):
    """The ports at 0xcfc: a byte each of the register that the latch addresses."""

    data = Register.array(0, 4, access=WO)


class HostConfig(PciConfig):
    """The bridge's configuration: PAM, SMRAM, and bytes that nothing here acts upon."""

    pam = Register.array(0x59, 7)
    smram = Register.at(0x72, reset=0x02)
    rest = BankMemory(0x40, 0xC0)


class PciHost(PciDevice):
    """The host bridge: 8086:1237 at 00:00.0 and the ports 0xcf8 and 0xcf9."""

    summary = "i440FX host bridge"
    identity = PciIdentity(
        vendor=0x8086,
        device=0x1237,
        class_code=0x060000,
        revision=2,
        subsystem_vendor=0x1AF4,
        subsystem=0x1100,
    )

    addr = Option(str, "0", "slot.function on bus 0, in hexadecimal")

    config = PciWindow(HostConfig)
    ports = PortWindow(ConfigPorts, at=0xCF8)
    data_ports = PortWindow(DataPorts, at=0xCFC)
    read_config = Transient()
    write_config = Transient()

    def lend_config_space(
        self, read: Callable[[int, int], int], write: Callable[[int, int, int], None]
    ) -> None:
        """Take the way to all functions' configuration: ``read(sbdf, register)`` and the like."""
        self.read_config, self.write_config = read, write

    @DataPorts.data.on_read
    def _read_data(self, byte: int) -> int:
        latch = self.ports.address
        if not latch.enable or self.read_config is None:
            return 0xFF
        value: int = self.read_config(latch.value >> 8 & 0xFFFF, latch.register & 0xFC | byte)
        return value

    @DataPorts.data.on_write
    def _write_data(self, byte: int, new: int, old: int) -> None:
        latch = self.ports.address
        if latch.enable and self.write_config is not None:
            register = latch.register & 0xFC | byte
            self.write_config(latch.value >> 8 & 0xFFFF, register, new)

    @ConfigPorts.reset_control.on_write
    def _reset(self, new: int, old: int) -> None:
        if ResetControl.reset_cpu.of(new):
            self.platform.shutdown("reboot")
