"""The keys of xl.cfg(5): how the value of each is read, and which have no effect here.

The keys are those that Xen's tools/xl/xl_parse.c asks for (4.17 to 4.23). A value of the wrong
shape is an error here; xl warns and goes on as if the key were not there, and drops what follows a
list's item of the wrong shape without a word.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from uuid import UUID

from tools.toolstack.xlcfg.disk import parse_disk
from tools.toolstack.xlcfg.parser import Atom, Items, Setting, Value
from tools.toolstack.xlcfg.pci import PCI_SWITCHES, parse_rdm
from tools.toolstack.xlcfg.spec import SpecError, integer, one_of, quoted
from tools.toolstack.xlcfg.vif import parse_vif

__all__ = ["KEYS", "NO_EFFECT", "Kind", "read"]

Kind = Callable[[Setting], Any]
"""Gives a setting's value; raises ToolstackError with its place."""

_ACTIONS = (
    "destroy",
    "restart",
    "rename-restart",
    "preserve",
    "coredump-destroy",
    "coredump-restart",
    "soft-reset",
)
_TIMER_MODES = (
    "delay_for_missed_ticks",
    "no_delay_for_missed_ticks",
    "no_missed_ticks_pending",
    "one_missed_tick_pending",
)
_TSC_MODES = ("default", "always_emulate", "native", "native_paravirt")
_MOST_VCPUS = 128
_MOST_MIB = 1 << 24
_LONG = 1 << 63


def _spec(key: str, atom: Atom, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(atom.text)
    except SpecError as error:
        raise atom.place.error(f"{key}: {error}") from None


def _atom(setting: Setting) -> Atom:
    value = setting.value
    if isinstance(value, Items):
        raise value.place.error(f"{setting.name} is a list and should be a single value")
    return value


def _atoms(setting: Setting) -> list[Atom]:
    if isinstance(setting.value, Atom):
        raise setting.value.place.error(f"{setting.name} is a single value and should be a list")
    return [_item(setting.name, item) for item in setting.value.items]


def _item(key: str, item: Value) -> Atom:
    if isinstance(item, Items):
        raise item.place.error(f"an item of {key} is a list and should be a single value")
    return item


def _text(setting: Setting) -> str:
    return _atom(setting).text


def _atom_as(parse: Callable[[str], Any]) -> Kind:
    """Return the kind of a single value that ``parse`` reads."""
    return lambda setting: _spec(setting.name, _atom(setting), parse)


def _number(low: int = -_LONG, high: int = _LONG - 1) -> Kind:
    def kind(setting: Setting) -> int:
        atom = _atom(setting)
        if setting.appended:
            raise atom.place.error(f"{setting.name}: += does not work with numbers")
        value: int = _spec(setting.name, atom, integer)
        if not low <= value <= high:
            raise atom.place.error(f"{setting.name}: {value} is not from {low} to {high}")
        return value

    return kind


def _switch(setting: Setting) -> bool:
    return bool(_number()(setting))


def _choice(*allowed: str, fold: bool = False) -> Kind:
    def parse(text: str) -> str:
        return one_of(text.lower() if fold else text, "value", allowed)

    return _atom_as(parse)


def _named_number(*names: str) -> Kind:
    """Return the kind of a name, or of its number in ``names``, which xl deprecates."""

    def parse(text: str) -> str:
        if text.isascii() and text.isdecimal():
            number = int(text[:4])
            if number >= len(names):
                raise SpecError(f"{quoted(text)} is not from 0 to {len(names) - 1}")
            return names[number]
        return one_of(text.lower(), "value", names)

    return _atom_as(parse)


def _list(setting: Setting) -> tuple[str, ...]:
    return tuple(atom.text for atom in _atoms(setting))


def _one_or_list(setting: Setting) -> tuple[str, ...]:
    return (setting.value.text,) if isinstance(setting.value, Atom) else _list(setting)


def _disks(setting: Setting) -> tuple[Any, ...]:
    return tuple(_spec("disk", atom, parse_disk) for atom in _atoms(setting))


def _vifs(setting: Setting) -> tuple[Any, ...]:
    return tuple(
        _spec("vif", atom, lambda text, index=index: parse_vif(text, index))  # type: ignore[misc]
        for index, atom in enumerate(_atoms(setting))
    )


def _type(text: str) -> str:
    """xl compares as many characters as there are: ``h`` is hvm, ``p`` is pv."""
    for name in ("hvm", "pv", "pvh"):
        if name.startswith(text):
            return name
    raise SpecError(f"{quoted(text)} is none of hvm, pv, pvh")


def _builder(text: str) -> str:
    names = {"hvm": "hvm", "generic": "pv"}
    return names[one_of(text, "value", tuple(names))]


def _uuid(text: str) -> UUID:
    if not re.fullmatch(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", text):
        raise SpecError(f"{quoted(text)} is not like 01234567-89ab-cdef-0123-456789abcdef")
    return UUID(text)


def _boot(text: str) -> str:
    if not re.fullmatch(r"[acdn]+", text):
        raise SpecError(f"{quoted(text)} is not made of a (floppy), c (disk), d (CD-ROM), n (net)")
    return text


def _viridian(setting: Setting) -> bool:
    if isinstance(setting.value, Items):
        return any(not atom.text.startswith("!") for atom in _atoms(setting))
    return _switch(setting)


_MIB = _number(1, _MOST_MIB)

KEYS: dict[str, Kind] = {
    "name": _text,
    "uuid": _atom_as(_uuid),
    "type": _atom_as(_type),
    "builder": _atom_as(_builder),
    "memory": _MIB,
    "maxmem": _MIB,
    "videoram": _number(0, _MOST_MIB),
    "shadow_memory": _number(0, _MOST_MIB),
    "vcpus": _number(1, _MOST_VCPUS),
    "maxvcpus": _number(1, _MOST_VCPUS),
    **dict.fromkeys(
        ("kernel", "ramdisk", "cmdline", "root", "extra", "firmware", "firmware_override"), _text
    ),
    "bios": _choice("seabios", "ovmf", "rombios", fold=True),
    **dict.fromkeys(("bios_path_override", "acpi_firmware", "smbios_firmware"), _text),
    "serial": _one_or_list,
    "disk": _disks,
    "vif": _vifs,
    "vga": _choice("stdvga", "cirrus", "none", "qxl"),
    "stdvga": _switch,
    **dict.fromkeys(("vnc", "vncunused", "sdl", "nographic"), _switch),
    **dict.fromkeys(("vnclisten", "vncpasswd", "keymap", "soundhw"), _text),
    "vncdisplay": _number(0, 99_999),
    "boot": _atom_as(_boot),
    "usb": _switch,
    "usbdevice": _one_or_list,
    "usbversion": _number(1, 3),
    "pci": _atoms,
    **{f"pci_{name}": _switch for name in PCI_SWITCHES},
    "rdm": _atom_as(parse_rdm),
    "rdm_mem_boundary": _number(0, _MOST_MIB),
    "mmio_hole": _number(256, 3840),
    **dict.fromkeys(
        ("on_poweroff", "on_reboot", "on_crash", "on_watchdog", "on_soft_reset"), _choice(*_ACTIONS)
    ),
    "device_model_override": _text,
    "device_model_version": _choice("qemu-xen"),
    "device_model_user": _text,
    "device_model_args": _list,
    "device_model_args_hvm": _list,
    **dict.fromkeys(
        (
            *("acpi", "acpi_s3", "acpi_s4", "acpi_laptop_slate", "apic", "hap", "hpet"),
            *("nestedhvm", "nx", "pae", "vpt_align", "xen_platform_pci", "vkb_device"),
            *("dm_restrict", "localtime", "nomigrate"),
        ),
        _switch,
    ),
    "viridian": _viridian,
    "rtc_timeoffset": _number(-(1 << 31), (1 << 32) - 1),
    "timer_mode": _named_number(*_TIMER_MODES),
    "tsc_mode": _named_number(*_TSC_MODES),
    "max_event_channels": _number(1, (1 << 31) - 1),
}
"""The keys that have an effect, and the kind of each."""

NO_EFFECT = frozenset(
    """altp2m altp2m_count altp2mhvm arm_sci bootloader bootloader_args bootloader_restrict
    bootloader_user cap channel cpu_weight cpuid cpus cpus_soft device_model device_model_args_pv
    device_model_stubdomain_override device_model_stubdomain_seclabel device_tree display
    driver_domain dtdev e820_host extratime gfx_passthru gic_version hdtype hvm_pirq init_seclabel
    iomem ioports irqs latency llc_colors max_grant_frames max_grant_version max_maptrack_frames
    mca_caps ms_vm_genid msr_relaxed nr_spis oos opengl p9 passthrough period pool pvcalls pvshim
    pvshim_cmdline pvshim_extra pvshim_path seclabel slice smbios spice spice_clipboard_sharing
    spice_image_compression spice_streaming_video spiceagent_mouse spicedisable_ticketing spicehost
    spicepasswd spiceport spicetls_port spiceusbredirection spicevdagent stubdomain_cmdline
    stubdomain_kernel stubdomain_memory stubdomain_ramdisk sve tee trap_unmapped_accesses usbctrl
    usbdev vdispl vendor_device vfb vif2 virtio vkb vmtrace_buf_kb vncviewer vnuma vpmu vsnd vtpm
    vuart xauthority xen_platform_pci_bar_uc xend_suspend_evtchn_compat xenstore_feature_mask
    xenstore_quota""".split()  # noqa: SIM905 - words are easier to read and to sort
)
"""xl's other keys: xl takes them, nothing here follows from them."""


def read(settings: dict[str, Setting]) -> dict[str, Any]:
    """Return the value of every setting that has an effect, by key; raise ToolstackError."""
    return {key: kind(settings[key]) for key, kind in KEYS.items() if key in settings}
