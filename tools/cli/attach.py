"""`ioreqd attach`: adds devices to a running guest, beside the device model that it has."""

from __future__ import annotations

import argparse

from dm.control.argv_values import record
from dm.errors import ConfigError

__all__ = ["HELP", "configure", "run"]

HELP = "add devices to a running HVM guest, beside its own device model"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("domain", type=int, metavar="DOMID", help="the guest's domain id")
    parser.add_argument(
        "--device",
        action="append",
        required=True,
        metavar="PATH.py:Class[,option=value…]",
        help="a device, as ioreqd-dm's -device takes it; can be given several times",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve the devices until a signal comes or the domain ends; then exit status 0."""
    from dm.control.attachment import Attachment
    from dm.control.signals import end_on_signals
    from dm.hypervisor.xen.hypervisor import XenHypervisor
    from dm.server.loop import Loop

    devices = []
    for text in arguments.device:
        options = record("device", text, "driver")
        driver = options.pop("driver", "")
        if not driver:
            raise ConfigError(f"--device {text}: no device is named")
        devices.append((driver, options))
    loop = Loop()
    attachment = Attachment(loop, XenHypervisor(arguments.domain), devices)
    end_on_signals(loop, attachment.quit)
    try:
        attachment.open()
        print(f"ready: {len(devices)} device(s) in domain {arguments.domain}", flush=True)
        attachment.run()
    finally:
        attachment.close()
    return 0
