"""What can go wrong on the hypervisor's side, and who is told."""

from __future__ import annotations

__all__ = ["DomainEnded", "EngineUnavailable", "HypercallError", "ImageError", "NotRamError"]


class HypercallError(Exception):
    """What a hypercall answers instead of zero. ``errno`` is positive; Xen returns minus it."""

    def __init__(self, errno: int, message: str) -> None:
        super().__init__(message)
        self.errno = errno


class ImageError(ValueError):
    """A guest image that cannot be loaded; the message is one readable line."""


class NotRamError(LookupError):
    """Guest-physical addresses, some of which are not RAM."""


class DomainEnded(Exception):  # noqa: N818 - it is the usual end
    """Raised into a vCPU's thread: its domain, or the vCPU alone, does not run any more."""


class EngineUnavailable(Exception):  # noqa: N818 - it says what is the matter
    """A vCPU engine that cannot be had on this machine; the message is one readable line."""
