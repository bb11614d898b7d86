"""Handlers of QMP commands that act on the machine as a whole: run state, saving, descriptors."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from dm.control.fdsets import open_for_saving
from dm.control.qmp_error import QmpError

if TYPE_CHECKING:
    from dm.control.qmp_commands import Arguments, Context

__all__ = [
    "add_fd",
    "cont",
    "dirty_log",
    "inject_nmi",
    "load",
    "query_fdsets",
    "query_status",
    "quit_",
    "remove_fd",
    "save",
    "stop",
    "system_powerdown",
    "system_reset",
    "system_wakeup",
]


def query_status(context: Context, arguments: Arguments) -> Any:
    """The run state; libxl under dm_restrict waits for prelaunch or paused."""
    state = context.monitor.run_state()
    return {"status": state, "singlestep": False, "running": state == "running"}


def stop(context: Context, arguments: Arguments) -> Any:
    """Quiesces the machine; success when it already is."""
    context.monitor.stop()
    return {}


def cont(context: Context, arguments: Arguments) -> Any:
    """Lets the machine run; success when it already does."""
    context.monitor.cont()
    return {}


def quit_(context: Context, arguments: Arguments) -> Any:
    """Ends the process after the answer."""
    context.monitor.quit()
    return {}


def system_reset(context: Context, arguments: Arguments) -> Any:
    """Resets the machine."""
    context.monitor.reset()
    return {}


def system_powerdown(context: Context, arguments: Arguments) -> Any:
    """Presses the power button."""
    context.monitor.power_down()
    return {}


def system_wakeup(context: Context, arguments: Arguments) -> Any:
    """Wakes the guest from ACPI S3 (``xl trigger DOMAIN s3resume``)."""
    context.monitor.wake_up()
    return {}


def inject_nmi(context: Context, arguments: Arguments) -> Any:
    """Raises an NMI on every vCPU."""
    context.monitor.inject_nmi()
    return {}


def save(context: Context, arguments: Arguments) -> Any:
    """Writes the devices' state; a machine that was running runs again afterwards."""
    monitor = context.monitor
    running = monitor.run_state() == "running"
    if running:
        monitor.stop()
    try:
        fd = open_for_saving(context.fdsets, arguments["filename"])
        try:
            monitor.save(fd, arguments.get("live", True))
        finally:
            os.close(fd)
    finally:
        if running:
            monitor.cont()
    return {}


def load(context: Context, arguments: Arguments) -> Any:
    """Reads the devices' state into a machine that does not run."""
    if context.monitor.run_state() == "running":
        raise QmpError("Cannot update device state while vm is running")
    fd = context.fdsets.open(arguments["filename"], os.O_RDONLY)
    try:
        context.monitor.load(fd)
    finally:
        os.close(fd)
    return {}


def dirty_log(context: Context, arguments: Arguments) -> Any:
    """Switches the reporting of written pages; libxl does it around every save."""
    context.monitor.set_dirty_log(arguments["enable"])
    return {}


def add_fd(context: Context, arguments: Arguments) -> Any:
    """Keeps the descriptor that came with the command."""
    fd = context.take_fd()
    if fd < 0:
        raise QmpError("No file descriptor supplied via SCM_RIGHTS")
    try:
        return context.fdsets.add(fd, arguments.get("fdset-id"), arguments.get("opaque"))
    except QmpError:
        os.close(fd)
        raise


def remove_fd(context: Context, arguments: Arguments) -> Any:
    """Closes a kept descriptor or a whole set."""
    context.fdsets.remove(arguments["fdset-id"], arguments.get("fd"))
    return {}


def query_fdsets(context: Context, arguments: Arguments) -> Any:
    """Lists the kept descriptors."""
    return context.fdsets.listing()
