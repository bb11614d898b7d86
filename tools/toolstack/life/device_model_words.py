"""The argument vector of a device model, as libxl writes it.

Facts: contract §1.6 (libxl__build_device_model_args_new). What differs from libxl: the first words
say that the hypervisor is the stand-alone one, sockets are in the domain's folder, and what the
stand-alone side has no back end for is not asked for: VNC, SDL, network interfaces and disks.
"""

from __future__ import annotations

from pathlib import Path

from tools.toolstack.xlcfg import GuestConfig

__all__ = ["device_model_words"]

FOUR_GIB = 1 << 32
LARGEST_LOW = 0xF0000000
VGA = {"stdvga": "VGA", "cirrus": "cirrus-vga"}


def device_model_words(
    config: GuestConfig,
    domid: int,
    *,
    hypervisor: Path,
    monitor: Path,
    statistics: Path,
    incoming: int | None = None,
) -> list[str]:
    """The words after the program's name. ``incoming``: the descriptor of a saved state."""
    where = f"local,path={_escaped(hypervisor)},domid={domid}"
    words = ["-accel", where, "-xen-domid", str(domid), "-no-shutdown"]
    for name, path in (("libxl-cmd", monitor), ("libxenstat-cmd", statistics)):
        socket = f"socket,id={name},path={_escaped(path)},server=on,wait=off"
        words += ["-chardev", socket, "-mon", f"chardev={name},mode=control"]
    words += ["-nodefaults", "-no-user-config", "-name", config.name]
    words += ["-vnc", "none", "-display", "none"]
    for name, value in (
        ("-kernel", config.kernel),
        ("-initrd", config.ramdisk),
        ("-append", config.cmdline),
    ):
        if value is not None and config.type == "hvm":
            words += [name, value]
    for serial in config.serial:
        words += ["-serial", serial]
    if config.vga in VGA:
        words += ["-device", f"{VGA[config.vga]},vgamem_mb={config.videoram}"]
    words += ["-boot", f"order={config.boot}"]
    if config.maxvcpus > 1:
        words += ["-smp", f"{config.vcpus},maxcpus={config.maxvcpus}"]
    words += ["-net", "none"]
    if incoming is not None:
        words += ["-incoming", f"fd:{incoming}"]
    words += config.device_model_args
    words += ["-machine", _machine(config), *config.device_model_args_hvm]
    return [*words, "-m", str(config.maxmem - config.videoram)]


def _machine(config: GuestConfig) -> str:
    machine = "xenfv" if config.xen_platform_pci else "pc"
    machine += ",suppress-vmdesc=on"
    if config.mmio_hole is not None:
        low = FOUR_GIB - (config.mmio_hole << 20)
        if low <= LARGEST_LOW:
            machine += f",max-ram-below-4g={low}"
    return machine


def _escaped(path: Path) -> str:
    """A path in an option, where a comma is written twice."""
    return str(path).replace(",", ",,")
