"""Save and restore: a guest that counts through its devices, and surveys them, sees nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from .support import Guest, Host

MakeGuest = Callable[..., Guest]

EDU = ["-device", "edu"]
MOVING = {"guest time", "cmos", "serial0", "edu0", "i8042", "pci-host", "fw-cfg"}
"""What differs between two saves of guests/count.c: counts, timers, where its survey was."""


def state(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `ioreqd state` on this machine."""
    command = [sys.executable, "-m", "tools.cli.main", "state", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def rounds(guest: Guest, count: int) -> int:
    """Wait for ``count`` rounds of the survey without a difference; gives the last one's number."""
    number = 0
    for _ in range(count):
        number = int(guest.wait_for(r"^ROUND (\d+) ", 60)[1])
    return number


def sums(host: Host, domid: int) -> set[tuple[str, str]]:
    """The checksums of each device's registers that a guest printed, as (device, sum)."""
    found = [re.match(r"SUM \w+ (\w+) (\w+)$", line) for line in host.log.lines(domid)]
    return {(match[1], match[2]) for match in found if match}


def counting_guest(host: Host, make_guest: MakeGuest, **settings: int) -> Guest:
    return make_guest(
        "count",
        firmware=host.firmware("count", **settings),
        extra={"device_model_args_hvm": EDU},
    )


def test_a_restored_guest_finds_every_register_as_it_was(host: Host, make_guest: MakeGuest) -> None:
    before = host.residue()
    guest = counting_guest(host, make_guest, LAST=8)
    guest.create()
    saved_round = rounds(guest, 1)
    first, pid = guest.domid, guest.pid
    guest.save("/tmp/one.sav")
    host.wait_residue(before)

    guest.restore("/tmp/one.sav")
    assert guest.domid != first
    assert guest.pid != pid
    assert rounds(guest, 1) == saved_round + 1
    guest.save("/tmp/two.sav")
    guest.restore("/tmp/two.sav")
    guest.wait_pass()
    guest.wait_gone()
    host.wait_residue(before)
    seen = {pair for domid in range(first, guest.domid + 1) for pair in sums(host, domid)}
    assert len(seen) == len({device for device, _ in seen}) == 11


def test_a_guest_that_is_saved_with_c_goes_on(host: Host, make_guest: MakeGuest) -> None:
    guest = counting_guest(host, make_guest)
    guest.create()
    rounds(guest, 1)
    domid, pid = guest.domid, guest.pid
    for number in range(2):
        guest.save(f"/tmp/kept{number}.sav", "-c")
        assert guest.follow() == domid
        assert guest.pid == pid
        rounds(guest, 2)
    guest.destroy()

    guest.restore("/tmp/kept0.sav")
    rounds(guest, 2)
    guest.destroy()

    host.run("mv /tmp/kept0.sav /tmp/kept1.sav /share/")
    shown = state("show", host.share / "kept0.sav")
    assert shown.returncode == 0, shown.stderr
    for device in ("pci-host", "piix4-pm", "cmos", "i8042", "serial0", "fw-cfg", "edu0"):
        assert re.search(rf"^{device}: ", shown.stdout, re.MULTILINE), shown.stdout
    assert state("diff", host.share / "kept0.sav", host.share / "kept0.sav").returncode == 0
    changed = state("diff", host.share / "kept0.sav", host.share / "kept1.sav")
    assert changed.returncode == 1, changed.stderr
    assert re.search(r"^serial0\.ports\.scr: ", changed.stdout, re.MULTILINE), changed.stdout
    assert {re.split("[.:]", line)[0] for line in changed.stdout.splitlines()} <= MOVING
    for number in range(2):
        (host.share / f"kept{number}.sav").unlink()


def test_a_saved_guest_can_be_restored_paused(host: Host, make_guest: MakeGuest) -> None:
    guest = counting_guest(host, make_guest)
    guest.create()
    rounds(guest, 1)
    guest.save("/tmp/paused.sav", "-p")
    assert "p" in host.xl("list", guest.name).stdout.splitlines()[1].split()[4]
    host.xl("unpause", guest.name)
    rounds(guest, 1)
    guest.destroy()
    guest.restore("/tmp/paused.sav", "-p")
    assert guest.lines() == []
    host.xl("unpause", guest.name)
    rounds(guest, 1)


def test_the_configuration_address_is_kept(host: Host, make_guest: MakeGuest) -> None:
    """Xen forgets the address that it saw at 0xcf8, so accesses to 0xcfc come undecoded then."""
    guest = make_guest("latch", firmware=host.firmware("latch"))
    guest.create()
    rounds(guest, 1)
    guest.save("/tmp/latch.sav")
    guest.restore("/tmp/latch.sav")
    rounds(guest, 2)
