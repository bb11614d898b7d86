"""What a user wants to run: which guest on which machine, with which devices."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Plan"]


@dataclass(frozen=True)
class Plan:
    """One run of a guest with its device model.

    ``devices``: as `-device` takes them. ``kernel``: an ELF file, a flat image or C source;
    ``bios``: a firmware image; ``script``: Python that makes accesses itself; at most one of them.
    With none the registers of the devices are shown.
    ``engine``: ``auto``, ``kvm`` or ``unicorn``. ``memory_mib``: guest RAM. ``serial``: where COM1
    goes, as `-serial` takes it. ``observe``: values of `-observe`. ``supervise``: start the device
    model again when it dies. ``extra``: further words for `ioreqd-dm`.
    """

    devices: tuple[str, ...] = ()
    kernel: Path | None = None
    bios: Path | None = None
    script: Path | None = None
    append: str = ""
    engine: str = "auto"
    vcpus: int = 1
    memory_mib: int = 64
    serial: str = "stdio"
    observe: tuple[str, ...] = ()
    supervise: bool = False
    in_process: bool = False
    extra: tuple[str, ...] = ()

    @property
    def scripted(self) -> bool:
        """Whether there is no guest but Python that makes accesses, in virtual time."""
        return self.kernel is None and self.bios is None
