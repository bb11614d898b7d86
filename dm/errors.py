"""The three kinds of error that ioreqd tells apart: the user's, the guest's and the host's."""

from __future__ import annotations

__all__ = ["ConfigError", "GuestError", "HostError"]


class ConfigError(Exception):
    """The user asked for something impossible: one readable line, exit status 2."""


class GuestError(Exception):
    """The guest did something impossible: contained, answered and counted, never fatal."""


class HostError(Exception):
    """A call of the host's failed; the message names the call, its object and the cause.

    ``errno`` holds the operating system's error number where there was one, else 0.
    """

    def __init__(self, message: str, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno
