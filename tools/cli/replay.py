"""`ioreqd replay`: re-drives a device with a recording and shows what it does otherwise."""

from __future__ import annotations

import argparse
from pathlib import Path

from dm.control.argv_values import record
from dm.device.device import Device
from dm.device.state import Option
from dm.errors import ConfigError
from tools.prototype.device_class import find_device_class
from tools.prototype.recording import RecordedDevice, Recording
from tools.prototype.replay import Replay

__all__ = ["HELP", "configure", "run"]

HELP = "re-drive a device with a recording, and show the first answer that differs"

_SAME, _DIFFERENT = 0, 1


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the sub-command's arguments to ``parser``."""
    parser.add_argument(
        "recording", type=Path, metavar="FILE", help="what -observe record=FILE wrote"
    )
    parser.add_argument(
        "--device",
        metavar="PATH.py:Class[,id=NAME][,option=value…]",
        help="the class to re-drive, with other options than recorded; id= chooses among the "
        "recorded devices. Left out: the one device that -device named while recording",
    )
    parser.add_argument("--all", action="store_true", help="show every difference, not the first")
    parser.add_argument(
        "--context",
        type=int,
        default=10,
        metavar="N",
        help="show N accesses before a difference (default: 10)",
    )


def run(arguments: argparse.Namespace) -> int:
    """0 when nothing differs, 1 when something does."""
    recording = Recording(arguments.recording)
    device = _device(recording, arguments.device)
    replay = Replay(recording, device, max(arguments.context, 0))
    count = 0
    for difference in replay.differences():
        count += 1
        print(difference)
        if not arguments.all:
            break
    for note in replay.notes:
        print(f"note: {note}")
    if recording.cut_off:
        print("note: the recording ends within a record")
    if not count:
        print(f"{device.name}: {replay.performed} records, all as recorded")
    elif arguments.all:
        print(f"{device.name}: {replay.performed} records, {count} otherwise")
    return _DIFFERENT if count else _SAME


def _device(recording: Recording, text: str | None) -> Device:
    """A new device in the place of the recorded one that is meant."""
    given = record("device", text or "", "driver")
    driver, name = given.pop("driver", ""), given.pop("id", "")
    given.pop("chardev", None)
    recorded = _recorded(recording, driver, name)
    wanted = find_device_class(driver or recorded.source or recorded.class_name)
    known = {key for key, d in wanted._declared.items() if isinstance(d, Option)}
    options = {key: value for key, value in recorded.options.items() if key in known}
    if recorded.devfn is not None and "addr" in known:
        options["addr"] = f"{recorded.devfn >> 3:x}.{recorded.devfn & 7:x}"
    options |= {key.replace("-", "_"): value for key, value in given.items()}
    return wanted(recorded.name, **options)


def _recorded(recording: Recording, driver: str, name: str) -> RecordedDevice:
    """The device called ``name``, else the one that ``driver`` stood for, else the only one."""
    devices = recording.devices
    class_name = driver.rpartition(":")[2]
    for found in (
        [one for one in devices if name and one.name == name],
        [one for one in devices if not name and driver and one.source == driver],
        [one for one in devices if not name and one.class_name.rpartition(":")[2] == class_name],
        [one for one in devices if not name and one.source],
        devices if not name else [],
    ):
        if len(found) == 1:
            return found[0]
    names = ", ".join(one.name for one in devices) or "none"
    raise ConfigError(f"which recorded device? --device …,id=NAME with one of: {names}")
