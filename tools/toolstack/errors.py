"""What can go wrong in the toolstack, and whose fault it is."""

from __future__ import annotations

__all__ = ["HostFailure", "ToolstackError"]


class ToolstackError(Exception):
    """The user's mistake, as one readable line; the command's exit status is 2."""


class HostFailure(Exception):  # noqa: N818 - the toolstack's HostError
    """The host refused something; the message names the call and the cause."""
