"""An answer that a device gives later, while the vCPU that asked waits."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .device import Device

__all__ = ["Deferral"]


class Deferral(Exception):  # noqa: N818 - it is an answer that comes later, not an error
    """An answer that comes later: ``raise self.defer()`` in a handler, ``complete`` afterwards.

    Only the vCPU that made the request waits. ``complete`` must be called in the machine's thread.
    ``watch`` is told of the answer before it goes out.
    """

    def __init__(self, device: Device) -> None:
        super().__init__(f"{device.name} answers later")
        self.device = device
        self._finish: Callable[[int], None] | None = None
        self.watch: Callable[[int], None] | None = None
        self._value: int | None = None

    def attach(self, finish: Callable[[int], None]) -> None:
        """Say who takes the answer; called by the ioreq server."""
        self._finish = finish
        if self._value is not None:
            finish(self._value)

    def complete(self, value: int = 0) -> None:
        """Answer the request with ``value`` (meaningless for a write). Once only."""
        if self._value is not None:
            return
        self._value = value
        if self.watch is not None:
            self.watch(value)
        if self._finish is not None:
            self._finish(value)
