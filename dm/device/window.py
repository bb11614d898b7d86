"""Where a bank appears: fixed ports or addresses, a BAR, or only in the device's own code."""

from __future__ import annotations

from .platform import MEMORY, PORT
from .register import DeclarationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Generic, TypeVar, overload

    from .bank import Bank
    from .state import Option

    B_co = TypeVar("B_co", bound=Bank, covariant=True)
    F = TypeVar("F", bound=Callable[..., object])

    class _Generic(Generic[B_co]):
        pass

else:

    class _Generic:
        """Stands in for ``typing.Generic``, whose import the process does not pay for."""

        def __class_getitem__(cls, _item):
            return cls

    B_co = None

__all__ = [
    "LiveWindow",
    "MmioBar",
    "MmioWindow",
    "PortBar",
    "PortWindow",
    "PrivateWindow",
    "Window",
]


class Window(_Generic[B_co]):
    """A bank at a place. ``space``: see `dm.device.platform`; None for a private window.

    On a running device the attribute is the bank.
    """

    space: int | None = None

    def __init__(self, bank: type[B_co], at: int | Option[int] | None = None) -> None:
        if not bank.size:
            raise DeclarationError(f"{bank.__name__} has no size, so it cannot be mapped")
        self.bank = bank
        self.at = at
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    if TYPE_CHECKING:

        @overload
        def __get__(self, device: None, owner: type) -> Window[B_co]: ...
        @overload
        def __get__(self, device: Any, owner: type) -> B_co: ...
        def __get__(self, device: Any, owner: type) -> Window[B_co] | B_co: ...

    def address(self, method: F) -> F:
        """Derive the place from state: ``method(self)`` gives the base, or None for nowhere.

        It must be a pure function of the device's state; the machine asks again after
        ``self.remap()``, a reset and a load.
        """
        method._window = self  # type: ignore[attr-defined]
        return method

    def default_base(self, device: Any) -> int | None:
        """The declared base: a number or the value of an option."""
        if self.at is None or isinstance(self.at, int):
            return self.at
        base: int = getattr(device, self.at.name)
        return base


class PortWindow(Window[B_co]):
    """A bank in port I/O space, at a port number or at the value of an option."""

    space = PORT


class MmioWindow(Window[B_co]):
    """A bank in guest-physical memory, at a GPA in bytes or at the value of an option."""

    space = MEMORY


class PrivateWindow(Window[B_co]):
    """A bank that only the device's own code reads and writes (behind an index register, say)."""


class _Bar(Window[B_co]):
    """A bank behind a base address register of a PCI function."""

    def __init__(self, bank: type[B_co], index: int) -> None:
        super().__init__(bank)
        if not 0 <= index <= 5:
            raise DeclarationError(f"there is no BAR {index}")
        if bank.size & (bank.size - 1):
            raise DeclarationError(f"{bank.__name__}: a BAR's size must be a power of two")
        self.index = index


class MmioBar(_Bar[B_co]):
    """Memory BAR ``index`` (0..5) over a bank; ``bits`` is 32 or 64 (then it takes two BARs)."""

    space = MEMORY

    def __init__(
        self, bank: type[B_co], index: int, *, bits: int = 32, prefetchable: bool = False
    ) -> None:
        super().__init__(bank, index)
        if bits not in (32, 64) or (bits == 64 and index == 5) or bank.size < 16:
            raise DeclarationError(f"{bank.__name__} cannot be memory BAR {index} of {bits} bits")
        self.bits = bits
        self.prefetchable = prefetchable


class PortBar(_Bar[B_co]):
    """I/O BAR ``index`` (0..5) over a bank of 4 to 256 bytes."""

    space = PORT

    def __init__(self, bank: type[B_co], index: int) -> None:
        super().__init__(bank, index)
        if not 4 <= bank.size <= 256:
            raise DeclarationError(f"{bank.__name__}: an I/O BAR has 4 to 256 bytes")


class LiveWindow:
    """A window of a running device: the bank, the space, and the base that state gives it."""

    __slots__ = ("bank", "base", "device", "name", "size", "space", "wanted")

    def __init__(
        self,
        name: str,
        device: Any,
        bank: Bank,
        space: int,
        size: int,
        wanted: Callable[[], int | None],
    ) -> None:
        self.name = name
        self.device = device
        self.bank = bank
        self.space = space
        self.size = size
        self.wanted = wanted
        self.base: int | None = None

    def describe(self, address: int) -> str:
        """Device, window and register at ``address`` of the window's space."""
        offset = address - (self.base or 0)
        return f"{self.device.name}.{self.name}.{self.bank.describe(offset)}"
