"""Soft reset: the guest goes on with its memory and devices, its Xen interfaces as at its start.

The steps are those of seed 002 as contract §5.2 has them today. Where the two differ, today's
behaviour counts: only the state file of the device model is renamed between the two names, and the
consoles' terminal stays noted. What differs from today's libxl, on purpose: a device model that
cannot be suspended fails the reset at once (libxl goes on and fails at the renaming, when the guest
has lost its device model), and until the device model is destroyed a failure that nobody asked for
is undone, so that the old domain runs on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from protocol import layouts
from tools.hypervisor.errors import HypercallError
from tools.toolstack.errors import HostFailure, ToolstackError

from .guest import RESUMED

if TYPE_CHECKING:
    from .guest import Guest

__all__ = ["SOFT_RESET_REASON", "STEPS", "Reset", "Step", "soft_reset"]

SOFT_RESET_REASON = layouts.SHUTDOWN_REASON_SOFT_RESET
SAVED = "qemu-save"
"""libxl's name of the state file until it is sure to be used."""


@dataclass
class Reset:
    """A soft reset under way, and what its steps keep for each other."""

    guest: Guest
    record: dict[str, str] = field(default_factory=dict)
    """The toolstack record: what the device model has noted of its memory in xenstore."""
    terminals: dict[str, str] = field(default_factory=dict)
    """Where the consoles' other ends are: nodes of the domain's that survive."""

    def file(self, name: str) -> Path:
        """A file of the domain's."""
        return self.guest.place.file(name)


@dataclass(frozen=True)
class Step:
    """``name`` for people; ``undo``: how to take it back, None when there is no way back."""

    name: str
    perform: Callable[[Reset], object]
    undo: Callable[[Reset], object] | None = None


def _record(reset: Reset) -> None:
    guest = reset.guest
    store, domid = guest.store, guest.domid
    if guest.config.type != "hvm":
        raise ToolstackError(f"domain {domid} is not an HVM guest")
    reset.record = _below(guest, f"/local/domain/0/device-model/{domid}/physmap")
    home = f"/local/domain/{domid}"
    reset.terminals = {
        path: value
        for part in ("serial", "console")
        for path, value in _below(guest, f"{home}/{part}").items()
        if path.endswith("/tty") or part == "serial"
    }
    if store.read(home) is None:
        raise HostFailure(f"{home} is missing in xenstore")


def _suspend(reset: Reset) -> None:
    reset.guest.wait_parked()
    reset.guest.emulator.suspend(reset.file(SAVED))


def _go_on(reset: Reset) -> None:
    reset.file(SAVED).unlink(missing_ok=True)
    reset.guest.emulator.go_on()


def _release(reset: Reset) -> None:
    reset.guest.close_channels()


def _destroy_model(reset: Reset) -> None:
    reset.guest.emulator.end()


def _remove_nodes(reset: Reset) -> None:
    reset.guest.remove_nodes()


def _reset_domain(reset: Reset) -> None:
    guest = reset.guest
    # The one pause that this leaves is taken back when everything is there again.
    guest.pause()
    try:
        guest.domain.soft_reset()
    except HypercallError as error:
        raise HostFailure(f"XEN_DOMCTL_soft_reset: {error}") from None


def _restore_record(reset: Reset) -> None:
    for path, value in reset.record.items():
        reset.guest.store.write(path, value)


def _rename_state(reset: Reset) -> None:
    try:
        reset.file(SAVED).replace(reset.file(RESUMED))
    except OSError as error:
        raise HostFailure(f"rename {reset.file(SAVED)}: {error.strerror}") from None


def _make_again(reset: Reset) -> None:
    reset.guest.make_nodes()
    for path, value in reset.terminals.items():
        reset.guest.store.write(path, value)


def _introduce(reset: Reset) -> None:
    try:
        reset.guest.open_channels()
    except HypercallError as error:
        raise HostFailure(f"the channels of the domain: {error}") from None


def _start_model(reset: Reset) -> None:
    reset.guest.emulator.start(reset.guest.config, reset.file(RESUMED))
    reset.file(RESUMED).unlink(missing_ok=True)


def _unpause(reset: Reset) -> None:
    reset.guest.unpause()


STEPS: tuple[Step, ...] = (
    Step("save the toolstack record", _record, lambda reset: None),
    Step("suspend the device model", _suspend, _go_on),
    Step("release the domain from xenstore", _release),
    Step("destroy the device model", _destroy_model),
    Step("remove the domain's nodes, backends closing", _remove_nodes),
    Step("reset the domain in the hypervisor", _reset_domain),
    Step("restore the toolstack record", _restore_record),
    Step("keep the device model's state", _rename_state),
    Step("make the domain's nodes again", _make_again),
    Step("introduce the domain with new channels", _introduce),
    Step("start the device model with its state", _start_model),
    Step("unpause the domain", _unpause),
)
"""In this order. The first without ``undo`` is the point of no return."""


def soft_reset(
    guest: Guest,
    *,
    asked: bool,
    progress: Callable[[str], object] = lambda text: None,
) -> None:
    """Reset a guest that is shut down for it. ``asked``: by a person, not by the guest itself.

    HostFailure, with the step and what has become of the domain: it runs on as before if it did
    not ask for the reset and every step so far can be undone; else it is destroyed.
    """
    reset = Reset(guest)
    paused = guest.paused
    steps = STEPS
    for number, step in enumerate(steps):
        progress(f"soft reset {number + 1}/{len(steps)}: {step.name}")
        try:
            if step.perform is not _unpause or not paused:
                step.perform(reset)
        except (HostFailure, ToolstackError, OSError) as error:
            done = steps[: number + 1]
            outcome = _give_up(reset, done, asked)
            raise HostFailure(f"soft reset, {step.name}: {error}; {outcome}") from None


def _give_up(reset: Reset, done: tuple[Step, ...], asked: bool) -> str:
    """Undo what can be, or destroy; what has become of the domain, in words."""
    guest = reset.guest
    if asked and all(step.undo is not None for step in done):
        try:
            for step in reversed(done):
                if step.undo is not None:
                    step.undo(reset)
            guest.resume()
        except (HostFailure, HypercallError, OSError) as error:
            guest.destroy()
            return f"it cannot run on ({error}), domain {guest.domid} is destroyed"
        return f"domain {guest.domid} runs on as before"
    guest.destroy()
    return f"domain {guest.domid} is destroyed"


def _below(guest: Guest, path: str) -> dict[str, str]:
    """Every node below ``path``, with its value."""
    found = {}
    if guest.store.read(path) is not None:
        for name in guest.store.directory(path):
            child = f"{path}/{name}"
            found[child] = guest.store.read(child) or ""
            found.update(_below(guest, child))
    return found
