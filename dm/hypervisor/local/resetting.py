"""A local domain that a reboot resets in place: what a board's reset line does on real hardware."""

from __future__ import annotations

from .hypervisor import LocalHypervisor

__all__ = ["ResettingHypervisor"]


class ResettingHypervisor(LocalHypervisor):
    """The other side resets its own chips; here the devices follow, within the same access."""

    def shutdown(self, reason: str) -> None:
        """See `Platform.shutdown`."""
        super().shutdown(reason)
        if reason == "reboot" and self.on_reset is not None:
            self.on_reset()
