"""Where a guest's RAM is, around the MMIO hole and reserved device memory, and the map it is told.

The rules are those of Xen's tools/libs/light/libxl_dom.c:libxl__build_hvm,
libxl_dm.c:libxl__domain_device_construct_rdm and libxl_x86.c:domain_construct_memmap (4.17 to
4.23):

- RAM begins at 0 and ends at the MMIO hole; what does not fit follows at 4 GiB.
- A reserved region that conflicts with low RAM and starts above the boundary moves the end of low
  RAM below it, for HAP guests to a multiple of 2 MiB; as much RAM is added at 4 GiB.
- A region that then still conflicts (at or below the boundary, or above 4 GiB) fails the guest if
  it is strict; if it is relaxed, it is hidden: a warning, and no entry in the map.

What differs from libxl: the map is sorted, and regions that overlap are one entry; a boundary that
would leave less than 1 MiB of low RAM is an error (libxl makes an entry of negative size); the
layout is a value, computed anew for each start (libxl takes the regions from the domain's stored
configuration at a reboot and then skips the move of low RAM). What differed before: the posting of
2015 compared the boundary's KiB with bytes, and up to 2020 there was an empty entry at 4 GiB for
guests without RAM there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import Literal

from tools.toolstack.errors import ToolstackError
from tools.toolstack.rdm import PAGE, Double, RdmEntry, ReservedRegion, rdm_entries
from tools.toolstack.xlcfg.config import GuestConfig

__all__ = [
    "FOUR_GIB",
    "SPECIAL_PAGES",
    "VGA_WINDOW",
    "MapEntry",
    "MapType",
    "MemoryLayout",
    "lay_out",
    "layout_of",
]

FOUR_GIB = 1 << 32
VGA_WINDOW = (0xA0000, 0xC0000)
"""Not RAM in an HVM guest (LIBXL_VGA_HOLE_SIZE): the device model's."""
SPECIAL_PAGES = (0xFEFF8000, 0xFF000000)
"""xenstore's, the console's and other pages (xg_dom_x86.c, X86_HVM_NR_SPECIAL_PAGES)."""

_MIB = 1 << 20
_HAP_ALIGNMENT = 2 * _MIB
_HVM_HOLE = 0x10000000
_PVH_MMIO_START = 0xFC000000
_MOST_ENTRIES = 127
_HVM_MAP_START = _MIB
_DEFAULT_BOUNDARY = 2048 * _MIB


class MapType(Enum):
    """The type of an entry of the guest's memory map, with its number in E820."""

    RAM = 1
    RESERVED = 2
    ACPI = 3


@dataclass(frozen=True, slots=True)
class MapEntry:
    """An entry of the guest's memory map: guest-physical start and size in bytes, and its type."""

    start: int
    size: int
    type: MapType

    @property
    def end(self) -> int:
        """The first address after the entry."""
        return self.start + self.size


@dataclass(frozen=True, slots=True)
class MemoryLayout:
    """A guest's memory. Addresses are guest-physical; an end is the first address after.

    ``highmem_end`` is 0 if there is no RAM at 4 GiB. ``exposed`` and ``hidden`` are the reserved
    regions that the guest is told of and those it is not; ``warnings`` has a line for each hidden.
    """

    kind: Literal["hvm", "pvh"]
    lowmem_end: int
    highmem_end: int
    mmio_start: int
    boundary: int
    exposed: tuple[RdmEntry, ...] = ()
    hidden: tuple[RdmEntry, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def ram_size(self) -> int:
        """Bytes of RAM, the VGA window (which an HVM guest has no RAM for) included."""
        return self.lowmem_end + max(self.highmem_end - FOUR_GIB, 0)

    @property
    def low_mem_pgend(self) -> int:
        """hvm_info_table's field: the first GFN after low RAM."""
        return self.lowmem_end // PAGE

    @property
    def high_mem_pgend(self) -> int:
        """hvm_info_table's field: the first GFN after high RAM, or 0."""
        return self.highmem_end // PAGE

    @property
    def ram(self) -> tuple[tuple[int, int], ...]:
        """The ranges to populate, as (start, size): libxc's, in an HVM guest without VGA window."""
        low = [(0, self.lowmem_end)]
        if self.kind == "hvm":
            low = [(0, VGA_WINDOW[0]), (VGA_WINDOW[1], self.lowmem_end - VGA_WINDOW[1])]
        high = [(FOUR_GIB, self.highmem_end - FOUR_GIB)] if self.highmem_end else []
        return (*low, *high)

    def memory_map(self, acpi: Iterable[tuple[int, int]] = ()) -> tuple[MapEntry, ...]:
        """Return the map that the guest is told (XENMEM_memory_map, hvm_start_info).

        ``acpi`` are the ACPI modules, as (address, length) in bytes. An HVM guest's map begins at
        1 MiB, hvmloader adds what is below. Raises ToolstackError for more than 127 entries and for
        modules that are in the way.
        """
        start = _HVM_MAP_START if self.kind == "hvm" else 0
        entries = [MapEntry(start, self.lowmem_end - start, MapType.RAM)]
        if self.highmem_end:
            entries.append(MapEntry(FOUR_GIB, self.highmem_end - FOUR_GIB, MapType.RAM))
        reserved = [(entry.start, entry.end) for entry in self.exposed]
        if self.kind == "pvh":
            reserved.append(SPECIAL_PAGES)
        entries += [MapEntry(low, high - low, MapType.RESERVED) for low, high in _union(reserved)]
        for address, length in acpi:
            first = address - address % PAGE
            end = -(-(address + length) // PAGE) * PAGE
            entries.append(MapEntry(first, end - first, MapType.ACPI))
        entries.sort(key=lambda entry: entry.start)
        for before, entry in pairwise(entries):
            if entry.start < before.end:
                raise ToolstackError(f"the ACPI tables overlap the memory at 0x{before.start:x}")
        if len(entries) > _MOST_ENTRIES:
            raise ToolstackError(f"{len(entries)} entries in the memory map, {_MOST_ENTRIES} fit")
        return tuple(entries)


def layout_of(
    guest: GuestConfig, regions: Iterable[ReservedRegion] = (), *, double: Double = "stricter"
) -> MemoryLayout:
    """Return the layout of ``guest`` on a host with the reserved ``regions``.

    The RAM is maxmem less videoram, for which the device model finds a place of its own. Raises
    ToolstackError for a strict conflict and for a guest that is not HVM or PVH.
    """
    if guest.type == "pv":
        raise ToolstackError(f"{guest.name} is a PV guest, which has no memory layout of this kind")
    entries = rdm_entries(
        regions,
        strategy=guest.rdm_strategy,
        policy=guest.rdm_policy,
        devices=guest.pci,
        double=double,
    )
    return lay_out(
        (guest.maxmem - guest.videoram) * _MIB,
        entries,
        kind=guest.type,
        boundary=guest.rdm_mem_boundary * _MIB,
        mmio_hole=None if guest.mmio_hole is None else guest.mmio_hole * _MIB,
        hap=guest.hap,
    )


def lay_out(
    size: int,
    entries: Sequence[RdmEntry] = (),
    *,
    kind: Literal["hvm", "pvh"] = "hvm",
    boundary: int = _DEFAULT_BOUNDARY,
    mmio_hole: int | None = None,
    hap: bool = True,
) -> MemoryLayout:
    """Return the layout of ``size`` bytes of RAM around the reserved ``entries``.

    ``boundary`` and ``mmio_hole`` are in bytes; a hole below 256 MiB counts as that, None is the
    default. Sizes and entries are whole pages. Raises ToolstackError for a strict conflict, with
    the region, and for too little RAM.
    """
    if size % PAGE or any(entry.start % PAGE or entry.size % PAGE for entry in entries):
        raise ValueError("memory and reserved regions are whole pages")
    mmio_start = _mmio_start(kind, mmio_hole)
    low, high = min(size, mmio_start), size - min(size, mmio_start)
    for entry in entries:
        if entry.start < low and entry.start > boundary:
            end = _moved_end(entry.start, hap)
            low, high = end, high + low - end
    if low <= _MIB:
        raise ToolstackError(
            f"only 0x{low:x} bytes of RAM below the MMIO hole, more than 1 MiB needed"
        )
    ram = [(0, low)] + ([(FOUR_GIB, FOUR_GIB + high)] if high else [])
    hidden = tuple(entry for entry in entries if any(_overlaps(entry, *one) for one in ram))
    for entry in hidden:
        if entry.policy == "strict":
            raise ToolstackError(
                f"RDM conflict at 0x{entry.start:x}: the reserved region {entry} is in the guest's "
                "RAM and its policy is strict"
            )
    return MemoryLayout(
        kind=kind,
        lowmem_end=low,
        highmem_end=FOUR_GIB + high if high else 0,
        mmio_start=mmio_start,
        boundary=boundary,
        exposed=tuple(entry for entry in entries if entry not in hidden),
        hidden=hidden,
        warnings=tuple(
            f"ignoring the RDM conflict at 0x{entry.start:x}: the guest is not told of the "
            f"reserved region {entry}, which is in its RAM"
            for entry in hidden
        ),
    )


def _mmio_start(kind: str, hole: int | None) -> int:
    """Where the hole begins: at most its default start, whatever its configured size is."""
    default = FOUR_GIB - _HVM_HOLE if kind == "hvm" else _PVH_MMIO_START
    if hole is None or FOUR_GIB - hole >= FOUR_GIB - _HVM_HOLE:
        return default
    return FOUR_GIB - hole


def _moved_end(start: int, hap: bool) -> int:
    """Where low RAM ends below a region at ``start``; HAP guests keep their 2 MiB pages whole."""
    return start - start % _HAP_ALIGNMENT if hap and start > _HAP_ALIGNMENT else start


def _overlaps(entry: RdmEntry, start: int, end: int) -> bool:
    return start < entry.end and entry.start < end


def _union(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return (start, end) ranges as sorted, disjoint ones; those that overlap become one."""
    result: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if result and start < result[-1][1]:
            result[-1] = (result[-1][0], max(result[-1][1], end))
        else:
            result.append((start, end))
    return result
