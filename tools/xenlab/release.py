"""Which Xen releases the laboratory knows, and the Debian suite that each of them comes from."""

from __future__ import annotations

from dataclasses import dataclass

from dm.errors import ConfigError

__all__ = ["DEFAULT_XEN", "RELEASES", "Release", "find_release"]


@dataclass(frozen=True)
class Release:
    """One stock Xen host: a Xen version and the Debian suite that packages it.

    ``xen`` is the version as in package names, ``suite`` the archive's code name, ``python`` the
    version of that suite's own ``python3``.
    """

    xen: str
    suite: str
    python: str


RELEASES = {
    "4.17": Release(xen="4.17", suite="bookworm", python="3.11"),
    "4.20": Release(xen="4.20", suite="trixie", python="3.13"),
}
DEFAULT_XEN = "4.17"


def find_release(xen: str) -> Release:
    """Return the release called ``xen``; raise ConfigError with the known ones if there is none."""
    try:
        return RELEASES[xen]
    except KeyError:
        known = ", ".join(RELEASES)
        raise ConfigError(f"the laboratory has no Xen {xen!r}; it has {known}") from None
