"""The guests of the real-Xen tier, unchanged, on Unicorn with the real `ioreqd-dm`.

Left out: bios.h and what includes it (hvmloader starts those), and the guests that talk to a
toolstack by xenstore (probe.c, vcpus.c, ends.c in its last way), which nobody plays here.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.prototype.guest_build import build_guest

from .running import Running

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing")
pytest.importorskip("unicorn")

Launch = Callable[..., Running]

XEN = Path(__file__).parent.parent / "xen"
SHAPE = ("--device", f"{XEN}/devices/shape_device.py:ShapeDevice")
CARD = ("--device", f"{XEN}/devices/card.py:Card,addr=10")
EDU = ("--device", "edu")
OTHERS = tuple(
    word
    for name in ("mmio_only.py:MmioOnly", "port_only.py:PortOnly")
    for word in ("--device", f"{XEN}/devices/{name}")
)
LINE = r"^\(d1\) "
PASS = rf"{LINE}GUEST PASS$"


@pytest.fixture
def boot(launch: Launch, tmp_path: Path) -> Callable[..., Running]:
    """Build a guest with macros and start it: ``boot("soft", *words, RESETS=1)``."""

    def start(name: str, *words: str, **defines: int) -> Running:
        target = tmp_path / f"{name}.elf"
        build_guest(XEN / "guests" / f"{name}.c", target, defines, [XEN / "guests"], warnings=True)
        command = ("run", "--engine", "unicorn", "--memory", "32", "--serial", "null")
        return launch(*command, "--kernel", str(target), *words)

    return start


def wrong(running: Running) -> list[str]:
    """The checks that failed, and what the device model complains about."""
    bad = ("FAIL", "Traceback", "crashed")
    return [line for line in running.stderr.splitlines() if any(word in line for word in bad)]


def to_its_end(running: Running) -> None:
    """The guest powers itself off after its verdict."""
    assert running.wait() == 0, running.stderr
    assert wrong(running) == []
    assert "GUEST PASS" in running.stderr


def until(running: Running, *patterns: str) -> None:
    """The guest says all this and stays until it is ended."""
    for pattern in patterns:
        running.wait_for(pattern)
    running.signal(15)
    assert running.wait() == 143
    assert wrong(running) == []


def test_hello(boot: Callable[..., Running]) -> None:
    to_its_end(boot("hello"))


def test_count(boot: Callable[..., Running]) -> None:
    running = boot("count", *EDU, LAST=5)
    to_its_end(running)
    assert "ROUND 5 count 50" in running.stderr


@pytest.mark.parametrize("where", [(), ("--in-process",)], ids=["two-processes", "one"])
def test_soft_resets_in_a_row(boot: Callable[..., Running], where: tuple[str, ...]) -> None:
    running = boot("soft", *EDU, *where, RESETS=3)
    until(running, f"{LINE}RESET 3 count 15$", PASS, f"{LINE}GUEST waits$")


def test_every_shape_of_request(boot: Callable[..., Running]) -> None:
    running = boot("shapes", *SHAPE, *CARD)
    until(running, f"{LINE}section card$", PASS)


def test_every_shape_of_request_in_one_process(boot: Callable[..., Running]) -> None:
    running = boot("shapes", *SHAPE, *CARD, "--in-process")
    until(running, f"{LINE}section card$", PASS)


@pytest.mark.parametrize("vcpus", [1, 2, 4])
def test_several_vcpus(boot: Callable[..., Running], vcpus: int) -> None:
    running = boot("smp", *SHAPE, *EDU, "--vcpus", str(vcpus), VCPUS=vcpus)
    to_its_end(running)
    assert f"GUEST {vcpus} vCPUs" in running.stderr


def test_a_users_devices(boot: Callable[..., Running]) -> None:
    to_its_end(boot("card", *CARD, *OTHERS))


@pytest.mark.parametrize("how", range(4), ids=["keyboard", "reset-control", "port-92", "sleep"])
def test_a_guest_ends_itself(boot: Callable[..., Running], how: int) -> None:
    running = boot("ends", HOW=how)
    assert running.wait() == 0, running.stderr
    assert wrong(running) == []
    assert "GUEST start" in running.stderr
