"""`ioreqd lab`: builds the laboratory and runs a command in its dom0."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from dm.errors import HostError
from tools.xenlab import DEFAULT_XEN, RELEASES, Lab, build, built, find_release
from tools.xenlab.image import Progress

__all__ = ["HELP", "configure", "run"]

HELP = "a real Xen host in an emulator: build it, run a command in its dom0"

_LAB_FAILED = 125
_TERMINATED = 128 + signal.SIGTERM


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the sub-command's arguments to ``parser``."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    building = actions.add_parser("build", help="build it from Debian packages, unless it is there")
    running = actions.add_parser(
        "run",
        help="boot it and run a command in dom0",
        description="Boot a Xen host and run COMMAND in its dom0 as root, in /share. One word is "
        "text for bash, several are a program and its arguments. The exit status is COMMAND's; 124 "
        "after a time-out, 125 if the laboratory itself failed. SHARE/.lab then holds xen.log "
        "(Xen, hvmloader, what guests write to port 0xe9) and log/ (dom0's /var/log/xen).",
    )
    for command in (building, running):
        command.add_argument(
            "--xen", choices=list(RELEASES), help=f"Xen release (default: {DEFAULT_XEN})"
        )
    building.set_defaults(_action=_build)
    add = running.add_argument
    add("--share", type=Path, metavar="DIR", help="folder that is /share in dom0, read-write")
    add("--cpus", type=int, default=1, metavar="N", help="emulated CPUs (default: 1)")
    add("--dom0-vcpus", type=int, default=1, metavar="N", help="dom0's vCPUs (default: 1)")
    add("--memory", type=int, default=1536, metavar="MB", help="the host's memory (default: 1536)")
    add(
        "--timeout", type=float, default=300.0, metavar="S", help="limit for COMMAND (default: 300)"
    )
    add(
        "--install",
        type=Path,
        action="append",
        default=[],
        metavar="WHEEL",
        help="a pure Python wheel to install in dom0's /usr/local; may be given several times",
    )
    add("-v", "--verbose", action="store_true", help="tell each step on stderr")
    add("command", nargs="+", metavar="COMMAND")
    running.set_defaults(_action=_run)


def run(arguments: argparse.Namespace) -> int:
    """Carry the sub-command out; return the exit status."""
    status: int = arguments._action(arguments)
    return status


def _teller() -> Progress:
    began = time.monotonic()

    def tell(line: str) -> None:
        print(f"[{time.monotonic() - began:5.1f} s] {line}", file=sys.stderr, flush=True)

    return tell


def _build(arguments: argparse.Namespace) -> int:
    releases = [arguments.xen] if arguments.xen else list(RELEASES)
    for xen in releases:
        image = build(find_release(xen), _teller())
        print(f"Xen {xen}: {image.folder}")
    return 0


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(_TERMINATED)


def _write(is_stderr: bool, data: bytes) -> None:
    """Write ``data`` to our stdout or stderr, past Python's buffers."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(2 if is_stderr else 1, rest) :]


def _run(arguments: argparse.Namespace) -> int:
    words: list[str] = arguments.command
    release = find_release(arguments.xen or DEFAULT_XEN)
    signal.signal(signal.SIGTERM, _terminate)
    tell = _teller()
    verbose = arguments.verbose or built(release) is None
    lab = Lab(
        xen=release.xen,
        cpus=arguments.cpus,
        dom0_vcpus=arguments.dom0_vcpus,
        memory=arguments.memory,
        share=arguments.share,
        install=arguments.install,
        progress=tell if verbose else lambda line: None,
    )
    try:
        with lab:
            text = words[0] if len(words) == 1 else shlex.join(words)
            result = lab.run(text, timeout=arguments.timeout, on_output=_write)
    except HostError as error:
        print(f"ioreqd: {error}", file=sys.stderr)
        return _LAB_FAILED
    if result.timed_out:
        print(f"ioreqd: time limit of {arguments.timeout:g} s", file=sys.stderr)
    return result.status
