"""What follows when a guest reports its panic: an event, and a stop if that was asked for.

Source: QEMU 7.2, softmmu/runstate.c (qemu_system_guest_panicked, qemu_system_guest_crashloaded).
Other than there, a guest is stopped only by ``-action panic=pause``: under Xen nobody looks.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .process import DeviceModel

__all__ = ["watch_panics"]

PANICKED = 1
"""The event bit of a panic with which the guest ends; others leave it to a crash kernel."""


def watch_panics(model: DeviceModel, device: Any) -> None:
    """Have what ``device`` reports, a pvpanic, announced to the monitors of ``model``."""

    def report(events: int) -> None:
        pauses = bool(events & PANICKED) and model.options.actions.get("panic") == "pause"
        name = "GUEST_PANICKED" if events & PANICKED else "GUEST_CRASHLOADED"
        model.qmp.emit(name, {"action": "pause" if pauses else "run"})
        if pauses:
            # The guest's access is answered first.
            model.loop.call_at(model.loop.now(), model.stop)

    device.report = report
