"""Reserved device memory: which entries a guest has, by which policy, and how a file says them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.toolstack.errors import ToolstackError
from tools.toolstack.rdm import (
    PAGE,
    Double,
    RdmEntry,
    ReservedRegion,
    parse_region,
    rdm_entries,
    read_regions,
)
from tools.toolstack.xlcfg import PciDevice, RdmPolicy, RdmStrategy

_A, _B = "0000:01:00.0", "0000:02:00.0"
_DEVICE_A, _DEVICE_B = PciDevice(bus=1), PciDevice(bus=2)
_REGIONS = (
    ReservedRegion(0x1000, PAGE),
    ReservedRegion(0x2000, PAGE, frozenset([_A])),
    ReservedRegion(0x3000, 2 * PAGE, frozenset([_A, _B])),
    ReservedRegion(0x9000, PAGE, frozenset([_B])),
)


def _entries(
    *devices: PciDevice,
    strategy: RdmStrategy = "ignore",
    policy: RdmPolicy = "relaxed",
    double: Double = "stricter",
) -> dict[int, str]:
    entries = rdm_entries(
        _REGIONS, strategy=strategy, policy=policy, devices=devices, double=double
    )
    assert len({entry.start for entry in entries}) == len(entries)
    return {entry.start: entry.policy for entry in entries}


def test_s9_2_nothing_is_reserved_without_strategy_and_devices() -> None:
    assert _entries() == {}


def test_seed_003_devices_count_even_if_the_hosts_regions_are_ignored() -> None:
    """The posting of 2015 returned before it looked at the devices; §9.2 does not."""
    assert _entries(_DEVICE_B) == {0x3000: "strict", 0x9000: "strict"}


@pytest.mark.parametrize("policy", ["strict", "relaxed"])
def test_s9_2_strategy_host_takes_every_region_with_the_global_policy(policy: RdmPolicy) -> None:
    entries = rdm_entries(_REGIONS, strategy="host", policy=policy, devices=())
    assert entries == tuple(RdmEntry(one.start, one.size, policy) for one in _REGIONS)


def test_s9_2_every_entry_of_a_device_counts() -> None:
    """The posting read ``xrdm[0]`` only; so did Xen 4.6 to 4.13."""
    assert list(_entries(_DEVICE_A)) == [0x2000, 0x3000]


def test_s9_4_what_follows_a_shared_entry_is_not_lost() -> None:
    """Xen 4.6 to 4.13 kept one flag for all of a device's entries."""
    assert list(_entries(_DEVICE_A, _DEVICE_B)) == [0x2000, 0x3000, 0x9000]


def test_seed_003_a_devices_entry_is_stored_in_its_own_place() -> None:
    """The posting wrote one past the end: the first was uninitialised, the last outside."""
    entries = rdm_entries(_REGIONS, strategy="ignore", policy="relaxed", devices=[_DEVICE_B])
    assert entries == (RdmEntry(0x3000, 2 * PAGE, "strict"), RdmEntry(0x9000, PAGE, "strict"))


def test_seed_003_each_device_has_its_own_policy() -> None:
    relaxed = PciDevice(bus=2, rdm_policy="relaxed")
    assert _entries(_DEVICE_A, relaxed)[0x2000] == "strict"
    assert _entries(_DEVICE_A, relaxed)[0x9000] == "relaxed"


@pytest.mark.parametrize(
    ("first", "second"), [("strict", "relaxed"), ("relaxed", "strict"), ("strict", "strict")]
)
def test_seed_003_the_stricter_policy_wins_on_double_configuration(
    first: RdmPolicy, second: RdmPolicy
) -> None:
    devices = (PciDevice(bus=1, rdm_policy=first), PciDevice(bus=2, rdm_policy=second))
    assert _entries(*devices)[0x3000] == "strict"
    assert _entries(devices[1], strategy="host", policy=first)[0x9000] == "strict"


def test_seed_003_two_relaxed_policies_are_relaxed() -> None:
    device = PciDevice(bus=1, rdm_policy="relaxed")
    assert _entries(device, strategy="host", policy="relaxed")[0x2000] == "relaxed"


def test_s9_2_libxls_own_rule_can_be_had_the_later_device_wins() -> None:
    device = PciDevice(bus=1, rdm_policy="relaxed")
    assert _entries(device, strategy="host", policy="strict", double="device")[0x2000] == "relaxed"


def test_all_functions_of_a_device_have_their_entries() -> None:
    regions = [ReservedRegion(0x1000 * n, PAGE, frozenset([f"0000:01:00.{n}"])) for n in (1, 7)]
    device = PciDevice(bus=1, all_functions=True)
    entries = rdm_entries(regions, strategy="ignore", policy="strict", devices=[device])
    assert [entry.start for entry in entries] == [0x1000, 0x7000]


def test_a_device_given_by_name_has_the_entries_of_that_name() -> None:
    regions = [ReservedRegion(0x1000, PAGE, frozenset(["gpu"]))]
    device = PciDevice(name="gpu")
    assert rdm_entries(regions, strategy="ignore", policy="strict", devices=[device])


_GOOD_FILE = """
# a comment
0xad800000-0xaf7fffff  0000:00:02.0
0x000ed000-0x000edfff\t00:1a.0 0001:00:1d.7 gpu  # shared
0xe0000000-0xe00fffff
"""


def test_a_file_says_a_region_and_its_devices_a_line(tmp_path: Path) -> None:
    path = tmp_path / "regions"
    path.write_text(_GOOD_FILE)
    assert read_regions(path) == (
        ReservedRegion(0xAD800000, 0x2000000, frozenset(["0000:00:02.0"])),
        ReservedRegion(0xED000, 0x1000, frozenset(["0000:00:1a.0", "0001:00:1d.7", "gpu"])),
        ReservedRegion(0xE0000000, 0x100000),
    )


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("reserved", "0xSTART-0xEND"),
        ("ad800000-af7fffff", "0xSTART-0xEND"),
        ("0x1000 0x1fff", "0xSTART-0xEND"),
        ("0x2000-0x1fff", "ends before"),
        ("0x1000-0x2000", "whole pages"),
        ("0x1800-0x1fff", "whole pages"),
        ("0x1000-0xffffffffffffffff", "52 address bits"),
        ("0x1000-0x1fff 00:20.0", "BUS:DEVICE.FUNCTION"),
        ("0x1000-0x1fff 00:02.*", "BUS:DEVICE.FUNCTION"),
        ("0x1000-0x1fff 00:02.0x", "BUS:DEVICE.FUNCTION"),
        ("0x5000-0x6fff", "already"),
    ],
)
def test_a_bad_line_of_a_file_is_one_readable_line(tmp_path: Path, line: str, part: str) -> None:
    path = tmp_path / "regions"
    path.write_text(f"0x5000-0x5fff\n{line}\n")
    with pytest.raises(ToolstackError) as caught:
        read_regions(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "regions"
    path.write_text("".join(f"0x{n:x}000-0x{n:x}fff\n" for n in range(1025)))
    with pytest.raises(ToolstackError, match=":1025: more than 1024 regions"):
        read_regions(path)
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ToolstackError, match="more than 256 KiB"):
        read_regions(path)
    with pytest.raises(ToolstackError, match="No such file"):
        read_regions(tmp_path / "none")


@given(st.lists(st.text(max_size=30), max_size=3))
def test_any_words_are_a_region_or_one_readable_line(words: list[str]) -> None:
    message = ""
    try:
        parse_region(words)
    except ToolstackError as error:
        message = str(error)
    assert len(message.splitlines()) <= 1
