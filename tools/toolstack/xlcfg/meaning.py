"""What the keys of xl.cfg(5) mean together: defaults, keys that stand for others, contradictions.

The rules are those of Xen's tools/xl/xl_parse.c:parse_config_data and of
tools/libs/light/libxl_create.c (4.17 to 4.23). Errors that libxl would raise only when the guest
is created (a ramdisk without a kernel, too little video memory, more memory than maxmem) are
raised here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from tools.toolstack.xlcfg.config import GuestConfig, Vnc
from tools.toolstack.xlcfg.lexer import Place
from tools.toolstack.xlcfg.parser import Setting
from tools.toolstack.xlcfg.pci import PCI_SWITCHES, parse_pci
from tools.toolstack.xlcfg.schema import KEYS, NO_EFFECT, read
from tools.toolstack.xlcfg.spec import SpecError

__all__ = ["understand"]

_OTHER_NAMES = {"disk": "disks", "vif": "vifs", "usbdevice": "usbdevices"}
_FIELDS = frozenset(field.name for field in fields(GuestConfig))
_VIDEORAM = {"cirrus": 8, "stdvga": 16, "qxl": 128, "none": 0}
_LEAST_MIB = 2


def understand(
    settings: dict[str, Setting], end: Place, warn: Callable[[str], None]
) -> GuestConfig:
    """Return the guest that ``settings`` describe; ``end`` is the place of what is missing.

    ``warn`` gets one line, with its place, for each key that is unknown or has no effect. Raises
    ToolstackError for the first thing that is wrong.
    """
    return _Reading(settings, end, warn).guest()


class _Reading:
    def __init__(
        self, settings: dict[str, Setting], end: Place, warn: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._end = end
        self._warn = warn
        self._read: dict[str, Any] = {}

    def guest(self) -> GuestConfig:
        self._name_the_rest()
        self._read = read(self._settings)
        if "name" not in self._read:
            raise self._end.error("name= is missing")
        values = {
            _OTHER_NAMES.get(key, key): value
            for key, value in self._read.items()
            if _OTHER_NAMES.get(key, key) in _FIELDS and key not in ("pci", "vnc")
        }
        values["type"] = self._type()
        values.update(self._boot(values["type"]))
        values.update(self._vcpus())
        values.update(self._display())
        values.update(self._memory(values))
        values.update(self._devices())
        return GuestConfig(**values)

    def _name_the_rest(self) -> None:
        for setting in self._settings.values():
            if setting.name in NO_EFFECT:
                self._warn(f"{setting.place}: warning: {setting.name}= has no effect here")
            elif setting.name not in KEYS:
                self._warn(f"{setting.place}: warning: there is no key {setting.name[:60]}")

    def _place(self, *keys: str) -> Place:
        """The value of the first of ``keys`` that is there, else the end of the file."""
        for key in keys:
            if key in self._settings:
                return self._settings[key].value.place
        return self._end

    def _warn_at(self, key: str, message: str) -> None:
        self._warn(f"{self._settings[key].place}: warning: {message}")

    def _type(self) -> str:
        given: str | None = self._read.get("type")
        builder: str | None = self._read.get("builder")
        if given is not None and builder is not None and given != builder:
            raise self._place("builder").error(f"builder= says {builder}, type= says {given}")
        return given or builder or "pv"

    def _boot(self, kind: str) -> dict[str, Any]:
        """What the guest starts from: kernel, command line, firmware."""
        values: dict[str, Any] = {"cmdline": self._cmdline()}
        kernel: str | None = self._read.get("kernel")
        if kind == "hvm":
            if kernel is not None and kernel.rpartition("/")[2] == "hvmloader":
                self._warn_at("kernel", "kernel= is hvmloader and ignored; use firmware_override=")
                values["kernel"] = kernel = None
            for key in ("ramdisk", "cmdline", "extra", "root"):
                if kernel is None and key in self._read:
                    raise self._place(key).error(f"{key}= without kernel=")
            values.update(self._firmware())
        elif kernel is None and "bootloader" not in self._settings:
            raise self._place("firmware").error(f"kernel= is missing, a {kind} guest needs one")
        if "device_model_override" in self._read and "device_model_version" not in self._read:
            self._warn_at("device_model_override", 'xl wants device_model_version="qemu-xen" too')
        return values

    def _cmdline(self) -> str | None:
        given: str | None = self._read.get("cmdline")
        root, extra = self._read.get("root"), self._read.get("extra")
        if given is not None:
            if root is not None or extra is not None:
                self._warn_at("cmdline", "root= and extra= are ignored, there is cmdline=")
            return given
        words = [f"root={root}"] if root is not None else []
        words += [extra] if extra is not None else []
        return " ".join(words) if words else None

    def _firmware(self) -> dict[str, Any]:
        """``firmware=`` stands for bios= or for firmware_override=."""
        given: str | None = self._read.get("firmware")
        if given is None:
            return {}
        if given.lower() in ("ovmf", "seabios", "rombios"):
            return {"bios": given.lower()}
        if "uefi".startswith(given):
            return {"bios": "ovmf"}
        return {} if "bios".startswith(given) else {"firmware_override": given}

    def _vcpus(self) -> dict[str, int]:
        online = self._read.get("vcpus", 1)
        most = self._read.get("maxvcpus", online)
        if most < online:
            raise self._place("maxvcpus").error(f"maxvcpus {most} is less than vcpus {online}")
        return {"vcpus": online, "maxvcpus": most}

    def _display(self) -> dict[str, Any]:
        vga = self._read.get("vga")
        if vga is None:
            vga = "stdvga" if self._read.get("stdvga") else "cirrus"
        options = {
            "enable": "vnc",
            "listen": "vnclisten",
            "display": "vncdisplay",
            "unused": "vncunused",
            "password": "vncpasswd",
        }
        vnc = Vnc(**{own: self._read[key] for own, key in options.items() if key in self._read})
        if vnc.display and ":" in vnc.listen:
            raise self._place("vnclisten").error("a display in both vnclisten and vncdisplay")
        return {"vga": vga, "vnc": vnc}

    def _memory(self, values: dict[str, Any]) -> dict[str, int]:
        default = self._read.get("memory", 32)
        maximum: int = self._read.get("maxmem", default)
        memory: int = self._read.get("memory", maximum)
        if memory > maximum:
            raise self._place("maxmem").error(f"memory {memory} is more than maxmem {maximum}")
        vga = values["vga"]
        least = _VIDEORAM[vga] if values["type"] == "hvm" else 0
        video: int = self._read.get("videoram", least)
        if video < least:
            raise self._place("videoram").error(f"videoram must be at least {least} for vga {vga}")
        if memory - video < _LEAST_MIB:
            place = self._place("videoram", "memory", "maxmem")
            raise place.error(f"videoram {video} leaves the guest less than {_LEAST_MIB} MiB")
        return {"memory": memory, "maxmem": maximum, "videoram": video}

    def _devices(self) -> dict[str, Any]:
        strategy, policy = self._read.get("rdm", (None, None))
        defaults = {name: self._read.get(f"pci_{name}", False) for name in PCI_SWITCHES}
        devices = []
        for atom in self._read.get("pci", ()):
            try:
                devices.append(parse_pci(atom.text, defaults, policy))
            except SpecError as error:
                raise atom.place.error(f"pci: {error}") from None
        return {
            "pci": tuple(devices),
            "rdm_strategy": strategy or "ignore",
            "rdm_policy": policy or "relaxed",
        }
