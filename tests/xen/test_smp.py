"""Several vCPUs make requests at the same time, to different devices: every answer is right."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .support import COMMON, Guest, Host


@pytest.mark.parametrize("vcpus", [1, 2, 4])
def test_every_vcpu_gets_its_own_answers(
    host: Host, make_guest: Callable[..., Guest], vcpus: int
) -> None:
    shape = host.provide(COMMON / "devices" / "shape_device.py")
    guest = make_guest(
        "smp",
        firmware=host.firmware("smp", VCPUS=vcpus),
        vcpus=vcpus,
        extra={"device_model_args_hvm": ["-device", f"{shape}:ShapeDevice", "-device", "edu"]},
    )
    guest.create()
    guest.wait_for(rf"^GUEST {vcpus} vCPUs$")
    guest.wait_pass(timeout=240)
    guest.wait_gone()
