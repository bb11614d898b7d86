"""What a register map says, whatever format it came in, before it is fitted to the kit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["Kind", "MapField", "MapMemory", "MapRegister", "RegisterMap"]


class Kind(NamedTuple):
    """How bits answer software: the properties of `dm.Access`."""

    readable: bool = True
    stores: bool = False
    clears: bool = False
    passes: bool = False
    read_clears: bool = False

    @property
    def writable(self) -> bool:
        """Whether a write has any effect."""
        return self.stores or self.clears or self.passes


@dataclass
class MapField:
    """Bits ``high`` to ``low``. ``remarks``: what could not be carried over, a sentence each."""

    name: str
    high: int
    low: int
    kind: Kind
    names: dict[int, str] = field(default_factory=dict)
    text: str = ""
    remarks: list[str] = field(default_factory=list)


@dataclass
class MapRegister:
    """A register of ``width`` bits at byte ``offset`` of its block.

    ``dims``: (count, stride in bytes) of each dimension of an array, the outermost first.
    ``kind``: of its bits when it has no fields.
    """

    name: str
    offset: int
    width: int
    kind: Kind
    reset: int = 0
    fields: list[MapField] = field(default_factory=list)
    dims: tuple[tuple[int, int], ...] = ()
    text: str = ""
    remarks: list[str] = field(default_factory=list)


@dataclass
class MapMemory:
    """``length`` bytes of memory at byte ``offset`` of its block."""

    name: str
    offset: int
    length: int
    writable: bool
    text: str = ""


@dataclass
class RegisterMap:
    """One block. ``size``: bytes that the file gives it, 0 when it does not say."""

    name: str
    text: str = ""
    size: int = 0
    registers: list[MapRegister] = field(default_factory=list)
    memories: list[MapMemory] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
