"""Wait statuses in words."""

from __future__ import annotations

import os
import signal

__all__ = ["STOLEN", "describe_end"]

STOLEN = 255 << 8
"""The wait status that a child gets whose own was taken by somebody else (contract §8.3 d)."""


def describe_end(status: int) -> str:
    """How a process with this wait status ended, as the rest of a sentence."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        core = " (core dumped)" if os.WCOREDUMP(status) else ""
        return f"was killed by {_signal_name(number)}{core}"
    if os.WIFEXITED(status):
        return f"exited with status {os.WEXITSTATUS(status)}"
    return f"ended in an unknown way (wait status {status:#x})"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
