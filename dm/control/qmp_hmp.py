"""The human monitor: a line of text in, lines of text out, as QEMU 7.2 words them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from dm.control.argv_help import QEMU_VERSION
from dm.control.monitor import Monitor, PciFunctionInfo
from dm.control.qmp_error import QmpError
from dm.errors import ConfigError, GuestError, HostError

__all__ = ["run"]


class _Command(NamedTuple):
    names: str  # alternatives, separated by "|"
    handler: Callable[[Monitor], str | None]
    help: str


def _status(monitor: Monitor) -> str:
    state = monitor.run_state()
    shown = "running" if state == "running" else "paused"
    return f"VM status: {shown}" + ("" if state in ("running", "paused") else f" ({state})") + "\n"


def _chardevs(monitor: Monitor) -> str:
    return "".join(f"{label}: filename={name}\n" for label, name, _ in monitor.chardevs())


def _cpus(monitor: Monitor) -> str:
    marks = ["*"] + [" "] * monitor.maxcpus
    lines = zip(marks, monitor.online_vcpus(), strict=False)
    return "".join(f"{mark} CPU #{number}: thread_id={os.getpid()}\n" for mark, number in lines)


def _pci(monitor: Monitor) -> str:
    return "".join(_pci_function(info) for info in monitor.pci_functions())


def _pci_function(info: PciFunctionInfo) -> str:
    lines = [
        f"  Bus {info.bus:2}, device {info.slot:3}, function {info.function}:",
        f"    {info.description or f'Class {info.class_code >> 8:04x}'}: PCI device "
        f"{info.vendor:04x}:{info.device:04x}",
    ]
    if info.subsystem != (0, 0):
        lines.append("      PCI subsystem {:04x}:{:04x}".format(*info.subsystem))
    if info.pin:
        lines.append(f"      IRQ {info.irq}, pin {' ABCD'[info.pin]}")
    for region in info.regions:
        address = region.address & (2**64 - 1)
        last = address + region.size - 1
        if region.io:
            where = f"I/O at 0x{address:04x} [0x{last & (2**64 - 1):04x}]."
        else:
            width = "64" if region.memory_64 else "32"
            prefetch = " prefetchable" if region.prefetch else ""
            where = f"{width} bit{prefetch} memory at 0x{address:08x} [0x{last & (2**64 - 1):08x}]."
        lines.append(f"      BAR{region.bar}: {where}")
    lines.append(f'      id "{info.qdev_id}"')
    return "\n".join(lines) + "\n"


def _version(monitor: Monitor) -> str:
    return ".".join(map(str, QEMU_VERSION)) + "\n"


_INFO = (
    _Command("chardev", _chardevs, "show the character devices"),
    _Command("cpus", _cpus, "show infos for each CPU"),
    _Command("ioreq", lambda monitor: monitor.statistics(), "show requests, faults and devices"),
    _Command("kvm", lambda monitor: "kvm support: disabled\n", "show KVM information"),
    _Command(
        "name",
        lambda monitor: "" if monitor.name is None else f"{monitor.name}\n",
        "show the current VM name",
    ),
    _Command("pci", _pci, "show PCI info"),
    _Command("status", _status, "show the current VM status (running|paused)"),
    _Command("uuid", lambda monitor: f"{monitor.uuid}\n", "show the current VM UUID"),
    _Command("version", _version, "show the version of QEMU"),
    _Command("vnc", lambda monitor: "None\n", "show the vnc server status"),
)
_COMMANDS = (
    _Command("cont|c", lambda monitor: monitor.cont(), "resume emulation"),
    _Command("nmi", lambda monitor: monitor.inject_nmi(), "inject an NMI"),
    _Command("quit|q", lambda monitor: monitor.quit(), "quit the emulator"),
    _Command("stop|s", lambda monitor: monitor.stop(), "stop emulation"),
    _Command(
        "system_powerdown", lambda monitor: monitor.power_down(), "send system power down event"
    ),
    _Command("system_reset", lambda monitor: monitor.reset(), "reset the system"),
    _Command("system_wakeup", lambda monitor: monitor.wake_up(), "wakeup guest from suspend"),
)


def _find(table: tuple[_Command, ...], word: str) -> _Command | None:
    return next((one for one in table if word in one.names.split("|")), None)


def _help(words: list[str]) -> str:
    """The text of ``help``, for everything or for one command."""
    if not words:
        usage = [f"{one.names}  -- {one.help}\n" for one in _COMMANDS]
        return "".join(sorted([*usage, "help|? [cmd] -- show the help\n", "info [subcommand]\n"]))
    if words[0] in ("help", "?"):
        return "help|? [cmd] -- show the help\n"
    if words[0] == "info":
        if len(words) == 1:
            return "".join(f"info {one.names}  -- {one.help}\n" for one in _INFO)
        info = _find(_INFO, words[1])
        if info:
            return f"info {info.names}  -- {info.help}\n"
    command = _find(_COMMANDS, words[0])
    if command:
        return f"{command.names}  -- {command.help}\n"
    return f"unknown command: '{' '.join(words)}'\n"


def _answer(monitor: Monitor, line: str) -> str:
    words = line.split()
    if not words:
        return ""
    if words[0] in ("help", "?"):
        return _help(words[1:])
    prefix = ""
    command = _find(_COMMANDS, words[0])
    if words[0] == "info":
        if len(words) == 1:
            return _help(words)
        prefix, command = "info ", _find(_INFO, words[1])
        del words[0]
    if command is None:
        end = line.index(words[0]) + len(words[0])
        if prefix:
            end = line.index(words[0], line.index("info") + 4) + len(words[0])
        return f"unknown command: '{line[:end]}'\n"
    if len(words) > 1:
        name = command.names
        topic = prefix + name.split("|")[0]
        return (
            f"{name}: extraneous characters at the end of line\n"
            f'Try "help {topic}" for more information\n'
        )
    return command.handler(monitor) or ""


def run(monitor: Monitor, line: str) -> str:
    """Runs one line; returns what QEMU's monitor would have printed, with CR LF line ends."""
    try:
        text = _answer(monitor, line)
    except (QmpError, ConfigError, GuestError, HostError) as error:
        text = f"Error: {error}\n"
    return text.replace("\r\n", "\n").replace("\n", "\r\n")
