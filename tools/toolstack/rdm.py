"""Reserved device memory: which regions a host reserves for which devices, and a guest's policies.

On Xen the hypervisor tells the regions (``XENMEM_reserved_device_memory_map``, from the RMRRs of
the ACPI DMAR table). Where there is no IOMMU to ask, a file says them, a region a line, in the
form in which Linux and Xen log them, both ends included, then the devices that need it::

    # the graphics' stolen memory, and what two USB controllers share     0xad800000-0xaf7fffff
0000:00:02.0     0x000ed000-0x000edfff  0000:00:1a.0 0000:00:1d.0     0xe0000000-0xe00fffff
# of the host, for no device by itself
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tools.toolstack.errors import ToolstackError
from tools.toolstack.user_file import read_user_file
from tools.toolstack.xlcfg.config import PciDevice, RdmPolicy, RdmStrategy
from tools.toolstack.xlcfg.pci import parse_bdf
from tools.toolstack.xlcfg.spec import quoted

__all__ = [
    "PAGE",
    "Double",
    "RdmEntry",
    "ReservedRegion",
    "parse_region",
    "rdm_entries",
    "read_regions",
]

PAGE = 4096
Double = Literal["stricter", "device"]
"""Who wins when a region's policy is configured twice; see `rdm_entries`."""

_RANGE = re.compile(r"(0x[0-9a-fA-F]{1,16})-(0x[0-9a-fA-F]{1,16})")
_MOST_REGIONS = 1024
_ADDRESS_BITS = 52


@dataclass(frozen=True, slots=True)
class ReservedRegion:
    """A region of the host: guest-physical start and size in bytes, and the devices that need it.

    A device is an address as ``0000:00:02.0`` or a name as in ``pci=["name=…"]``.
    """

    start: int
    size: int
    devices: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class RdmEntry:
    """A region that concerns a guest: start and size in bytes, and what to do about a conflict."""

    start: int
    size: int
    policy: RdmPolicy

    @property
    def end(self) -> int:
        """The first address after the region."""
        return self.start + self.size

    def __str__(self) -> str:
        """Both ends included, as in a file of regions."""
        return f"0x{self.start:x}-0x{self.end - 1:x}"


def read_regions(path: Path) -> tuple[ReservedRegion, ...]:
    """Return the regions in the file ``path``; raise ToolstackError with file and line.

    A file has at most 256 KiB and 1024 regions, and no start twice.
    """
    regions: dict[int, ReservedRegion] = {}
    for number, line in enumerate(read_user_file(path).decode("utf-8", "replace").split("\n"), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            region = parse_region(words)
            if region.start in regions:
                raise ToolstackError(f"a region at 0x{region.start:x} is there already")
            if len(regions) == _MOST_REGIONS:
                raise ToolstackError(f"more than {_MOST_REGIONS} regions")
        except ToolstackError as error:
            raise ToolstackError(f"{path}:{number}: {error}") from None
        regions[region.start] = region
    return tuple(regions.values())


def parse_region(words: Sequence[str]) -> ReservedRegion:
    """Return the region that ``words`` describe: ``0xSTART-0xEND`` and devices; see the module.

    Raises ToolstackError for what is no range, not page-aligned or beyond 52 bits, and for what
    looks like an address of a device and is none.
    """
    match = _RANGE.fullmatch(words[0]) if words else None
    if match is None:
        raise ToolstackError(f"{quoted(' '.join(words))} does not begin with 0xSTART-0xEND")
    start, end = int(match[1], 16), int(match[2], 16) + 1
    if end <= start:
        raise ToolstackError(f"{match[0]} ends before it starts")
    if start % PAGE or end % PAGE:
        raise ToolstackError(f"{match[0]} is not whole pages of {PAGE} bytes, both ends included")
    if end > 1 << _ADDRESS_BITS:
        raise ToolstackError(f"{match[0]} ends beyond {_ADDRESS_BITS} address bits")
    return ReservedRegion(start, end - start, frozenset(_device(word) for word in words[1:]))


def _device(word: str) -> str:
    if ":" not in word:
        return word
    address = parse_bdf(word)
    if address is None or address[1] != len(word) or address[0]["all_functions"]:
        raise ToolstackError(f"{quoted(word)} is not [SEGMENT:]BUS:DEVICE.FUNCTION")
    return PciDevice(**address[0]).sbdf


def rdm_entries(
    regions: Iterable[ReservedRegion],
    *,
    strategy: RdmStrategy,
    policy: RdmPolicy,
    devices: Sequence[PciDevice],
    double: Double = "stricter",
) -> tuple[RdmEntry, ...]:
    """Return the entries of a guest: all regions by ``strategy`` "host", then its devices'.

    Every region of every device counts (the posting of 2015 read the first one and wrote it past
    the end of its array; the first merged version lost what followed a known one). A region that
    is there already, found by its start, has its policy configured twice: ``double`` "stricter"
    keeps the stricter one, as the posting announced; "device" lets the later device's win, as libxl
    does since 4.7 (libxl_dm.c:libxl__domain_device_construct_rdm). ``pci=["01:00.*"]`` concerns the
    regions of all eight functions, of which libxl asks for the first only.
    """
    known = tuple(regions)
    entries: dict[int, RdmEntry] = {}
    if strategy == "host":
        entries = {one.start: RdmEntry(one.start, one.size, policy) for one in known}
    for device in devices:
        names = _names(device)
        for region in known:
            if names & region.devices:
                _add(entries, RdmEntry(region.start, region.size, device.rdm_policy), double)
    return tuple(entries.values())


def _names(device: PciDevice) -> frozenset[str]:
    if device.name is not None:
        return frozenset([device.name])
    if device.all_functions:
        return frozenset(replace(device, function=function).sbdf for function in range(8))
    return frozenset([device.sbdf])


def _add(entries: dict[int, RdmEntry], entry: RdmEntry, double: Double) -> None:
    before = entries.get(entry.start)
    if before is not None:
        keep = double == "stricter" and before.policy == "strict"
        entry = replace(
            entry,
            size=max(before.size, entry.size),
            policy=before.policy if keep else entry.policy,
        )
    entries[entry.start] = entry
