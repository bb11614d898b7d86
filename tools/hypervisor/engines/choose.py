"""Which engine runs a guest: the one that is asked for, or the best that this machine has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import EngineUnavailable

if TYPE_CHECKING:
    from ..domain import Domain
    from ..images.cpu_start import CpuStart
    from . import Engine

__all__ = ["ENGINES", "make_engine"]

ENGINES = ("auto", "kvm", "unicorn")
MODES = ("real", "protected", "long")
"""In the order in which a guest goes through them."""


def make_engine(name: str, domain: Domain, start: CpuStart) -> Engine:
    """The engine ``name`` of `ENGINES` for ``domain``.

    ``kvm`` is content with a KVM that runs the mode in which the guest begins. ``auto`` takes KVM
    only where it also runs the modes that the guest may go on to, and Unicorn otherwise. Raises
    EngineUnavailable, with the reason, when there is none.
    """
    if name == "unicorn":
        return _unicorn(domain, start)
    if name == "kvm":
        return _kvm(domain, start, (start.mode,))
    if name != "auto":
        raise EngineUnavailable(f"there is no engine {name!r}; there are {', '.join(ENGINES)}")
    try:
        return _kvm(domain, start, MODES[MODES.index(start.mode) :])
    except EngineUnavailable as reason:
        try:
            return _unicorn(domain, start)
        except EngineUnavailable as error:
            raise EngineUnavailable(f"{error}; {reason}") from None


def _unicorn(domain: Domain, start: CpuStart) -> Engine:
    from .unicorn import UnicornEngine

    return UnicornEngine(domain, start)


def _kvm(domain: Domain, start: CpuStart, modes: tuple[str, ...]) -> Engine:
    from .kvm.engine import KvmEngine
    from .kvm.probe import unusable

    for mode in modes:
        reason = unusable(mode)
        if reason is not None:
            raise EngineUnavailable(reason)
    return KvmEngine(domain, start)
