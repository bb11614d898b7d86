"""Handlers of QMP commands that tell what the process is, and of those for displays.

Source: QEMU 7.2, qapi/*.json and monitor/qmp-cmds.c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dm.control.argv_help import QEMU_VERSION
from dm.control.qmp_error import QmpError
from dm.control.qmp_hmp import run

if TYPE_CHECKING:
    from dm.control.qmp_commands import Arguments, Context

__all__ = [
    "CONSTANTS",
    "VERSION",
    "change_vnc_password",
    "constant",
    "expire_password",
    "human_monitor_command",
    "query_balloon",
    "query_chardev",
    "query_command_line_options",
    "query_name",
    "query_uuid",
    "query_version",
    "set_password",
]

VERSION = {
    "qemu": {"micro": QEMU_VERSION[2], "minor": QEMU_VERSION[1], "major": QEMU_VERSION[0]},
    "package": "",
}

# Questions whose answer never changes here.
CONSTANTS: dict[str, Any] = {
    "query-kvm": {"enabled": False, "present": False},
    "query-vnc": {"enabled": False},
    "query-vnc-servers": [],
    "query-spice": {"migrated": False, "enabled": False, "mouse-mode": "client"},
    "query-target": {"arch": "i386"},
    "query-migrate": {},
    "query-mice": [],
    "query-iothreads": [],
    "query-tpm": [],
    "query-memory-devices": [],
    "query-acpi-ospm-status": [],
    "query-current-machine": {"wakeup-suspend-support": False},
}

# What query-command-line-options tells: libxl of Xen 4.20 looks for run-with and its parameters.
_OPTIONS: dict[str, dict[str, str]] = {
    "run-with": {"chroot": "string", "user": "string"},
    "mon": {"mode": "string", "chardev": "string", "pretty": "boolean"},
    "chardev": {
        "backend": "string",
        "path": "string",
        "host": "string",
        "port": "string",
        "fd": "string",
        "server": "boolean",
        "wait": "boolean",
        "nodelay": "boolean",
        "reconnect": "number",
        "append": "boolean",
        "size": "size",
        "signal": "boolean",
    },
    "machine": {},
    "device": {},
    "drive": {},
    "netdev": {},
    "global": {},
    "name": {"guest": "string"},
    "memory": {"size": "size"},
    "smp-opts": {"cpus": "number", "maxcpus": "number"},
    "boot-opts": {"order": "string"},
}


def constant(value: Any) -> Callable[[Context, Arguments], Any]:
    """A handler that always returns the same."""
    return lambda context, arguments: value


def query_version(context: Context, arguments: Arguments) -> Any:
    """The version of QEMU whose protocol this is."""
    return VERSION


def query_name(context: Context, arguments: Arguments) -> Any:
    """The guest's name, if it has one."""
    name = context.monitor.name
    return {} if name is None else {"name": name}


def query_uuid(context: Context, arguments: Arguments) -> Any:
    """The guest's UUID."""
    return {"UUID": context.monitor.uuid}


def query_chardev(context: Context, arguments: Arguments) -> Any:
    """The back ends; libxl finds the terminals of the serial ports in it."""
    return [
        {"label": label, "filename": filename, "frontend-open": in_use}
        for label, filename, in_use in context.monitor.chardevs()
    ]


def query_command_line_options(context: Context, arguments: Arguments) -> Any:
    """The options of the command line that libxl asks for."""
    wanted = arguments.get("option")
    if wanted is not None and wanted not in _OPTIONS:
        raise QmpError(f"invalid option name: {wanted}")
    return [
        {
            "option": option,
            "parameters": [{"name": name, "type": kind} for name, kind in parameters.items()],
        }
        for option, parameters in _OPTIONS.items()
        if wanted in (None, option)
    ]


def query_balloon(context: Context, arguments: Arguments) -> Any:
    """There is no balloon: memory is the hypervisor's business."""
    raise QmpError("No balloon device has been activated", "DeviceNotActive")


def _display_password(context: Context, protocol: str, refusal: str) -> Any:
    """Accepts a password of the VNC that was asked for and is not served; refuses others."""
    if protocol == "spice":
        raise QmpError("SPICE is not in use", "DeviceNotActive")
    if not context.monitor.vnc_requested:
        raise QmpError(refusal)
    return {}


def set_password(context: Context, arguments: Arguments) -> Any:
    """Sets a display's password."""
    return _display_password(context, arguments["protocol"], "Could not set password")


def expire_password(context: Context, arguments: Arguments) -> Any:
    """Lets a display's password expire."""
    refusal = "Could not set password expire time"
    return _display_password(context, arguments["protocol"], refusal)


def change_vnc_password(context: Context, arguments: Arguments) -> Any:
    """Sets the password of the VNC display; libxl does when one is configured."""
    return _display_password(context, "vnc", "Could not set password")


def human_monitor_command(context: Context, arguments: Arguments) -> Any:
    """Runs a line of the human monitor (``xl qemu-monitor-command``)."""
    number = arguments.get("cpu-index")
    if number is not None and number not in context.monitor.online_vcpus():
        raise QmpError("Parameter 'cpu-index' expects a CPU number")
    return run(context.monitor, arguments["command-line"])
