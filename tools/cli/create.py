"""`ioreqd create` and `ioreqd restore`: a guest of an xl.cfg, kept by a process of its own."""

from __future__ import annotations

import argparse
from pathlib import Path

from tools.cli.life import add_run_dir, dump_folder, errors, open_places, warn

__all__ = ["HELP", "add_common", "configure", "create_plan", "folders", "run"]

HELP = "start a guest from an xl.cfg; the command returns when it runs"


def add_common(parser: argparse.ArgumentParser) -> None:
    """Declare what create and restore have in common."""
    from tools.hypervisor.engines.choose import ENGINES

    add = parser.add_argument
    add("-p", "--paused", action="store_true", help="leave the guest paused")
    add("-c", "--console", action="store_true", help="attach to its console")
    add("-F", "--foreground", action="store_true", help="stay until the guest is gone")
    add("-q", "--quiet", action="store_true", help="print nothing when all is well")
    add(
        "--engine",
        choices=ENGINES,
        default="auto",
        help="what runs the guest's code; kvm has I/O APIC pins 0 to 23 only, Xen and unicorn 48",
    )
    add("--dump-dir", type=Path, metavar="DIR", help=f"where cores go (default: {dump_folder()})")
    add_run_dir(parser)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add("config", type=Path, metavar="CONFIG", help="the guest's configuration, as for xl create")
    add("assignments", nargs="*", metavar="KEY=VALUE", help="settings after those of the file")
    add("-n", "--dry-run", action="store_true", help="only check the configuration")
    add_common(parser)


def run(arguments: argparse.Namespace) -> int:
    """Create the guest."""
    from tools.toolstack.builder import image_of
    from tools.toolstack.life.places import check_name
    from tools.toolstack.life.plan import Plan
    from tools.toolstack.memory_layout import layout_of
    from tools.toolstack.xlcfg import read_source

    with errors():
        config, text = read_source(arguments.config, warn, arguments.assignments)
        check_name(config.name)
        image_of(config, layout_of(config))
        if arguments.dry_run:
            return 0
        logs, dumps = folders(arguments)
        return create_plan(arguments, Plan(config, text, logs, dumps))


def folders(arguments: argparse.Namespace) -> tuple[Path, Path]:
    """Where logs and cores go."""
    logs = open_places(arguments).folder / "log"
    return logs, (arguments.dump_dir or dump_folder()).absolute()


def create_plan(arguments: argparse.Namespace, plan: object) -> int:
    """Create the guest of a plan as the arguments ask for it. ToolstackError, HostFailure."""
    from tools.toolstack.errors import ToolstackError
    from tools.toolstack.life.create import create, create_here
    from tools.toolstack.life.plan import Plan

    assert isinstance(plan, Plan)
    if arguments.foreground and arguments.console:
        raise ToolstackError("-F and -c do not go together")
    # With its console attached, the guest begins when nothing of it can be missed.
    plan.engine, plan.paused = arguments.engine, arguments.paused or arguments.console
    places = open_places(arguments)

    def started(domid: int) -> None:
        if not arguments.quiet:
            print(f"domain {domid}, {plan.config.name}", flush=True)

    if arguments.foreground:
        create_here(places, plan, started)
        return 0
    domid = create(places, plan)
    started(domid)
    if arguments.console:
        from tools.cli.domains import attach
        from tools.toolstack.life.control import ask

        place = places.find(str(domid))

        def attached() -> None:
            if not arguments.paused:
                ask(place.control, "unpause")

        attach(place, attached)
    return 0
