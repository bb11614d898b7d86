"""What the PIIX3 ISA bridge knows: which ISA interrupt each PCI interrupt link is routed to.

The routing itself is Xen's; each write of a PIRQ route control register is passed on to it.
hvmloader refuses to start unless the function at 00:01.0, if there is one, is this one
(tools/firmware/hvmloader/pci.c: pci_setup).

Sources: Intel 82371SB (PIIX3) datasheet (290550), 2.2, the PIRQx route control registers at 0x60
to 0x63; reset values as read from QEMU (hw/isa/piix3.c: piix3_reset; the command register is zero
after the reset of the bus, where the datasheet has 7).
Not modelled: the bridge's DMA controller, ELCR and timing registers; the latter are plain bytes.
The reset control port 0xcf9 is in `devices.pci_host`.
What a hostile guest can do: route its own links to any of its own 16 interrupts.
"""

from __future__ import annotations

from dm import (
    BankMemory,
    Bit,
    Field,
    Option,
    PciConfig,
    PciDevice,
    PciIdentity,
    PciWindow,
    Register,
)

__all__ = ["Piix3"]

DISCONNECTED = 0


class RouteControl(Register, width=8, reset=0x80):
    """A PIRQ route control register: an ISA interrupt, or ``disable``."""

    irq = Field(3, 0)
    reserved = Field(6, 4)
    disable = Bit(7)


class BridgeConfig(PciConfig):
    """The bridge's configuration: the routes, and bytes with the reset values that QEMU gives."""

    status = PciConfig.status.variant(reset=0x0200)
    io_recovery = Register.at(0x4C, reset=0x4D)
    bus_chip_select = Register.at(0x4E, width=16, reset=0x0003)
    routes = RouteControl.array(0x60, 4)
    top_of_memory = Register.at(0x69, reset=0x02)
    motherboard_irq = Register.at(0x70, reset=0x80)
    motherboard_dma = Register.array(0x76, 2, reset=0x0C)
    chip_select = Register.at(0x78, width=16, reset=0x0002)
    smi_control = Register.at(0xA0, reset=0x08)
    fast_off_timer = Register.at(0xA8, reset=0x0F)
    rest = BankMemory(0x40, 0xC0)


class Piix3(PciDevice):
    """The ISA bridge: 8086:7000 at 00:01.0, which says that its slot has more functions."""

    summary = "PIIX3 ISA bridge"
    identity = PciIdentity(
        vendor=0x8086,
        device=0x7000,
        class_code=0x060100,
        subsystem_vendor=0x1AF4,
        subsystem=0x1100,
        multifunction=True,
    )

    addr = Option(str, "1.0", "slot.function on bus 0, in hexadecimal")

    config = PciWindow(BridgeConfig)

    @BridgeConfig.routes.on_write
    def _route(self, link: int, new: int, old: int) -> None:
        disabled = RouteControl.disable.of(new)
        irq = DISCONNECTED if disabled else RouteControl.irq.of(new)
        self.platform.set_link_route(link, irq)

    def forward(self) -> None:
        """Give the platform all four routes again."""
        for link, route in enumerate(self.config.routes):
            self._route(link, route.value, route.value)
