"""What is to be created: a configuration and how it is to be kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from tools.toolstack.xlcfg import GuestConfig

if TYPE_CHECKING:
    from .saved import Saved

__all__ = ["Plan"]


@dataclass
class Plan:
    """A guest to be created, or restored from ``saved``. ``text``: its configuration's.

    ``uuid``: None for that of the configuration or a new one; ``engine``: as for `make_engine`;
    ``paused``: leave it so; ``logs`` and ``dumps``: folders of log files and of cores.
    """

    config: GuestConfig
    text: str
    logs: Path
    dumps: Path
    engine: str = "auto"
    paused: bool = False
    saved: Saved | None = field(default=None, repr=False)

    @property
    def uuid(self) -> UUID | None:
        """The domain's uuid, if it is given."""
        return self.saved.uuid if self.saved is not None else self.config.uuid

    def take_saved(self) -> Saved | None:
        """The saved state, once: a restart begins at the guest's images."""
        saved, self.saved = self.saved, None
        return saved
