"""xl's disk strings: positional, KEY=VALUE, and what is left of xend's PREFIX:TARGET.

The rules are those of Xen's tools/libs/util/libxlu_disk_l.l and libxlu_disk.c (4.17 to 4.23).
Stricter than they are: an empty vdev, and an empty target of what is not a CD-ROM drive, are
refused here rather than when the disk is opened.
"""

from __future__ import annotations

import re

from tools.toolstack.xlcfg.config import Disk
from tools.toolstack.xlcfg.spec import SpecError, one_of, quoted

__all__ = ["parse_disk"]

_FORMATS = ("raw", "qcow", "qcow2", "vhd", "qed", "empty")
_BACKENDS = ("phy", "tap", "qdisk", "standalone")
_ACCESS = {"r": False, "ro": False, "rw": True, "w": True, "": True}
_FLAGS: dict[str, tuple[str, bool]] = {
    "cdrom": ("cdrom", True),
    "devtype=cdrom": ("cdrom", True),
    "devtype=disk": ("cdrom", False),
    "direct-io-safe": ("direct_io_safe", True),
    "discard": ("discard", True),
    "no-discard": ("discard", False),
}
_IGNORED = frozenset(
    ["colo", "no-colo", "trusted", "untrusted", "grant_usage=0", "grant_usage=1"]
) | {"specification=xen"}
_TEXTS = ("vdev", "script", "backend")

_BLANKS = re.compile(r"[ \t\n]+")
_TARGET = re.compile(r"target=([^\n]*)")
_ITEM = re.compile(r"([^,]*),?")
_FORMAT_PREFIX = re.compile(r"(raw|qcow2?|vhd):")
_SCRIPT_PREFIX = re.compile(r"(iscsi|e?nbd|drbd):")
_PLAIN_PREFIX = re.compile(r"(?:tapdisk|tap2?|aio|ioemu|file|phy):")
_OTHER_PREFIX = re.compile(r"([a-z][a-z0-9]*):(?:[^a-z0-9\n]|$)")


def parse_disk(text: str) -> Disk:
    """Return the disk that a string of ``disk=[…]`` describes; raise SpecError if it does not."""
    return _DiskParser(text).parse()


class _DiskParser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._fields: dict[str, str | bool | None] = {}
        self._had_prefix = False
        self._had_access = False

    def parse(self) -> Disk:
        offset = 0
        while offset < len(self._text):
            blanks = _BLANKS.match(self._text, offset)
            offset = blanks.end() if blanks else self._part(offset)
        return self._complete()

    def _part(self, offset: int) -> int:
        """Take the part at ``offset``; return where the next one begins."""
        text = self._text
        if target := _TARGET.match(text, offset):
            self._set("target", target[1].removesuffix(","))
            return target.end()
        for pattern in (_FORMAT_PREFIX, _SCRIPT_PREFIX, _PLAIN_PREFIX):
            if prefix := pattern.match(text, offset):
                self._had_prefix = True
                if pattern is _FORMAT_PREFIX:
                    self._set_format(prefix[1])
                elif pattern is _SCRIPT_PREFIX:
                    self._set("script", f"block-{prefix[1]}")
                return prefix.end()
        if other := _OTHER_PREFIX.match(text, offset):
            raise SpecError(
                f"unknown prefix {quoted(other[1])} (a target with a colon goes in target=)"
            )
        item = _ITEM.match(text, offset)
        assert item is not None
        self._item(item[1])
        return item.end()

    def _item(self, item: str) -> None:
        key, equals, value = item.partition("=")
        if item in _FLAGS:
            name, flag = _FLAGS[item]
            self._fields[name] = flag
        elif item in _IGNORED:
            return
        elif not equals:
            self._positional(item)
        elif key in _TEXTS:
            self._set(key, value)
        elif key == "format":
            self._set_format(value)
        elif key == "backendtype":
            self._set("backendtype", one_of(value, "backendtype", _BACKENDS))
        elif key == "access":
            self._set_access(value)
        elif key == "devtype":
            raise SpecError(f"devtype {quoted(value)} is none of cdrom, disk")
        else:
            raise SpecError(f"unknown parameter {quoted(item)}")

    def _positional(self, value: str) -> None:
        fields = self._fields
        if fields.get("target") is None:
            self._set("target", value)
        elif not self._had_prefix and "format" not in fields:
            if fields["target"] == "" and ":" in value:
                self._set_vdev(value)
                fields["format"] = "empty"
            else:
                self._set_format(value)
        elif "vdev" not in fields:
            self._set_vdev(value)
        elif not self._had_access:
            self._had_access = True
            self._set_access(value)
        else:
            raise SpecError(f"too many positional parameters, at {quoted(value)}")

    def _set(self, name: str, value: str) -> None:
        if self._fields.get(name):
            raise SpecError(f"{name} is given twice")
        self._fields[name] = value

    def _set_format(self, value: str) -> None:
        chosen = one_of(value, "format", _FORMATS) if value else "raw"
        if self._fields.get("format", chosen) != chosen:
            raise SpecError("format is given twice")
        self._fields["format"] = chosen

    def _set_access(self, value: str) -> None:
        one_of(value, "access", tuple(_ACCESS))
        self._fields["writable"] = _ACCESS[value]

    def _set_vdev(self, value: str) -> None:
        vdev, colon, kind = value.rpartition(":")
        if colon:
            self._fields["cdrom"] = one_of(kind, "type", ("cdrom", "disk")) == "cdrom"
        self._set("vdev", vdev if colon else value)

    def _complete(self) -> Disk:
        fields = self._fields
        if not fields.get("vdev"):
            raise SpecError(f"no vdev in the disk {quoted(self._text)}")
        if not fields.get("target"):
            if not fields.get("cdrom"):
                raise SpecError(f"no target in the disk {quoted(self._text)}")
            fields["format"], fields["target"] = "empty", None
        if fields.get("cdrom"):
            fields["writable"] = False
        return Disk(**fields)  # type: ignore[arg-type] # each field is set with its own type above
