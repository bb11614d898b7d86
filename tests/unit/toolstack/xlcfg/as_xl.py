"""What ``xl create -n`` prints of a guest configuration, compared with our reading of it.

xl prints what the file says as JSON and leaves out what has libxl's default. A row here is a path
in that JSON, libxl's default, and our value; a path that no row knows is reported, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tools.toolstack.xlcfg import Disk, GuestConfig, PciDevice, Vif

__all__ = ["differences"]

Row = tuple[str, Any, Callable[[Any], Any]]

_VIDEO_MIB = {"cirrus": 8, "stdvga": 16, "qxl": 128, "none": 0}
_ACTIONS = {"rename-restart": "restart_rename"}
_NO_EFFECT = (
    *("c_info/run_hotplug_scripts", "b_info/claim_mode", "b_info/vcpu_hard_affinity"),
    *("b_info/sched_params", "b_info/device_model_version", "b_info/type.hvm/spice"),
    *(
        "b_info/type.hvm/sdl/opengl",
        "b_info/type.hvm/sdl/display",
        "b_info/type.hvm/sdl/xauthority",
    ),
    *("b_info/type.hvm/viridian_enable", "b_info/type.hvm/viridian_disable", "vfbs", "vkbs"),
)


def _video(guest: GuestConfig) -> int:
    return _VIDEO_MIB[guest.vga] << 10 if guest.type == "hvm" else 0


def _switch(path: str, name: str, default: bool) -> Row:
    return f"{path}{name}", default, lambda guest: getattr(guest, _OUR_NAMES.get(name, name))


_OUR_NAMES = {"nested_hvm": "nestedhvm", "disable_migrate": "nomigrate"}
_HVM = "b_info/type.hvm/"

_GUEST: tuple[Row, ...] = (
    ("c_info/type", None, lambda g: g.type),
    ("c_info/name", None, lambda g: g.name),
    ("b_info/max_memkb", 32 << 10, lambda g: g.maxmem << 10),
    ("b_info/target_memkb", lambda g: g.maxmem << 10, lambda g: g.memory << 10),
    ("b_info/video_memkb", _video, lambda g: g.videoram << 10),
    ("b_info/shadow_memkb", None, lambda g: g.shadow_memory and g.shadow_memory << 10),
    ("b_info/max_vcpus", 1, lambda g: g.maxvcpus),
    ("b_info/avail_vcpus", [0], lambda g: list(range(g.vcpus))),
    ("b_info/event_channels", 1023, lambda g: g.max_event_channels),
    ("b_info/rtc_timeoffset", 0, lambda g: g.rtc_timeoffset % (1 << 32)),
    ("b_info/tsc_mode", "default", lambda g: g.tsc_mode),
    ("b_info/timer_mode", "no_delay_for_missed_ticks", lambda g: g.timer_mode),
    ("b_info/kernel", None, lambda g: g.kernel),
    ("b_info/ramdisk", None, lambda g: g.ramdisk),
    ("b_info/cmdline", None, lambda g: g.cmdline),
    ("b_info/device_model", None, lambda g: g.device_model_override),
    ("b_info/device_model_user", None, lambda g: g.device_model_user),
    ("b_info/extra", [], lambda g: list(g.device_model_args)),
    ("b_info/extra_hvm", [], lambda g: list(g.device_model_args_hvm)),
    _switch("c_info/", "hap", True),
    *(_switch("b_info/", name, True) for name in ("acpi", "apic")),
    *(_switch("b_info/", name, False) for name in ("localtime", "nested_hvm", "dm_restrict")),
    _switch("b_info/", "disable_migrate", False),
    *(_switch(_HVM, name, True) for name in ("acpi_s3", "acpi_s4", "hpet", "nx", "pae")),
    *(_switch(_HVM, name, True) for name in ("vpt_align", "vkb_device", "xen_platform_pci")),
    *(_switch(_HVM, name, False) for name in ("acpi_laptop_slate", "usb", "nographic")),
    (f"{_HVM}firmware", None, lambda g: g.firmware_override),
    (f"{_HVM}bios", "seabios", lambda g: g.bios),
    (f"{_HVM}system_firmware", None, lambda g: g.bios_path_override),
    (f"{_HVM}acpi_firmware", None, lambda g: g.acpi_firmware),
    (f"{_HVM}smbios_firmware", None, lambda g: g.smbios_firmware),
    (f"{_HVM}mmio_hole_memkb", None, lambda g: g.mmio_hole and g.mmio_hole << 10),
    (f"{_HVM}rdm_mem_boundary_memkb", 2048 << 10, lambda g: g.rdm_mem_boundary << 10),
    (f"{_HVM}vga/kind", "cirrus", lambda g: "std" if g.vga == "stdvga" else g.vga),
    (f"{_HVM}vnc/enable", True, lambda g: g.vnc.enable),
    (f"{_HVM}vnc/listen", "127.0.0.1", lambda g: g.vnc.listen),
    (f"{_HVM}vnc/findunused", True, lambda g: g.vnc.unused),
    (f"{_HVM}vnc/display", 0, lambda g: g.vnc.display),
    (f"{_HVM}vnc/passwd", None, lambda g: g.vnc.password),
    (f"{_HVM}sdl/enable", False, lambda g: g.sdl),
    (f"{_HVM}keymap", None, lambda g: g.keymap),
    (f"{_HVM}boot", "cda", lambda g: g.boot),
    (f"{_HVM}usbversion", None, lambda g: g.usbversion),
    (f"{_HVM}soundhw", None, lambda g: g.soundhw),
    *(
        (
            key,
            default,
            lambda g, key=key: _ACTIONS.get(getattr(g, key), getattr(g, key).replace("-", "_")),
        )
        for key, default in (
            ("on_poweroff", "destroy"),
            ("on_reboot", "destroy"),
            ("on_crash", "destroy"),
            ("on_watchdog", "destroy"),
            ("on_soft_reset", "destroy"),
        )
    ),
)
"""``on_*``: the JSON leaves out libxl's own default, destroy; xl's are in the JSON."""

_DISK: tuple[Row, ...] = (
    ("pdev_path", None, lambda d: d.target),
    ("vdev", None, lambda d: d.vdev),
    ("format", None, lambda d: d.format),
    ("backend", None, lambda d: d.backendtype),
    ("backend_domname", None, lambda d: d.backend),
    ("script", None, lambda d: d.script),
    ("readwrite", 0, lambda d: int(d.writable)),
    ("is_cdrom", 0, lambda d: int(d.cdrom)),
    ("removable", 0, lambda d: int(d.cdrom)),
    ("direct_io_safe", False, lambda d: d.direct_io_safe),
    ("discard_enable", None, lambda d: d.discard),
)
_VIF: tuple[Row, ...] = (
    ("devid", None, lambda v: v.devid),
    ("mac", None, lambda v: v.mac),
    ("bridge", None, lambda v: v.bridge),
    ("model", None, lambda v: v.model),
    ("nictype", None, lambda v: "vif_ioemu" if v.type == "ioemu" else v.type),
    ("script", None, lambda v: v.script),
    ("ip", None, lambda v: v.ip),
    ("ifname", None, lambda v: v.vifname),
    ("gatewaydev", None, lambda v: v.gatewaydev),
    ("backend_domname", None, lambda v: v.backend),
    ("mtu", None, lambda v: v.mtu),
    ("rate_bytes_per_interval", 0, lambda v: v.rate[0] if v.rate else 0),
    ("rate_interval_usecs", 0, lambda v: v.rate[1] if v.rate else 0),
    ("trusted", None, lambda v: v.trusted),
)
_PCI: tuple[Row, ...] = (
    ("name", None, lambda p: p.name),
    ("domain", 0, lambda p: p.segment),
    ("bus", 0, lambda p: p.bus),
    ("dev", 0, lambda p: p.device),
    ("func", 0, lambda p: p.function),
    ("vfunc_mask", None, lambda p: 0xFFFFFFFF if p.all_functions else 1),
    ("vdevfn", None, lambda p: p.vslot and p.vslot << 3),
    ("permissive", False, lambda p: p.permissive),
    ("msitranslate", False, lambda p: p.msitranslate),
    ("seize", False, lambda p: p.seize),
    ("power_mgmt", False, lambda p: p.power_mgmt),
    ("rdm_policy", "strict", lambda p: p.rdm_policy),
)
_PARTS: tuple[tuple[str, tuple[Row, ...], Callable[[GuestConfig], tuple[Any, ...]]], ...] = (
    ("disks", _DISK, lambda g: g.disks),
    ("nics", _VIF, lambda g: g.vifs),
    ("pcidevs", _PCI, lambda g: g.pci),
)


def differences(printed: dict[str, Any], guest: GuestConfig) -> list[str]:
    """Return one line for each thing that xl and we understood differently."""
    leaves = dict(_leaves(printed))
    found = list(_rows(leaves, _GUEST, guest))
    for key, rows, ours in _PARTS:
        theirs = leaves.pop(key, [])
        mine = ours(guest)
        if len(theirs) != len(mine):
            found.append(f"{key}: xl has {len(theirs)}, we have {len(mine)}")
        for one, other in zip(theirs, mine, strict=False):
            found += [f"{key}: {line}" for line in _element(one, rows, other)]
    found += (
        _uuid(leaves, guest)
        + _lists(leaves, guest)
        + _viridian(leaves, guest)
        + _rdm(leaves, guest)
    )
    unknown = (path for path in leaves if not path.startswith(_NO_EFFECT))
    return found + [f"{path}: no row for xl's {leaves[path]!r}" for path in unknown]


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Everything but dicts, by path; lists are kept whole."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{path}/{key}" if path else key)
    else:
        yield path, _plain(value)


def _plain(value: Any) -> Any:
    return {"True": True, "False": False}.get(value, value) if isinstance(value, str) else value


def _rows(leaves: dict[str, Any], rows: tuple[Row, ...], ours: Any) -> Iterator[str]:
    for path, default, value in rows:
        theirs = leaves.pop(path, default(ours) if callable(default) else default)
        if theirs != value(ours):
            yield f"{path}: xl has {theirs!r}, we have {value(ours)!r}"


def _element(
    printed: dict[str, Any], rows: tuple[Row, ...], ours: Disk | Vif | PciDevice
) -> list[str]:
    leaves = dict(_leaves(printed))
    if isinstance(ours, Disk) and ours.target is None and leaves.get("pdev_path") == "":
        del leaves["pdev_path"]
    return [*_rows(leaves, rows, ours), *(f"no row for {path}" for path in leaves)]


def _uuid(leaves: dict[str, Any], guest: GuestConfig) -> list[str]:
    theirs = leaves.pop("c_info/uuid", None)
    if guest.uuid is None or str(guest.uuid) == theirs:
        return []
    return [f"uuid: xl has {theirs}, we have {guest.uuid}"]


def _lists(leaves: dict[str, Any], guest: GuestConfig) -> list[str]:
    """``serial`` and ``usbdevice`` are a string or a list in xl's JSON."""
    found = []
    for key, ours in (("serial", guest.serial), ("usbdevice", guest.usbdevices)):
        one = leaves.pop(f"{_HVM}{key}", None)
        theirs = tuple(leaves.pop(f"{_HVM}{key}_list", () if one is None else (one,)))
        if theirs != ours:
            found.append(f"{key}: xl has {theirs}, we have {ours}")
    return found


def _viridian(leaves: dict[str, Any], guest: GuestConfig) -> list[str]:
    enabled = leaves.pop(f"{_HVM}viridian", bool(leaves.get(f"{_HVM}viridian_enable")))
    return [] if enabled == guest.viridian else [f"viridian: xl has {enabled}"]


def _rdm(leaves: dict[str, Any], guest: GuestConfig) -> list[str]:
    """xl loses ``rdm=`` with a policy, and prints an uninitialised one without; see xlcfg.pci."""
    strategy = leaves.pop(f"{_HVM}rdm/strategy", None)
    leaves.pop(f"{_HVM}rdm/policy", None)
    return [] if strategy in (None, guest.rdm_strategy) else [f"rdm: xl has strategy {strategy}"]
