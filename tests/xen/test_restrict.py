"""dm_restrict=1: everything works, and the device model cannot touch another domain."""

from __future__ import annotations

from collections.abc import Callable
from errno import EACCES, ENOENT, EPERM

import pytest

from .support import COMMON, Guest, Host
from .test_life import WAIT

MakeGuest = Callable[..., Guest]

EDU = ["-device", "edu"]
RANGE_BASE = 131072
"""The user xen-qemuuser-range-base of the laboratory's dom0; a domain's own user is above it."""

ATTEMPTS = {
    "dm_op": {EPERM},
    "map_memory": {EPERM},
    "bind_channel": {EACCES, EPERM},
    "hypercall": {EPERM},
    "open_privcmd": {ENOENT, EACCES},
    "reach_xenstore": {ENOENT, EACCES},
    "become_root": {EPERM},
    "signal_init": {EPERM},
}
"""What devices/prober.py tries, in its order, and how each attempt may end."""


def status(host: Host, pid: int) -> dict[str, str]:
    """The fields of a process's /proc/PID/status."""
    lines = host.run(["cat", f"/proc/{pid}/status"]).stdout.splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def check_confined(host: Host, guest: Guest) -> None:
    """The device model has an unprivileged user of its own and an empty root."""
    fields = status(host, guest.pid)
    assert fields["Uid"].split() == [str(RANGE_BASE + guest.domid)] * 4
    assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0
    root = host.run(["readlink", f"/proc/{guest.pid}/root"]).stdout.strip()
    assert str(guest.domid) in root
    assert root != "/"


def expect_left(host: Host, before: list[str], domids: list[int]) -> None:
    """Nothing is left but what libxl leaves of a restricted guest, QEMU's guests' likewise.

    Those are the empty root that it made for each and the lock of its reaper.
    """
    roots = [f"file /run/xen/qemu-root-{domid}" for domid in domids]
    host.wait_residue(sorted({*before, *roots, "file /run/xen/dm-reaper-lock"}))


def test_a_restricted_guest_is_saved_restored_and_reset_softly(
    host: Host, make_guest: MakeGuest
) -> None:
    before = host.residue()
    extra = {"dm_restrict": 1, "device_model_args_hvm": EDU}
    guest = make_guest("strict", firmware=host.firmware("strict"), extra=extra)
    guest.create("-p")
    check_confined(host, guest)
    host.xl("unpause", guest.name)
    guest.wait_for("^ROUND 1 ")
    guest.save("/tmp/strict.sav")
    first = guest.domid
    expect_left(host, before, [first])

    guest.restore("/tmp/strict.sav")
    check_confined(host, guest)
    domid, pid = guest.domid, guest.pid
    guest.wait_pass()
    guest.wait_for("GUEST waits")
    assert guest.follow() == domid
    assert guest.pid != pid
    check_confined(host, guest)
    guest.destroy()
    expect_left(host, before, [first, domid])


@pytest.mark.parametrize("restricted", [1, 0])
def test_only_a_restricted_device_model_is_kept_from_other_domains(
    host: Host, make_guest: MakeGuest, restricted: int
) -> None:
    victim = make_guest("victim", firmware=host.firmware("ends", HOW=WAIT))
    victim.create("-p")
    device = host.provide(COMMON / "devices" / "prober.py")
    own = victim.domid + 1
    options = f"{device}:Prober,own={own},victim={victim.domid}"
    guest = make_guest(
        "prober",
        firmware=host.firmware("probe"),
        extra={"dm_restrict": restricted, "device_model_args_hvm": ["-device", options]},
    )
    guest.create()
    guest.wait_for("GUEST waits")
    assert guest.domid == own
    results = [int(line.split()[3]) for line in guest.lines() if line.startswith("PROBE")]
    assert results[0] == 0, "the own domain is out of reach, so the attempts prove nothing"
    found = dict(zip(ATTEMPTS, results[1:], strict=True))
    if restricted:
        assert all(found[name] in allowed for name, allowed in ATTEMPTS.items()), found
    else:
        assert set(found.values()) == {0}, found
