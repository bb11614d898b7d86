"""xl's network interface strings: KEY=VALUE with commas, and the rate's two units.

The keys are those of Xen's tools/xl/xl_parse.c:parse_nic_config, the rates those of
tools/libs/util/libxlu_vif.c (4.17 to 4.23). xl prints what it does not understand and goes on;
here it is an error.
"""

from __future__ import annotations

import re
from typing import Any

from tools.toolstack.xlcfg.config import Vif
from tools.toolstack.xlcfg.spec import SpecError, one_of, quoted

__all__ = ["parse_vif"]

_TEXTS = {
    "bridge": "bridge",
    "model": "model",
    "script": "script",
    "ip": "ip",
    "vifname": "vifname",
    "gatewaydev": "gatewaydev",
    "netdev": "gatewaydev",
    "backend": "backend",
}
_NUMBERS = ("devid", "mtu")
_WORDS = {"trusted": True, "untrusted": False}
_IGNORED = ("accel", "vlan", "forwarddev")

_MAC = re.compile(r"(?:[0-9a-fA-F]{1,2}:){5}[0-9a-fA-F]{1,2}")
_RATE = re.compile(r"([0-9]{1,10})([GMK]?)([Bb])/s")
_INTERVAL = re.compile(r"([0-9]{1,10})([mu]?)s?")
_MULTIPLES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
_MICROSECONDS = {"": 10**6, "m": 10**3, "u": 1}
_DEFAULT_INTERVAL = 50_000
_LIMIT = 1 << 32
_LARGEST_PRODUCT = 1 << 64


def parse_vif(text: str, index: int) -> Vif:
    """Return the interface that the string number ``index`` of ``vif=[…]`` describes.

    Raises SpecError if it describes none.
    """
    fields: dict[str, Any] = {"devid": index}
    for part in text.split(","):
        option = part.lstrip(" ")
        if option:
            fields.update([_option(option)])
    fields.pop("", None)
    return Vif(**fields)


def _option(option: str) -> tuple[str, Any]:
    """Return the field that an option sets, and its value."""
    key, equals, value = option.partition("=")
    if not equals:
        if option.rstrip(" ") in _WORDS:
            return "trusted", _WORDS[option.rstrip(" ")]
        raise SpecError(f"unknown option {quoted(option)}")
    if key in _TEXTS:
        return _TEXTS[key], value
    if key in _NUMBERS:
        return key, _number(key, value)
    if key == "mac":
        return key, _mac(value)
    if key == "type":
        return key, one_of(value, "type", ("ioemu", "vif"))
    if key == "rate":
        return key, _rate(value)
    if key in _IGNORED or key.startswith("colo_"):
        return "", None
    raise SpecError(f"unknown option {quoted(key)}")


def _number(key: str, value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", value):
        raise SpecError(f"{key} {quoted(value)} is not a number")
    return int(value)


def _mac(value: str) -> str:
    if not _MAC.fullmatch(value):
        raise SpecError(f"mac {quoted(value)} is not six pairs of hexadecimal digits with colons")
    return ":".join(f"{int(pair, 16):02x}" for pair in value.split(":"))


def _rate(value: str) -> tuple[int, int]:
    """Return bytes per interval, and the interval in microseconds."""
    speed, at, interval = value.partition("@")
    rate = _RATE.fullmatch(speed)
    if rate is None:
        raise SpecError(f"rate {quoted(value)} is not like 10Mb/s, 1GB/s or 1MB/s@20ms")
    number = int(rate[1])
    if not 0 < number < _LIMIT:
        raise SpecError(f"rate {quoted(value)} is out of range")
    per_second = number * _MULTIPLES[rate[2]] // (8 if rate[3] == "b" else 1)
    microseconds = _DEFAULT_INTERVAL
    if at:
        match = _INTERVAL.fullmatch(interval)
        if match is None:
            raise SpecError(f"rate {quoted(value)}: the interval is not like 20ms, 50us or 1s")
        microseconds = int(match[1]) * _MICROSECONDS[match[2]]
        if not 0 < microseconds < _LIMIT:
            raise SpecError(f"rate {quoted(value)}: the interval is out of range")
    if per_second * microseconds >= _LARGEST_PRODUCT:
        raise SpecError(f"rate {quoted(value)} is out of range")
    return per_second * microseconds // 10**6, microseconds
