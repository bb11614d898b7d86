"""The smallest thing that must work: a guest of ours starts, sees the machine and ends."""

from __future__ import annotations

from collections.abc import Callable

from .support import Guest, Host


def test_a_guest_sees_the_machine_and_powers_off(
    host: Host, make_guest: Callable[..., Guest]
) -> None:
    guest = make_guest("hello", firmware=host.firmware("hello"))
    guest.create()
    guest.wait_for("GUEST start")
    guest.wait_pass()
    guest.wait_gone()
