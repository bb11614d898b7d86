"""Every shape of request that a guest can make, each value checked in the guest (guests/shapes.c).

One guest makes them all against a user's device and a user's PCI card; each test looks at one part
of what it has printed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from .support import COMMON, Guest, Host

SECTIONS = (
    "ports",
    "port strings",
    "MMIO registers",
    "MMIO instructions",
    "MMIO of 8 bytes",
    "MMIO edges",
    "MMIO strings",
    "buffered",
    "ballooning",
    "configuration",
    "ISA interrupt",
    "card",
)
TIMEOUT = 240.0
RING_LENGTH = 511


class Run:
    """What the guest printed, by section, and what its device model counted."""

    def __init__(self, lines: list[str], statistics: str) -> None:
        self.lines = lines
        self.statistics = statistics

    def section(self, name: str) -> list[str]:
        """The lines of a section, from its heading to the next one's."""
        start = self.lines.index(f"section {name}")
        ends = (i for i in range(start + 1, len(self.lines)) if self._ends(self.lines[i]))
        return self.lines[start : next(ends, len(self.lines))]

    @staticmethod
    def _ends(line: str) -> bool:
        return line.startswith(("section ", "GUEST "))

    def count(self, name: str) -> int:
        """A number of the device model's statistics."""
        match = re.search(rf"^{name} (\d+)\s*$", self.statistics, re.MULTILINE)
        assert match is not None, self.statistics
        return int(match[1])


@pytest.fixture(scope="module")
def run(booted_host: Host) -> Iterator[Run]:
    """One life of the guest."""
    host = booted_host
    shape = host.provide(COMMON / "devices" / "shape_device.py")
    card = host.provide(COMMON / "devices" / "card.py")
    devices = ["-device", f"{shape}:ShapeDevice", "-device", f"{card}:Card"]
    guest = Guest(
        host,
        host.unique("shapes"),
        firmware=host.firmware("shapes"),
        extra={"device_model_args_hvm": devices},
    )
    try:
        guest.create()
        host.lab.wait_log(rf"\(d{guest.domid}\) (\[.*\] )?GUEST (PASS|FAIL)", TIMEOUT)
        monitor = host.xl("qemu-monitor-command", guest.name, "info ioreq")
        yield Run(guest.lines(), monitor.stdout)
    except (TimeoutError, AssertionError) as error:
        pytest.fail("\n".join([str(error), *(text for _, text in guest.evidence())]))
    finally:
        guest.end()


@pytest.mark.parametrize("section", SECTIONS)
def test_each_value_is_right(run: Run, section: str) -> None:
    wrong = [line for line in run.section(section) if line.startswith("FAIL")]
    assert not wrong


def test_the_guest_comes_to_its_end(run: Run) -> None:
    assert [line for line in run.lines if line.startswith("section ")] == [
        f"section {name}" for name in SECTIONS
    ]
    assert run.lines[-1] == "GUEST PASS"


def test_no_device_raises_and_no_request_is_unknown(run: Run) -> None:
    assert run.count("device errors") == 0
    assert run.count("unknown") == 0


def test_writes_to_the_vga_window_come_through_the_ring(run: Run) -> None:
    assert run.count("buffered") > RING_LENGTH
    assert run.count("ring corrupt") == 0
