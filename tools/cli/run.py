"""`ioreqd run`: a guest and its device model on the stand-alone hypervisor, no Xen needed."""

from __future__ import annotations

import argparse
from pathlib import Path

from dm.errors import ConfigError
from tools.prototype.plan import Plan

__all__ = ["HELP", "configure", "run"]

HELP = "run a guest against devices of yours, with no Xen at all"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--device",
        action="append",
        default=[],
        metavar="PATH.py:Class[,option=value…]",
        help="a device, as ioreqd-dm's -device takes it; can be given several times",
    )
    guest = parser.add_mutually_exclusive_group(required=True)
    guest.add_argument("--kernel", type=Path, help="a guest: ELF file, flat image, or C source")
    guest.add_argument("--bios", type=Path, help="a firmware image, entered at the reset vector")
    guest.add_argument("--script", type=Path, help="Python that makes the accesses itself")
    parser.add_argument("--append", default="", metavar="TEXT", help="the kernel's command line")
    parser.add_argument("--engine", choices=("auto", "kvm", "unicorn"), default="auto")
    parser.add_argument("--vcpus", type=int, default=1)
    parser.add_argument("--memory", type=int, default=64, metavar="MIB", help="guest RAM")
    parser.add_argument("--serial", default="stdio", metavar="CHARDEV", help="where COM1 goes")
    parser.add_argument("--in-process", action="store_true", help="no second process: faster")
    parser.add_argument(
        "--supervise", action="store_true", help="start the device model again when it dies"
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

    with Run(plan) as running:
        running.start()
        return running.wait()


def plan_of(arguments: argparse.Namespace) -> Plan:
    """What the arguments ask for. ConfigError for what cannot be."""
    for path in (arguments.kernel, arguments.bios, arguments.script):
        if path is not None and not path.is_file():
            raise ConfigError(f"{path}: there is no such file")
    if not 1 <= arguments.vcpus <= 128:
        raise ConfigError(f"--vcpus {arguments.vcpus}: 1 to 128 are possible")
    if not 1 <= arguments.memory <= 1 << 20:
        raise ConfigError(f"--memory {arguments.memory}: 1 MiB to 1 TiB are possible")
    if arguments.in_process and arguments.script is not None:
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
