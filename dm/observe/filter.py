"""Which events a user asked for."""

from __future__ import annotations

from dm.errors import ConfigError

from .events import Access

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .events import Event

__all__ = ["Filter"]

DIRECTIONS = {"read": True, "write": False, "": None}


class Filter:
    """Passes events of ``device``, accesses to ``register``, of ``direction``; empty: of all.

    ``device`` is a device's name. ``register`` is a register's name, with or without its window's
    and, in an array, its index. ``direction`` is ``read`` or ``write``. A filter by register or
    direction passes accesses, and what happened during them.
    """

    def __init__(self, device: str = "", register: str = "", direction: str = "") -> None:
        self._device = device
        self._register = register
        if direction not in DIRECTIONS:
            raise ConfigError(f"-observe direction={direction}: it is read or write")
        self._reads = DIRECTIONS[direction]

    def belongs(self, event: Event) -> bool:
        """Whether the event is the device's that is asked for."""
        return self._device in ("", event.device)

    def passes(self, event: Event) -> bool:
        """Whether the event is asked for."""
        if not self.belongs(event):
            return False
        if not self._register and self._reads is None:
            return True
        if not isinstance(event, Access):
            return False
        if self._reads is not None and event.reads != self._reads:
            return False
        return not self._register or self._names(event)

    def _names(self, access: Access) -> bool:
        wanted = self._register
        window, _, whole = access.register.partition(".")
        names = [name for name, _, _ in access.touched] or [whole]
        names += [name.partition("[")[0] for name in names]
        return wanted in names or wanted in [f"{window}.{name}" for name in names]
