"""Soft reset: the same domain goes on with a new device model, its devices as they were."""

from __future__ import annotations

from collections.abc import Callable

from .support import Guest, Host

MakeGuest = Callable[..., Guest]

EDU = ["-device", "edu"]


def per_guest(residue: list[str]) -> list[str]:
    """The residue without processes, whose numbers differ."""
    return [entry for entry in residue if not entry.startswith("process")]


def test_a_soft_reset_guest_goes_on_with_a_new_device_model(
    host: Host, make_guest: MakeGuest
) -> None:
    before = host.residue()
    firmware = host.firmware("soft", RESETS=1)
    guest = make_guest("soft", firmware=firmware, extra={"device_model_args_hvm": EDU})
    guest.create("-p")
    domid, pid = guest.domid, guest.pid
    running = host.residue()
    assert host.servers(domid) == [0]
    host.xl("unpause", guest.name)
    guest.wait_pass()
    guest.wait_for("GUEST waits")

    assert guest.follow() == domid
    assert guest.pid != pid
    assert host.run(["test", "-e", f"/proc/{pid}"], check=False).status == 1
    assert host.servers(domid) == [0]
    assert per_guest(host.residue()) == per_guest(running)
    assert len(host.residue()) == len(running)
    guest.destroy()
    host.wait_residue(before)


def test_ten_soft_resets_in_a_row(host: Host, make_guest: MakeGuest) -> None:
    before = host.residue()
    firmware = host.firmware("soft", RESETS=10)
    guest = make_guest("ten", firmware=firmware, extra={"device_model_args_hvm": EDU})
    guest.create()
    domid = guest.domid
    for number in range(1, 11):
        guest.wait_for(f"^RESET {number} count {5 * number}$", 60)
    guest.wait_pass()
    assert guest.follow() == domid
    assert host.servers(domid) == [0]
    guest.destroy()
    host.wait_residue(before)
