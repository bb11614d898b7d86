"""Where a guest's RAM is: contract §9, the posting of 2015, and what holds for any regions."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.toolstack.errors import ToolstackError
from tools.toolstack.memory_layout import (
    FOUR_GIB,
    MapEntry,
    MapType,
    MemoryLayout,
    lay_out,
    layout_of,
)
from tools.toolstack.rdm import PAGE, RdmEntry, ReservedRegion
from tools.toolstack.xlcfg import GuestConfig, PciDevice, RdmPolicy

MIB, GIB = 1 << 20, 1 << 30


def _entry(start: int, size: int = PAGE, policy: RdmPolicy = "strict") -> RdmEntry:
    return RdmEntry(start, size, policy)


def test_s9_3_ram_that_fits_below_the_hole_is_all_low() -> None:
    layout = lay_out(64 * MIB)
    assert (layout.lowmem_end, layout.highmem_end) == (64 * MIB, 0)
    assert layout.mmio_start == 0xF0000000


def test_s9_3_ram_up_to_the_hole_has_no_highmem() -> None:
    """The merged code of 2015 forced highmem_end to 4 GiB: an empty entry in the map."""
    layout = lay_out(0xF0000000)
    assert (layout.lowmem_end, layout.highmem_end, layout.high_mem_pgend) == (0xF0000000, 0, 0)
    assert all(entry.size for entry in layout.memory_map())


def test_s9_3_what_does_not_fit_follows_at_4_gib() -> None:
    layout = lay_out(5 * GIB)
    assert layout.lowmem_end == 0xF0000000
    assert layout.highmem_end == FOUR_GIB + 5 * GIB - 0xF0000000
    assert layout.low_mem_pgend == 0xF0000
    assert layout.high_mem_pgend == layout.highmem_end >> 12


def test_s9_3_a_larger_mmio_hole_moves_ram() -> None:
    layout = lay_out(4 * GIB, mmio_hole=GIB)
    assert (layout.mmio_start, layout.lowmem_end) == (3 * GIB, 3 * GIB)
    assert layout.highmem_end == 5 * GIB
    assert lay_out(4 * GIB, mmio_hole=256 * MIB).mmio_start == 0xF0000000


def test_a_pvh_guests_hole_holds_lapic_acpi_and_special_pages_only() -> None:
    layout = lay_out(4 * GIB, kind="pvh")
    assert layout.mmio_start == 0xFC000000
    assert layout.memory_map() == (
        MapEntry(0, 0xFC000000, MapType.RAM),
        MapEntry(0xFEFF8000, 0x8000, MapType.RESERVED),
        MapEntry(FOUR_GIB, 64 * MIB, MapType.RAM),
    )


def test_s9_3_the_map_is_low_ram_from_1_mib_reserved_regions_and_high_ram() -> None:
    layout = lay_out(5 * GIB, [_entry(0xF8000000, MIB)])
    assert layout.memory_map() == (
        MapEntry(MIB, 0xF0000000 - MIB, MapType.RAM),
        MapEntry(0xF8000000, MIB, MapType.RESERVED),
        MapEntry(FOUR_GIB, 5 * GIB - 0xF0000000, MapType.RAM),
    )


def test_s10_1_populated_ram_leaves_the_vga_window_out() -> None:
    assert lay_out(64 * MIB).ram == ((0, 0xA0000), (0xC0000, 64 * MIB - 0xC0000))
    assert lay_out(5 * GIB).ram[-1] == (FOUR_GIB, 5 * GIB - 0xF0000000)
    assert lay_out(64 * MIB, kind="pvh").ram == ((0, 64 * MIB),)


def test_seed_003_above_the_boundary_lowmem_end_moves_below_the_region() -> None:
    layout = lay_out(4 * GIB, [_entry(0xC0000000)], hap=False)
    assert layout.lowmem_end == 0xC0000000
    assert layout.highmem_end == FOUR_GIB + GIB
    assert layout.exposed == (_entry(0xC0000000),)
    assert layout.warnings == ()


def test_s9_2_highmem_begins_when_lowmem_end_moves() -> None:
    """highmem_end was 0 before: it is counted from 4 GiB."""
    layout = lay_out(3 * GIB, [_entry(0xB0000000)], hap=False)
    assert (layout.lowmem_end, layout.highmem_end) == (0xB0000000, FOUR_GIB + 0x10000000)


def test_s9_2_a_hap_guests_lowmem_end_is_rounded_down_to_2_mib() -> None:
    layout = lay_out(3 * GIB, [_entry(0xB0123000)])
    assert layout.lowmem_end == 0xB0000000
    assert layout.ram_size == 3 * GIB
    assert lay_out(3 * GIB, [_entry(0xB0123000)], hap=False).lowmem_end == 0xB0123000


def test_s9_2_running_values_are_used_for_later_entries() -> None:
    entries = [_entry(0xC0000000), _entry(0x90000000), _entry(0xA0000000)]
    layout = lay_out(4 * GIB, entries, hap=False)
    assert layout.lowmem_end == 0x90000000
    assert layout.highmem_end == FOUR_GIB + 4 * GIB - 0x90000000
    assert layout.exposed == tuple(entries)


@pytest.mark.parametrize(
    ("start", "moves"), [(2 * GIB - PAGE, False), (2 * GIB, False), (2 * GIB + PAGE, True)]
)
def test_s9_2_at_the_boundary_is_not_above_it(start: int, moves: bool) -> None:
    layout = lay_out(3 * GIB, [_entry(start, policy="relaxed")])
    assert (layout.lowmem_end < 3 * GIB) == moves
    assert bool(layout.hidden) != moves


def test_s9_1_the_boundary_can_be_changed() -> None:
    entry = _entry(GIB + PAGE)
    with pytest.raises(ToolstackError):
        lay_out(2 * GIB, [entry])
    assert lay_out(2 * GIB, [entry], boundary=GIB).lowmem_end == GIB


def test_seed_003_the_boundary_of_the_configuration_is_in_mib() -> None:
    """The posting stored KiB and compared bytes: a boundary of 1024 MiB acted as one of 1 MiB."""
    regions = [ReservedRegion(512 * MIB, PAGE)]
    guest = GuestConfig(
        name="g", type="hvm", memory=2048, maxmem=2048, rdm_strategy="host", rdm_mem_boundary=1024
    )
    layout = layout_of(guest, regions)
    assert layout.boundary == GIB
    assert layout.lowmem_end == 2040 * MIB
    assert len(layout.hidden) == 1


def test_seed_003_strict_fails_with_the_region_in_the_message() -> None:
    with pytest.raises(
        ToolstackError, match=r"^RDM conflict at 0xed000: .*0xed000-0xeefff.*strict"
    ):
        lay_out(64 * MIB, [_entry(0xED000, 2 * PAGE)])


def test_seed_003_relaxed_warns_and_hides_the_entry() -> None:
    entry = _entry(0x2000000, policy="relaxed")
    layout = lay_out(64 * MIB, [entry])
    assert (layout.hidden, layout.exposed) == ((entry,), ())
    assert len(layout.warnings) == 1
    assert "0x2000000-0x2000fff" in layout.warnings[0]
    assert all(one.type is MapType.RAM for one in layout.memory_map())
    assert layout.lowmem_end == 64 * MIB


def test_s9_2_a_conflict_in_highmem_is_not_solved() -> None:
    inside, outside = _entry(FOUR_GIB + MIB), _entry(0x180000000)
    with pytest.raises(ToolstackError, match="RDM conflict at 0x100100000"):
        lay_out(5 * GIB, [inside])
    assert lay_out(5 * GIB, [outside]).exposed == (outside,)


def test_s9_2_highmem_that_grew_can_conflict() -> None:
    grown = [_entry(0xC0000000), _entry(FOUR_GIB + MIB, policy="relaxed")]
    assert lay_out(3 * GIB, grown).hidden == ()
    assert lay_out(4 * GIB, grown).hidden == (grown[1],)


def test_s9_2_without_highmem_nothing_conflicts_at_4_gib() -> None:
    entry = _entry(FOUR_GIB - PAGE, 2 * PAGE)
    assert lay_out(64 * MIB, [entry]).exposed == (entry,)


def test_s9_2_ranges_are_half_open() -> None:
    assert lay_out(64 * MIB, [_entry(64 * MIB)]).exposed
    with pytest.raises(ToolstackError):
        lay_out(64 * MIB, [_entry(64 * MIB - PAGE)])


def test_s9_3_the_guests_ram_is_maxmem_without_videoram() -> None:
    guest = GuestConfig(name="g", type="hvm", memory=64, maxmem=128, videoram=16)
    assert layout_of(guest).ram_size == 112 * MIB


def test_s9_2_per_device_policies_reach_the_layout() -> None:
    regions = [ReservedRegion(MIB, PAGE, frozenset(["0000:01:00.0"]))]
    relaxed = PciDevice(bus=1, rdm_policy="relaxed")
    guest = GuestConfig(name="g", type="hvm", memory=64, maxmem=64, pci=(relaxed,))
    assert len(layout_of(guest, regions).hidden) == 1
    with pytest.raises(ToolstackError, match="RDM conflict at 0x100000"):
        layout_of(
            GuestConfig(name="g", type="hvm", memory=64, maxmem=64, pci=(PciDevice(bus=1),)),
            regions,
        )


def test_s9_3_a_second_start_of_the_same_guest_has_the_same_layout() -> None:
    """libxl skips the move of low RAM when the domain's stored configuration has the regions."""
    guest = GuestConfig(name="g", type="hvm", memory=4096, maxmem=4096, rdm_strategy="host")
    regions = [ReservedRegion(0xC0000000, PAGE)]
    assert layout_of(guest, regions) == layout_of(guest, regions)
    assert layout_of(guest, regions).lowmem_end == 0xC0000000


def test_s9_3_more_than_127_entries_are_refused() -> None:
    def entries(count: int) -> list[RdmEntry]:
        return [_entry(0xF0000000 + 2 * n * PAGE) for n in range(count)]

    assert len(lay_out(64 * MIB, entries(126)).memory_map()) == 127
    with pytest.raises(ToolstackError, match="128 entries in the memory map"):
        lay_out(64 * MIB, entries(127)).memory_map()


def test_acpi_modules_are_whole_pages_and_in_nobodys_way() -> None:
    layout = lay_out(64 * MIB, [_entry(0xFC000000)], kind="pvh")
    assert MapEntry(0xFC001000, 0x2000, MapType.ACPI) in layout.memory_map([(0xFC001010, 0x1000)])
    with pytest.raises(ToolstackError, match="ACPI tables"):
        layout.memory_map([(0xFC000010, 0x10)])


def test_a_boundary_that_leaves_no_low_ram_is_an_error() -> None:
    """libxl makes an entry of negative size."""
    with pytest.raises(ToolstackError, match="only 0x80000 bytes of RAM"):
        lay_out(64 * MIB, [_entry(0x80000)], boundary=0)


def test_a_pv_guest_has_no_such_layout() -> None:
    with pytest.raises(ToolstackError, match="PV"):
        layout_of(GuestConfig(name="g"))


def test_parts_of_pages_are_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError):
        lay_out(64 * MIB + 1)
    with pytest.raises(ValueError):
        lay_out(64 * MIB, [_entry(0x1800)])


# What must hold for any regions and any amount of memory.


def _relaxed(entries: list[RdmEntry]) -> list[RdmEntry]:
    return [RdmEntry(entry.start, entry.size, "relaxed") for entry in entries]


_PAGES = st.one_of(
    st.integers(0, (6 * GIB) // PAGE),
    st.integers(2 * GIB // PAGE - 4, 2 * GIB // PAGE + 4),
    st.integers(FOUR_GIB // PAGE - 4, FOUR_GIB // PAGE + 4),
    st.integers(0, 600),
)
_ENTRIES = st.lists(
    st.builds(
        lambda page, pages, policy: RdmEntry(page * PAGE, pages * PAGE, policy),
        _PAGES,
        st.integers(1, 4096) | st.integers(1, GIB // PAGE),
        st.sampled_from(["strict", "relaxed"]),
    ),
    max_size=12,
)
_SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "kind": st.sampled_from(["hvm", "pvh"]),
        "boundary": st.integers(0, 4096).map(lambda mib: mib * MIB),
        "mmio_hole": st.integers(256, 3840).map(lambda mib: mib * MIB),
        "hap": st.booleans(),
    },
)
_SIZE = st.integers(2, 8192).map(lambda mib: mib * MIB) | st.integers(512, 2 << 20).map(
    lambda pages: pages * PAGE
)


def _try(size: int, entries: list[RdmEntry], settings: dict[str, Any]) -> MemoryLayout | str:
    try:
        return lay_out(size, entries, **settings)
    except ToolstackError as error:
        return str(error)


@given(_SIZE, _ENTRIES | _ENTRIES.map(_relaxed), _SETTINGS)
def test_any_layout_keeps_its_promises(
    size: int, entries: list[RdmEntry], settings: dict[str, Any]
) -> None:
    layout = _try(size, entries, settings)
    if isinstance(layout, str):
        return
    assert layout.ram_size == size
    ram = [(0, layout.lowmem_end)]
    ram += [(FOUR_GIB, layout.highmem_end)] if layout.highmem_end else []
    for entry in layout.exposed:
        assert all(entry.end <= start or end <= entry.start for start, end in ram)
    assert layout.lowmem_end <= layout.mmio_start
    assert sorted(map(str, (*layout.exposed, *layout.hidden))) == sorted(map(str, entries))
    assert all(entry.policy == "relaxed" for entry in layout.hidden)
    assert len(layout.warnings) == len(layout.hidden)
    known = layout.memory_map()
    assert all(one.size > 0 for one in known)
    assert all(one.start % PAGE == one.size % PAGE == 0 for one in known)
    assert all(before.end <= after.start for before, after in pairwise(known))
    low = 0 if layout.kind == "pvh" else MIB
    assert sum(one.size for one in known if one.type is MapType.RAM) == size - low
    for entry in layout.exposed:
        assert any(
            one.type is MapType.RESERVED and one.start <= entry.start and entry.end <= one.end
            for one in known
        )


@given(_SIZE, _ENTRIES, _SETTINGS)
def test_a_failure_names_a_strict_region_that_relaxed_would_hide(
    size: int, entries: list[RdmEntry], settings: dict[str, Any]
) -> None:
    failure = _try(size, entries, settings)
    relaxed = _try(size, _relaxed(entries), settings)
    if not isinstance(failure, str):
        return
    if isinstance(relaxed, str):
        assert "bytes of RAM below the MMIO hole" in relaxed
        return
    hidden = {str(entry) for entry in relaxed.hidden}
    named = [str(e) for e in entries if e.policy == "strict" and str(e) in hidden]
    assert any(name in failure for name in named)
