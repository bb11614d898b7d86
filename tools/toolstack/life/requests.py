"""What can be asked of a keeper about one of its domains, and how each request is carried out.

Facts: contract §2.4 (pause and unpause), tools/xl/xl_vmcontrol.c (shutdown and reboot). What
differs from xl: ``force`` (xl's -F, which sends ACPI events) shuts the domain down from outside,
for the stand-alone hypervisor has no power button.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from protocol import layouts
from tools.toolstack.errors import HostFailure, ToolstackError

from .soft_reset import SOFT_RESET_REASON, soft_reset

if TYPE_CHECKING:
    from .control import Request
    from .keeper import Held, Keeper

__all__ = ["REQUESTS"]

Perform = Callable[["Keeper", "Held", "Request"], Any]


def _pause(keeper: Keeper, held: Held, request: Request) -> None:
    held.guest.pause()


def _unpause(keeper: Keeper, held: Held, request: Request) -> None:
    held.guest.unpause()


def _destroy(keeper: Keeper, held: Held, request: Request) -> None:
    held.guest.destroy()


def _power(reason: int, word: str) -> Perform:
    """Ask the guest by xenstore, if it has drivers for that, or ``force`` it."""

    def perform(keeper: Keeper, held: Held, request: Request) -> None:
        guest = held.guest
        if guest.domain.state != "running":
            raise ToolstackError(f"domain {guest.domid} does not run")
        if guest.domain.params.peek(layouts.HVM_PARAM_CALLBACK_IRQ):
            guest.store.write(f"/local/domain/{guest.domid}/control/shutdown", word)
        elif request.arguments.get("force"):
            guest.domain.shutdown(reason)
        else:
            raise HostFailure(
                f"domain {guest.domid} has no paravirtual drivers to be asked by; -F forces it"
            )

    return perform


def _soft_reset(keeper: Keeper, held: Held, request: Request) -> None:
    guest = held.guest
    if guest.domain.state != "running":
        raise ToolstackError(f"domain {guest.domid} does not run")
    # The keeper is told of the end, too, and must not act upon it by the configuration.
    held.death_seen = True
    guest.domain.shutdown(SOFT_RESET_REASON)
    guest.wait_state("shutdown")
    try:
        soft_reset(guest, asked=True, progress=request.progress)
    finally:
        held.death_seen = False


def _config(keeper: Keeper, held: Held, request: Request) -> Any:
    values = dataclasses.asdict(held.guest.config)
    values["uuid"] = str(held.guest.uuid)
    return json.loads(json.dumps(values, default=str))


def _console(keeper: Keeper, held: Held, request: Request) -> dict[str, Any]:
    guest, number = held.guest, request.arguments.get("number", 0)
    tty = guest.store.read(f"/local/domain/{guest.domid}/serial/{int(number)}/tty")
    return {"tty": tty, "log": str(held.place.file("console.log"))}


def _save(keeper: Keeper, held: Held, request: Request) -> None:
    from .save import save

    arguments = request.arguments
    path = Path(str(arguments.get("path")))
    if not path.is_absolute():
        raise ToolstackError(f"{path}: not an absolute path")
    # The shutdown that suspends the guest is not an end.
    held.death_seen = True
    try:
        save(held.guest, path, request.progress)
    except (ToolstackError, HostFailure):
        held.death_seen = False
        raise
    if arguments.get("stay"):
        held.guest.resume()
        if arguments.get("paused"):
            held.guest.pause()
        held.death_seen = False
    else:
        held.guest.destroy()


REQUESTS: dict[str, Perform] = {
    "pause": _pause,
    "unpause": _unpause,
    "destroy": _destroy,
    "shutdown": _power(layouts.SHUTDOWN_REASON_POWEROFF, "poweroff"),
    "reboot": _power(layouts.SHUTDOWN_REASON_REBOOT, "reboot"),
    "soft-reset": _soft_reset,
    "save": _save,
    "config": _config,
    "console": _console,
}
"""Request -> what performs it and gives its result. ToolstackError, HostFailure: why not."""
