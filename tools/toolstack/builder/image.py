"""What is to be built: files, memory layout and the few switches that show in guest memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tools.toolstack.errors import ToolstackError
from tools.toolstack.memory_layout import MemoryLayout
from tools.toolstack.xlcfg.config import GuestConfig

from .firmware import find_hvmloader, find_seabios

__all__ = ["HVMLOADER", "TIMER_MODES", "GuestImage", "image_of"]

HVMLOADER = "hvmloader"
"""The name by which a guest's firmware file is known to be one that wants a BIOS."""
TIMER_MODES = (
    "delay_for_missed_ticks",
    "no_delay_for_missed_ticks",
    "no_missed_ticks_pending",
    "one_missed_tick_pending",
)
"""By the value of HVM_PARAM_TIMER_MODE."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestImage:
    """A guest to build. ``kernel``: an ELF file, hvmloader, another firmware or a PVH kernel.

    ``firmware``: what hvmloader starts, its module of that name; ``acpi`` and ``smbios``: tables
    that hvmloader adds to its own. ``cmdline`` and ``modules`` (files, each with its own command
    line or None) are a PVH kernel's. ``vcpus`` may be, ``online`` are from the start.
    """

    kind: Literal["hvm", "pvh"]
    kernel: Path
    layout: MemoryLayout
    vcpus: int = 1
    online: int = 1
    firmware: Path | None = None
    acpi: Path | None = None
    smbios: Path | None = None
    cmdline: str | None = None
    modules: tuple[tuple[Path, str | None], ...] = ()
    bios: str = "seabios"
    apic: bool = True
    hpet: bool = True
    vpt_align: bool = True
    timer_mode: int = TIMER_MODES.index("no_delay_for_missed_ticks")
    platform: tuple[tuple[str, str], ...] = ()
    """Nodes below platform/ in the guest's part of xenstore, that hvmloader reads."""


def image_of(config: GuestConfig, layout: MemoryLayout) -> GuestImage:
    """What ``config`` asks for. ToolstackError: a file that it names, or needs, is not there.

    A ``firmware_override`` that is not an hvmloader by its name gets the BIOS as well, as from
    libxl; unlike there, a BIOS that is not installed is only missed by hvmloader itself.
    """
    if config.type == "pvh":
        if config.kernel is None:
            raise ToolstackError(f"{config.name}: kernel= is missing")
        ramdisk = [] if config.ramdisk is None else [(_file(config.ramdisk), None)]
        return GuestImage(
            kind="pvh",
            kernel=_file(config.kernel),
            layout=layout,
            vcpus=config.maxvcpus,
            online=config.vcpus,
            cmdline=config.cmdline,
            modules=tuple(ramdisk),
            timer_mode=TIMER_MODES.index(config.timer_mode),
        )
    given = config.firmware_override
    kernel = find_hvmloader() if given is None else _file(given)
    return GuestImage(
        kind="hvm",
        kernel=kernel,
        layout=layout,
        vcpus=config.maxvcpus,
        online=config.vcpus,
        firmware=_bios(config, needed=kernel.name.startswith(HVMLOADER)),
        acpi=None if config.acpi_firmware is None else _file(config.acpi_firmware),
        smbios=None if config.smbios_firmware is None else _file(config.smbios_firmware),
        bios=config.bios,
        apic=config.apic,
        hpet=config.hpet,
        vpt_align=config.vpt_align,
        timer_mode=TIMER_MODES.index(config.timer_mode),
        platform=_platform(config),
    )


def _bios(config: GuestConfig, *, needed: bool) -> Path | None:
    if config.bios_path_override is not None:
        return _file(config.bios_path_override)
    try:
        if config.bios != "seabios":
            raise ToolstackError(f"bios={config.bios!r} needs bios_path_override=")
        return find_seabios()
    except ToolstackError:
        if needed:
            raise
        return None


def _platform(config: GuestConfig) -> tuple[tuple[str, str], ...]:
    """What libxl_create.c writes for a guest with a qemu-xen device model."""
    switches = ("acpi", "acpi_s3", "acpi_s4", "acpi_laptop_slate")
    nodes = [(name, "1" if getattr(config, name) else "0") for name in switches]
    if config.mmio_hole is not None:
        nodes.append(("mmio_hole_size", str(config.mmio_hole << 20)))
    return (*nodes, ("device-model", "qemu_xen"))


def _file(name: str) -> Path:
    path = Path(name)
    if not path.is_file():
        raise ToolstackError(f"{path}: there is no such file")
    return path
