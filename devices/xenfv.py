"""Which devices make up the machine that Xen's firmware expects: an i440FX board without disks.

Xen emulates the interrupt controllers, timers and the clock itself; hvmloader insists on 8086:7000
at 00:01.0 and on 8086:7113 for the power management function (tools/firmware/hvmloader/pci.c).
"""

from __future__ import annotations

from .cmos import Cmos
from .fw_cfg import FwCfg
from .i8042 import I8042
from .pci_host import PciHost
from .piix3 import Piix3
from .piix4_pm import Piix4Pm
from .port92 import Port92
from .uart16550 import Uart16550
from .xen_platform import XenPlatform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dm import Device
    from dm.machine.configuration import Configuration

__all__ = ["devices"]

SERIAL_PORTS = ((0x3F8, 4), (0x2F8, 3))
"""Base and ISA interrupt of COM1 and COM2."""


def devices(configuration: Configuration) -> list[Device]:
    """The machine's own devices, in the order in which their windows win."""
    board: list[Device] = [
        PciHost("pci-host"),
        Piix3("piix3"),
        Piix4Pm("piix4-pm", cpus=configuration.cpus),
        Cmos(
            "cmos",
            memory_mib=configuration.low_memory_mib,
            high_memory_mib=configuration.high_memory_mib,
            cpus=configuration.cpus,
            boot=configuration.boot,
        ),
        Port92("port92"),
        I8042("i8042"),
    ]
    ports = zip(SERIAL_PORTS, configuration.serials, strict=False)
    for number, ((base, irq), wanted) in enumerate(ports):
        if wanted:
            board.append(Uart16550(f"serial{number}", base=base, irq=irq))
    has_console = bool(configuration.serials and configuration.serials[0])
    board.append(
        FwCfg(
            "fw-cfg",
            cpus=configuration.cpus,
            memory_mib=configuration.memory_mib,
            sercon=SERIAL_PORTS[0][0] if has_console else 0,
            boot_menu=configuration.boot_menu,
        )
    )
    if configuration.platform_device:
        board.append(XenPlatform("xen-platform"))
    return board
