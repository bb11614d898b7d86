"""What a machine type may want to know before it chooses its devices."""

from __future__ import annotations

__all__ = ["Configuration"]


class Configuration:
    """The machine that the toolstack asked for.

    ``memory_mib``: RAM without video memory, of which what does not fit below ``hole`` (a GPA)
    lies above 4 GiB. ``cpus``: vCPUs that are online at first, of ``maximum_cpus``. ``boot``: the
    letters of ``-boot order=``. ``serials``: whether each serial port is wanted.
    ``platform_device``: whether the Xen platform device is there. ``boot_menu``: whether the
    firmware offers its boot menu.
    """

    __slots__ = (
        "boot",
        "boot_menu",
        "cpus",
        "hole",
        "maximum_cpus",
        "memory_mib",
        "platform_device",
        "serials",
    )

    def __init__(
        self,
        *,
        memory_mib: int = 128,
        hole: int = 0xF0000000,
        cpus: int = 1,
        maximum_cpus: int = 1,
        boot: str = "cda",
        boot_menu: bool = True,
        serials: tuple[bool, ...] = (),
        platform_device: bool = True,
    ) -> None:
        self.memory_mib = memory_mib
        self.hole = hole
        self.cpus = cpus
        self.maximum_cpus = maximum_cpus
        self.boot = boot
        self.boot_menu = boot_menu
        self.serials = serials
        self.platform_device = platform_device

    @property
    def low_memory_mib(self) -> int:
        """RAM below the MMIO hole, in MiB."""
        return min(self.memory_mib, self.hole >> 20)

    @property
    def high_memory_mib(self) -> int:
        """RAM above 4 GiB, in MiB."""
        return self.memory_mib - self.low_memory_mib
