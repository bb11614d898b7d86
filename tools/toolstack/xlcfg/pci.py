"""xl's strings for assigned PCI devices and for reserved device memory (``pci=``, ``rdm=``).

The rules are those of Xen's tools/libs/util/libxlu_pci.c (4.17 to 4.23) with one difference.
There, ``xlu_rdm_parse`` takes the success of reading a policy for its failure, and xl ignores the
failure: an ``rdm=`` with a policy has no effect at all, strategy included. Here it means what
xl.cfg(5) says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from tools.toolstack.xlcfg.config import PciDevice, RdmPolicy, RdmStrategy
from tools.toolstack.xlcfg.spec import SpecError, leading_integer, one_of, quoted

__all__ = ["PCI_SWITCHES", "parse_bdf", "parse_pci", "parse_rdm"]

PCI_SWITCHES = ("permissive", "msitranslate", "seize", "power_mgmt")
"""Options of a device that the key ``pci_…`` gives a default to."""

_BDF = re.compile(
    r"(?:([0-9a-fA-F]{1,8}):)?([0-9a-fA-F]{1,8}):([0-9a-fA-F]{1,8})\.(\*|[0-9a-fA-F]{1,8})"
)
_POLICIES = ("strict", "relaxed")
_SLOTS = 32


def parse_bdf(text: str, offset: int = 0) -> tuple[dict[str, Any], int] | None:
    """Read ``[SEGMENT:]BUS:DEVICE.FUNCTION`` or ``….*`` at ``offset``.

    Returns PciDevice's fields and the offset of what follows, or None if there is no address.
    """
    match = _BDF.match(text, offset)
    if match is None:
        return None
    segment, bus, device = (int(part or "0", 16) for part in match.groups()[:3])
    every = match[4] == "*"
    function = 0 if every else int(match[4], 16)
    if segment > 0xFFFF or bus > 0xFF or device > 0x1F or function > 7:
        return None
    fields: dict[str, Any] = {
        "segment": segment,
        "bus": bus,
        "device": device,
        "function": function,
        "all_functions": every,
    }
    return fields, match.end()


def parse_pci(text: str, defaults: Mapping[str, bool], policy: RdmPolicy | None) -> PciDevice:
    """Return the device that a string of ``pci=[…]`` names.

    ``defaults`` are those of the switches, ``policy`` is that of ``rdm=``, which a device without
    one of its own follows; with neither it is strict. Raises SpecError.
    """
    fields: dict[str, Any] = {**defaults, "rdm_policy": policy or "strict"}
    offset, addressed = 0, False
    if first := parse_bdf(text):
        addressed = True
        fields.update(first[0])
        offset = first[1]
        if text[offset : offset + 1] == "@":
            end = min((i for i in (text.find(",", offset),) if i >= 0), default=len(text))
            fields["vslot"] = _slot(text[offset + 1 : end])
            offset = end
        if offset < len(text):
            if text[offset] != ",":
                raise SpecError(f"{quoted(text)}: expected ',' after the address")
            offset += 1
    for option in text[offset:].removesuffix(",").split(",") if text[offset:] else ():
        _option(option, fields)
    if (addressed or "bus" in fields) == ("name" in fields):
        raise SpecError(f"{quoted(text)}: one address or one name= is needed")
    return PciDevice(**fields)


def _option(option: str, fields: dict[str, Any]) -> None:
    key, equals, value = option.partition("=")
    if not equals:
        raise SpecError(f"{quoted(option)} is neither [SEGMENT:]BUS:DEVICE.FUNCTION nor KEY=VALUE")
    if key == "bdf":
        address = parse_bdf(value)
        if address is None or address[1] != len(value):
            raise SpecError(f"bdf {quoted(value)} is not [SEGMENT:]BUS:DEVICE.FUNCTION")
        fields.update(address[0])
    elif key == "vslot":
        fields["vslot"] = _slot(value)
    elif key in PCI_SWITCHES:
        fields[key] = bool(leading_integer(value))
    elif key == "rdm_policy":
        fields["rdm_policy"] = _policy(key, value)
    elif key == "name":
        fields["name"] = value
    else:
        raise SpecError(f"unknown option {quoted(key)}")


def _slot(text: str) -> int:
    if not re.fullmatch(r"(?:0[xX])?[0-9a-fA-F]{1,8}", text) or int(text, 16) >= _SLOTS:
        raise SpecError(f"vslot {quoted(text)} is not a hexadecimal number up to 1f")
    return int(text, 16)


def _policy(key: str, text: str) -> RdmPolicy:
    return cast("RdmPolicy", one_of(text.lower(), key, _POLICIES))


def parse_rdm(text: str) -> tuple[RdmStrategy | None, RdmPolicy | None]:
    """Return the strategy and the policy of ``rdm="strategy=…,policy=…"``, None for what is absent.

    Either order, and either alone, is allowed. Raises SpecError.
    """
    strategy: RdmStrategy | None = None
    policy: RdmPolicy | None = None
    for option in text.split(","):
        key, equals, value = option.partition("=")
        if not equals or key not in ("strategy", "policy"):
            raise SpecError(f"{quoted(option)} is neither strategy=host nor policy=strict|relaxed")
        if key == "strategy":
            strategy = cast("RdmStrategy", one_of(value, key, ("host",)))
        else:
            policy = _policy(key, value)
    return strategy, policy
