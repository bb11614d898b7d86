"""`ioreqd state`: shows what a device model saved, and what differs between two such files."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from tools.state import DeviceView, FieldView, StateView, differences, read_state, view
from tools.state.describe import plain

__all__ = ["HELP", "configure", "run"]

HELP = "show what a device model saved, or what differs between two saves"

_SAME, _DIFFERENT = 0, 1


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the sub-command's arguments to ``parser``."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    showing = actions.add_parser(
        "show",
        help="print every register of every device",
        description="Print the state in FILE, which the device model wrote, or which is a file of "
        "xl save that contains it.",
    )
    showing.add_argument("file", type=Path, metavar="FILE")
    showing.add_argument("--json", action="store_true", help="as JSON, memory in hexadecimal")
    showing.set_defaults(_action=_show)
    comparing = actions.add_parser(
        "diff",
        help="print what differs",
        description="Print what differs between the states in A and B. The exit status is 0 when "
        "they are the same, 1 when they differ, 2 when one of them cannot be read.",
    )
    comparing.add_argument("a", type=Path, metavar="A")
    comparing.add_argument("b", type=Path, metavar="B")
    comparing.set_defaults(_action=_diff)
    for command in (showing, comparing):
        command.add_argument(
            "--trust",
            action="append",
            default=[],
            metavar="MODULE",
            help="a module of your own whose device classes may be imported to name bits; may be "
            "given several times",
        )


def run(arguments: argparse.Namespace) -> int:
    """Carry the sub-command out; return the exit status."""
    status: int = arguments._action(arguments)
    return status


def _read(path: Path, arguments: argparse.Namespace) -> StateView:
    return view(read_state(path), arguments.trust)


def _show(arguments: argparse.Namespace) -> int:
    state = _read(arguments.file, arguments)
    if arguments.json:
        print(json.dumps(_as_json(state), indent=2))
        return 0
    seconds, nanoseconds = divmod(state.guest_time, 10**9)
    print(f"machine {plain(state.kind)}, {len(state.devices)} devices, {state.size} bytes")
    print(f"guest time {seconds}.{nanoseconds:09} s")
    for device in state.devices.values():
        _show_device(device)
    return 0


def _show_device(device: DeviceView) -> None:
    unknown = "" if device.known else " (class not found, so bits have no names)"
    print(f"\n{plain(device.name)}: {plain(device.class_name)}, version {device.version}{unknown}")
    names = {name: plain(name) for name in device.fields}
    column = max(map(len, names.values()), default=0)
    values = max((len(f.text) for f in device.fields.values() if f.bits), default=0)
    for name, field in device.fields.items():
        line = f"  {names[name]:<{column}}  {field.text:<{values}}  {field.bits_text}"
        print(line.rstrip())


def _diff(arguments: argparse.Namespace) -> int:
    status = _SAME
    for line in differences(_read(arguments.a, arguments), _read(arguments.b, arguments)):
        print(line)
        status = _DIFFERENT
    return status


def _as_json(state: StateView) -> dict[str, Any]:
    return {
        "machine": state.kind,
        "guest_time_ns": state.guest_time,
        "size": state.size,
        "devices": {name: _device_json(device) for name, device in state.devices.items()},
    }


def _device_json(device: DeviceView) -> dict[str, Any]:
    return {
        "class": device.class_name,
        "version": device.version,
        "known": device.known,
        "fields": {name: _field_json(field) for name, field in device.fields.items()},
    }


def _field_json(field: FieldView) -> dict[str, Any]:
    if not isinstance(field.value, int):
        return {"bytes": field.value.hex()}
    return {"value": field.value, "hex": field.text} | ({"bits": field.bits} if field.bits else {})
