"""What a guest's configuration is, after xl's syntax and libxl's defaults are behind us.

The field names are xl.cfg(5)'s. A default here is the value that libxl gives to a key that the file
does not have (Xen's libxl_create.c and libxl_types.idl, 4.17 to 4.23); ``None`` means that whoever
starts the guest chooses.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

__all__ = [
    "Action",
    "Disk",
    "GuestConfig",
    "GuestType",
    "PciDevice",
    "RdmPolicy",
    "RdmStrategy",
    "Vif",
    "Vnc",
]

GuestType = Literal["hvm", "pvh", "pv"]
RdmPolicy = Literal["strict", "relaxed"]
RdmStrategy = Literal["ignore", "host"]
Action = Literal[
    "destroy",
    "restart",
    "rename-restart",
    "preserve",
    "coredump-destroy",
    "coredump-restart",
    "soft-reset",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A disk or a CD-ROM drive, as in xl-disk-configuration(5)."""

    vdev: str
    target: str | None = None
    """A path or what ``script`` makes of it; None: an empty drive."""
    format: str = "raw"
    """raw, qcow, qcow2, vhd, qed, or empty."""
    writable: bool = True
    cdrom: bool = False
    backend: str | None = None
    """The domain that serves it; None: domain 0."""
    backendtype: str | None = None
    """phy, tap, qdisk or standalone; None: libxl's choice."""
    script: str | None = None
    discard: bool | None = None
    direct_io_safe: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Vif:
    """A network interface, as in xl-network-configuration(5)."""

    devid: int
    mac: str | None = None
    """Six lower-case pairs with colons; None: a random one under 00:16:3e."""
    bridge: str | None = None
    """None: xenbr0."""
    model: str | None = None
    """None: rtl8139."""
    type: Literal["ioemu", "vif"] | None = None
    """ioemu: emulated and paravirtual, vif: paravirtual only; None: ioemu for HVM guests."""
    script: str | None = None
    ip: str | None = None
    vifname: str | None = None
    gatewaydev: str | None = None
    backend: str | None = None
    mtu: int | None = None
    rate: tuple[int, int] | None = None
    """Bytes per interval, and the interval in microseconds; None: no limit."""
    trusted: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PciDevice:
    """A device of the host that the guest gets, as in xl-pci-configuration(5)."""

    name: str | None = None
    """A name given by ``xl pci-assignable-add``, instead of an address."""
    segment: int = 0
    bus: int = 0
    device: int = 0
    function: int = 0
    all_functions: bool = False
    vslot: int | None = None
    """The guest's slot, 0 to 31; None: any."""
    permissive: bool = False
    msitranslate: bool = False
    seize: bool = False
    power_mgmt: bool = False
    rdm_policy: RdmPolicy = "strict"

    @property
    def sbdf(self) -> str:
        """The host's address, as ``0000:00:1f.2``."""
        return f"{self.segment:04x}:{self.bus:02x}:{self.device:02x}.{self.function:x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vnc:
    """The guest's VNC server."""

    enable: bool = True
    listen: str = "127.0.0.1"
    """An address, perhaps with ``:DISPLAY``."""
    display: int = 0
    unused: bool = True
    """Take the first free display from ``display`` on."""
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestConfig:
    """A guest. Amounts of memory are in MiB; the keys are xl.cfg(5)'s."""

    name: str
    uuid: UUID | None = None
    """None: a new one at every creation."""
    type: GuestType = "pv"
    memory: int = 32
    maxmem: int = 32
    videoram: int = 8
    shadow_memory: int | None = None
    vcpus: int = 1
    maxvcpus: int = 1

    kernel: str | None = None
    ramdisk: str | None = None
    cmdline: str | None = None
    firmware_override: str | None = None
    bios: Literal["seabios", "ovmf", "rombios"] = "seabios"
    bios_path_override: str | None = None
    acpi_firmware: str | None = None
    smbios_firmware: str | None = None

    serial: tuple[str, ...] = ()
    disks: tuple[Disk, ...] = ()
    vifs: tuple[Vif, ...] = ()
    vga: Literal["cirrus", "stdvga", "qxl", "none"] = "cirrus"
    vnc: Vnc = Vnc()
    sdl: bool = False
    nographic: bool = False
    keymap: str | None = None
    boot: str = "cda"
    usb: bool = False
    usbdevices: tuple[str, ...] = ()
    usbversion: int | None = None
    soundhw: str | None = None
    xen_platform_pci: bool = True
    vkb_device: bool = True

    pci: tuple[PciDevice, ...] = ()
    rdm_strategy: RdmStrategy = "ignore"
    rdm_policy: RdmPolicy = "relaxed"
    rdm_mem_boundary: int = 2048
    mmio_hole: int | None = None
    """None: 256 for an HVM guest; a PVH guest has a small one of its own."""

    on_poweroff: Action = "destroy"
    on_reboot: Action = "restart"
    on_crash: Action = "destroy"
    on_watchdog: Action = "destroy"
    on_soft_reset: Action = "soft-reset"

    device_model_override: str | None = None
    device_model_user: str | None = None
    device_model_args: tuple[str, ...] = ()
    device_model_args_hvm: tuple[str, ...] = ()
    dm_restrict: bool = False

    acpi: bool = True
    acpi_s3: bool = True
    acpi_s4: bool = True
    acpi_laptop_slate: bool = False
    apic: bool = True
    hap: bool = True
    hpet: bool = True
    nestedhvm: bool = False
    nx: bool = True
    pae: bool = True
    viridian: bool = False
    vpt_align: bool = True

    localtime: bool = False
    rtc_timeoffset: int = 0
    """Seconds that the guest's real-time clock is ahead of UTC."""
    timer_mode: Literal[
        "delay_for_missed_ticks",
        "no_delay_for_missed_ticks",
        "no_missed_ticks_pending",
        "one_missed_tick_pending",
    ] = "no_delay_for_missed_ticks"
    tsc_mode: Literal["default", "always_emulate", "native", "native_paravirt"] = "default"
    nomigrate: bool = False
    max_event_channels: int = 1023
