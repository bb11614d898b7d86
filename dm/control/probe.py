"""The monitor of a probe run: newer libxl starts the device model once without a domain."""

from __future__ import annotations

from .monitor import Monitor

__all__ = ["ProbeMonitor"]


class ProbeMonitor(Monitor):
    """Knows no machine; can be told to quit."""

    def __init__(self) -> None:
        self.ended = False

    def quit(self) -> None:
        """See `Monitor.quit`."""
        self.ended = True
