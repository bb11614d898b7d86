"""What becomes of a domain that has ended: the reasons, the action of each, and what it comes to.

Facts: tools/xl/xl_vmcontrol.c (handle_domain_death), contract §5.1. Before seed 002 an
on_soft_reset that the configuration did not give meant `restart`, today it means `soft-reset`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from protocol import layouts
from tools.toolstack.xlcfg import Action, GuestConfig

__all__ = ["REASONS", "Decision", "Follow", "decide"]

REASONS = {
    layouts.SHUTDOWN_REASON_POWEROFF: "poweroff",
    layouts.SHUTDOWN_REASON_REBOOT: "reboot",
    layouts.SHUTDOWN_REASON_SUSPEND: "suspend",
    layouts.SHUTDOWN_REASON_CRASH: "crash",
    layouts.SHUTDOWN_REASON_WATCHDOG: "watchdog",
    layouts.SHUTDOWN_REASON_SOFT_RESET: "soft-reset",
}
"""Shutdown reason code -> its name, which follows ``on_`` in a configuration."""


class Follow(Enum):
    """What follows an end."""

    NOTHING = "nothing"
    """The domain stays as it is, and is not watched any more."""
    DESTROY = "destroy"
    RESTART = "restart"
    """The domain is destroyed and a new one made of the same configuration."""
    RENAME_RESTART = "rename-restart"
    """The domain is kept under another name, and a new one made."""
    SOFT_RESET = "soft-reset"


@dataclass(frozen=True)
class Decision:
    """What the configuration says. ``core``: whether the memory is written to a file first."""

    action: str
    follow: Follow
    core: bool = False


_DECISIONS: dict[Action, Decision] = {
    "destroy": Decision("destroy", Follow.DESTROY),
    "restart": Decision("restart", Follow.RESTART),
    "rename-restart": Decision("rename-restart", Follow.RENAME_RESTART),
    "preserve": Decision("preserve", Follow.NOTHING),
    "coredump-destroy": Decision("coredump-destroy", Follow.DESTROY, core=True),
    "coredump-restart": Decision("coredump-restart", Follow.RESTART, core=True),
    "soft-reset": Decision("soft-reset", Follow.SOFT_RESET),
}


def decide(config: GuestConfig, reason: int) -> Decision:
    """What follows an end with the shutdown reason ``reason``.

    A domain that has suspended itself is left alone; one with a reason that nobody knows is
    destroyed, as by xl.
    """
    if reason == layouts.SHUTDOWN_REASON_SUSPEND:
        return Decision("none", Follow.NOTHING)
    actions: dict[int, Action] = {
        layouts.SHUTDOWN_REASON_POWEROFF: config.on_poweroff,
        layouts.SHUTDOWN_REASON_REBOOT: config.on_reboot,
        layouts.SHUTDOWN_REASON_CRASH: config.on_crash,
        layouts.SHUTDOWN_REASON_WATCHDOG: config.on_watchdog,
        layouts.SHUTDOWN_REASON_SOFT_RESET: config.on_soft_reset,
    }
    return _DECISIONS[actions.get(reason, "destroy")]
