"""The device model's process ends while its guest makes requests (guests/hammer.c)."""

from __future__ import annotations

import signal
from collections.abc import Callable

from .support import COMMON, Guest, Host

ROUND = r"^round \d+$"
STEP = 20
"""Rounds from one of the guest's lines to the next."""
PATIENCE = 60.0
"""Seconds for a guest's next line, on a machine that has more to do."""
DEADLINE = 2.0
"""Seconds from SIGHUP to the end of the process."""


def start(host: Host, make_guest: Callable[..., Guest], *, may_go: bool = False) -> Guest:
    """A guest that makes requests, under way."""
    shape = host.provide(COMMON / "devices" / "shape_device.py")
    guest = make_guest(
        "death",
        firmware=host.firmware("hammer", MAY_GO=int(may_go)),
        vcpus=1 if may_go else 2,
        extra={"device_model_args_hvm": ["-device", f"{shape}:ShapeDevice"]},
    )
    guest.create()
    guest.wait_for(ROUND, PATIENCE)
    return guest


def rounds(guest: Guest) -> list[int]:
    """What the guest has counted, as far as it has told."""
    return [int(line.split()[1]) for line in guest.lines() if line.startswith("round ")]


def end(host: Host, guest: Guest, number: signal.Signals) -> float:
    """Send a signal to the guest's device model; gives the seconds to its end."""
    return float(host.dom0_python("model", "end", str(guest.pid), str(int(number))).stdout)


def start_again(host: Host, guest: Guest) -> int:
    """Kill the device model and start its command line again by hand; gives the process id."""
    return int(host.dom0_python("model", "again", str(guest.domid), str(guest.pid)).stdout)


def test_a_guest_whose_device_model_was_killed_can_be_destroyed(
    host: Host, make_guest: Callable[..., Guest]
) -> None:
    before = host.residue()
    guest = start(host, make_guest)
    end(host, guest, signal.SIGKILL)
    guest.destroy()
    # The state that it kept for a successor goes when the next device model looks around.
    kept = f"file /run/xen/ioreqd-{guest.domid}.state"
    host.wait_residue(sorted([*before, kept]))
    start(host, make_guest).destroy()
    host.wait_residue(before)


def test_a_device_model_started_by_hand_takes_over_and_the_guest_sees_nothing(
    host: Host, make_guest: Callable[..., Guest]
) -> None:
    before = host.residue()
    guest = start(host, make_guest)
    kills = 3
    for _ in range(kills):
        pid = start_again(host, guest)
        assert guest.pid == pid
        guest.wait_for(rf"^round {rounds(guest)[-1] + 2 * STEP}$", PATIENCE)
        assert len(host.servers(guest.domid)) == 1
    told = [line for line in guest.lines() if not line.startswith(("round ", "GUEST start"))]
    # Of each vCPU, a write that was being executed when the process died is not repeated.
    assert len(told) <= 2 * kills
    assert all(line.startswith("lost at ") for line in told)
    counted = rounds(guest)
    assert counted == [STEP * number for number in range(1, len(counted) + 1)]
    guest.destroy()
    host.wait_residue(before)


def test_sighup_ends_the_process_answers_every_slot_and_destroys_the_server(
    host: Host, make_guest: Callable[..., Guest]
) -> None:
    before = host.residue()
    guest = start(host, make_guest, may_go=True)
    assert end(host, guest, signal.SIGHUP) < DEADLINE
    guest.wait_for(r"^gone at \d+$", PATIENCE)
    guest.wait_for(r"^alone \d+$", PATIENCE)
    assert host.servers(guest.domid) == []
    guest.wait_for(r"^alone \d+$", PATIENCE)
    guest.destroy()
    host.wait_residue(before)
