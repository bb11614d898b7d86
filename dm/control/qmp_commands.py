"""The commands of QMP: one table of names, arguments and handlers.

Names, arguments and the words of every refusal are QEMU 7.2's; which commands matter is libxl's
business (tools/libs/light/libxl_qmp.c and its callers).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from dm.control import qmp_devices, qmp_info, qmp_run
from dm.control.fdsets import FdSets
from dm.control.monitor import Monitor
from dm.control.qmp_error import UNSUPPORTED, QmpError
from dm.control.qmp_schema import ANYTHING, Schema

__all__ = ["COMMANDS", "Command", "Context"]

Arguments = dict[str, Any]


class Context(Protocol):
    """What a handler may use: the machine, the descriptors, and its client's passed ones."""

    @property
    def monitor(self) -> Monitor:
        """The machine."""

    @property
    def fdsets(self) -> FdSets:
        """Descriptors that clients have passed in."""

    def take_fd(self) -> int:
        """The oldest descriptor that this client passed and no command took; -1 for none."""


class Command(NamedTuple):
    """A handler, which returns the command's value, and the schema of its arguments."""

    handler: Callable[[Context, Arguments], Any]
    schema: Schema


def _unsupported(context: Context, arguments: Arguments) -> Any:
    raise QmpError(UNSUPPORTED)


def _no_node(argument: str) -> Callable[[Context, Arguments], Any]:
    """A command on a block node, of which there are none."""

    def refuse(context: Context, arguments: Arguments) -> Any:
        name = arguments[argument]
        raise QmpError(f"Cannot find device='{name}' nor node-name='{name}'")

    return refuse


def _no_nbd_server(context: Context, arguments: Arguments) -> Any:
    raise QmpError("NBD server not running")


def _list_commands(context: Context, arguments: Arguments) -> Any:
    return [{"name": name} for name in COMMANDS]


_DRIVE: Schema = {"device": "str?", "id": "str?"}
_VNC: Schema = {"protocol": "vnc|spice", "display": "str?"}

COMMANDS: dict[str, Command] = {
    "qmp_capabilities": Command(_unsupported, {"enable": "[oob]?"}),
    "query-commands": Command(_list_commands, {}),
    # the run state (qmp_run.py)
    "query-status": Command(qmp_run.query_status, {}),
    "stop": Command(qmp_run.stop, {}),
    "cont": Command(qmp_run.cont, {}),
    "quit": Command(qmp_run.quit_, {}),
    "system_reset": Command(qmp_run.system_reset, {}),
    "system_powerdown": Command(qmp_run.system_powerdown, {}),
    "system_wakeup": Command(qmp_run.system_wakeup, {}),
    "inject-nmi": Command(qmp_run.inject_nmi, {}),
    "xen-save-devices-state": Command(qmp_run.save, {"filename": "str", "live": "bool?"}),
    "xen-load-devices-state": Command(qmp_run.load, {"filename": "str"}),
    "xen-set-global-dirty-log": Command(qmp_run.dirty_log, {"enable": "bool"}),
    "add-fd": Command(qmp_run.add_fd, {"fdset-id": "int?", "opaque": "str?"}),
    "remove-fd": Command(qmp_run.remove_fd, {"fdset-id": "int", "fd": "int?"}),
    "query-fdsets": Command(qmp_run.query_fdsets, {}),
    # devices (qmp_devices.py)
    "query-cpus-fast": Command(qmp_devices.query_cpus_fast, {}),
    "query-hotpluggable-cpus": Command(qmp_devices.query_hotpluggable_cpus, {}),
    "device_add": Command(qmp_devices.device_add, ANYTHING),
    "device_del": Command(qmp_devices.device_del, {"id": "str"}),
    "query-pci": Command(qmp_devices.query_pci, {}),
    "query-block": Command(qmp_devices.query_block, {}),
    "query-blockstats": Command(qmp_devices.query_blockstats, {"query-nodes": "bool?"}),
    "eject": Command(qmp_devices.eject, {**_DRIVE, "force": "bool?"}),
    "blockdev-change-medium": Command(
        qmp_devices.change_medium,
        {
            **_DRIVE,
            "filename": "str",
            "format": "str?",
            "force": "bool?",
            "read-only-mode": "retain|read-only|read-write?",
        },
    ),
    # what the process is (qmp_info.py)
    "query-version": Command(qmp_info.query_version, {}),
    "query-name": Command(qmp_info.query_name, {}),
    "query-uuid": Command(qmp_info.query_uuid, {}),
    "query-chardev": Command(qmp_info.query_chardev, {}),
    "query-command-line-options": Command(qmp_info.query_command_line_options, {"option": "str?"}),
    "set_password": Command(
        qmp_info.set_password,
        {
            "protocol": "vnc|spice",
            "password": "str",
            "connected": "fail|disconnect|keep?",
            "display": "str?",
        },
    ),
    "expire_password": Command(qmp_info.expire_password, {**_VNC, "time": "str"}),
    "change-vnc-password": Command(qmp_info.change_vnc_password, {"password": "str"}),
    "human-monitor-command": Command(
        qmp_info.human_monitor_command, {"command-line": "str", "cpu-index": "int?"}
    ),
    **{name: Command(qmp_info.constant(value), {}) for name, value in qmp_info.CONSTANTS.items()},
    "query-balloon": Command(qmp_info.query_balloon, {}),
    # replication and its block layer, of which there is none
    "xen-set-replication": Command(
        _unsupported, {"enable": "bool", "primary": "bool", "failover": "bool?"}
    ),
    "query-xen-replication-status": Command(_unsupported, {}),
    "xen-colo-do-checkpoint": Command(_unsupported, {}),
    "x-blockdev-change": Command(
        _no_node("parent"), {"parent": "str", "child": "str?", "node": "str?"}
    ),
    "nbd-server-start": Command(
        _unsupported,
        {
            "addr": "dict",
            "tls-creds": "str?",
            "tls-authz": "str?",
            "max-connections": "int?",
        },
    ),
    "nbd-server-add": Command(
        _no_node("device"),
        {
            "device": "str",
            "name": "str?",
            "description": "str?",
            "writable": "bool?",
            "bitmap": "str?",
        },
    ),
    "nbd-server-stop": Command(_no_nbd_server, {}),
}
