"""`ioreqd run`: a guest and its device model on the stand-alone hypervisor, no Xen needed."""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from devices.catalog import DRIVERS
from dm.control.argv_report import user_device
from dm.errors import ConfigError
from tools.prototype.plan import Plan

__all__ = ["HELP", "configure", "run"]

HELP = "run a guest against devices of yours, with no Xen at all"

END_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
END_PATIENCE = 5.0
"""Seconds for an end in order."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--device",
        action="append",
        default=[],
        metavar="PATH.py:Class[,option=value…]",
        help="a device, as ioreqd-dm's -device takes it; can be given several times",
    )
    guest = parser.add_argument_group(
        "the guest", "without one, the devices' registers are shown"
    ).add_mutually_exclusive_group()
    guest.add_argument("--kernel", type=Path, help="a guest: ELF file, flat image, or C source")
    guest.add_argument("--bios", type=Path, help="a firmware image, entered at the reset vector")
    guest.add_argument("--script", type=Path, help="Python that makes the accesses itself")
    parser.add_argument("--append", default="", metavar="TEXT", help="the kernel's command line")
    parser.add_argument(
        "--engine",
        choices=("auto", "kvm", "unicorn"),
        default="auto",
        help="what runs the guest's code; kvm has I/O APIC pins 0 to 23 only, Xen and unicorn 48",
    )
    parser.add_argument("--vcpus", type=int, default=1)
    parser.add_argument("--memory", type=int, default=64, metavar="MIB", help="guest RAM")
    parser.add_argument("--serial", default="stdio", metavar="CHARDEV", help="where COM1 goes")
    parser.add_argument("--in-process", action="store_true", help="no second process: faster")
    parser.add_argument(
        "--supervise", action="store_true", help="start the device model again whenever it ends"
    )
    seeing = parser.add_argument_group("seeing what happens")
    seeing.add_argument(
        "--trace",
        nargs="?",
        const="-",
        metavar="FILE",
        help="each access by register name, to standard error or FILE; .json: for ui.perfetto.dev",
    )
    seeing.add_argument("--trace-device", metavar="NAME", help="only this device")
    seeing.add_argument("--trace-register", metavar="NAME", help="only this register")
    seeing.add_argument("--trace-direction", choices=("read", "write"))
    seeing.add_argument("--record", metavar="FILE", help="everything, for `ioreqd replay`")
    seeing.add_argument(
        "--suggest", nargs="?", const="-", metavar="FILE", help="a skeleton of what is missing"
    )
    seeing.add_argument(
        "--stop-on-error", action="store_true", help="a debugger where a device fails"
    )
    seeing.add_argument(
        "--no-reload", action="store_true", help="do not load a device's file again when it changes"
    )
    parser.add_argument("extra", nargs="*", metavar="-- WORD", help="further words for ioreqd-dm")


def run(arguments: argparse.Namespace) -> int:
    """Run the guest to its end; its exit status is the guest's."""
    plan = plan_of(arguments)
    from tools.prototype.run import Run

    ending = _Ending()
    with Run(plan) as running:
        ending.at_once = running.kill
        running.start()
        return running.wait()


class _Ending:
    """What signals do: the first ends everything in order, and not for long; a second at once."""

    def __init__(self) -> None:
        self.at_once: Callable[[], object] = lambda: None
        self._status = 0
        for number in END_SIGNALS:
            signal.signal(number, self._first)

    def _first(self, number: int, frame: FrameType | None) -> None:
        self._status = 128 + number
        for each in (*END_SIGNALS, signal.SIGALRM):
            signal.signal(each, self._again)
        # A device in this process may never return, with the lock that ending in order needs.
        signal.setitimer(signal.ITIMER_REAL, END_PATIENCE)
        raise SystemExit(self._status)

    def _again(self, number: int, frame: FrameType | None) -> None:
        self.at_once()
        os._exit(self._status)


def plan_of(arguments: argparse.Namespace) -> Plan:
    """What the arguments ask for. ConfigError for what cannot be."""
    for path in (arguments.kernel, arguments.bios, arguments.script):
        if path is not None and not path.is_file():
            reason = "it is not a file" if path.exists() else "there is no such file"
            raise ConfigError(f"{path}: {reason}")
    for device in arguments.device:
        _check_device(device)
    if not 1 <= arguments.vcpus <= 128:
        raise ConfigError(f"--vcpus {arguments.vcpus}: 1 to 128 are possible")
    if not 1 <= arguments.memory <= 1 << 20:
        raise ConfigError(f"--memory {arguments.memory}: 1 MiB to 1 TiB are possible")
    guest = arguments.kernel or arguments.bios
    if not (guest or arguments.script or arguments.device):
        raise ConfigError("nothing to run: --kernel, --bios or --script, or a --device to look at")
    if arguments.append and arguments.kernel is None:
        raise ConfigError("--append is a kernel's command line: say --kernel, too")
    if arguments.extra and not arguments.extra[0].startswith("-"):
        raise ConfigError(f"{arguments.extra[0]}: what is it? ioreqd-dm's words come after --")
    if arguments.in_process and not guest:
        raise ConfigError("--in-process is for guests; `pytest` runs scripts in one process")
    return Plan(
        devices=tuple(arguments.device),
        kernel=arguments.kernel,
        bios=arguments.bios,
        script=arguments.script,
        append=arguments.append,
        engine=arguments.engine,
        vcpus=arguments.vcpus,
        memory_mib=arguments.memory,
        serial=arguments.serial,
        observe=tuple(_observations(arguments)),
        supervise=arguments.supervise,
        in_process=arguments.in_process,
        extra=tuple(arguments.extra),
    )


def _check_device(text: str) -> None:
    """A toolstack's guest starts without what is not modelled; a prototype has no point then."""
    driver = text.partition(",")[0]
    if driver not in DRIVERS and user_device(driver) is None:
        known = ", ".join(sorted(DRIVERS))
        raise ConfigError(
            f"--device {driver}: neither FILE.py:CLASS, package.module:CLASS nor one of {known}"
        )


def _observations(arguments: argparse.Namespace) -> list[str]:
    """Values of ioreqd-dm's `-observe`."""
    options = []
    if arguments.trace is not None:
        words = [f"trace={arguments.trace}"]
        for key in ("device", "register", "direction"):
            value = getattr(arguments, f"trace_{key}")
            if value is not None:
                words.append(f"{key}={value}")
        options.append(",".join(words))
    elif arguments.trace_device or arguments.trace_register or arguments.trace_direction:
        raise ConfigError("--trace-… chooses what --trace prints: say --trace, too")
    for key in ("record", "suggest"):
        value = getattr(arguments, key)
        if value is not None:
            options.append(f"{key}={value}")
    if arguments.stop_on_error:
        options.append("stop-on-error=on")
    if not arguments.no_reload and any(".py:" in device for device in arguments.device):
        options.append("reload=on")
    return options
