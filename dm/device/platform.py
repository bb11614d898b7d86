"""What the machine hands to a device: the guest's memory, time, and the platform's services.

These are the collaborators' shapes. `dm.hypervisor` implements them for real, `dm.machine.fakes`
for tests; a device sees only what is written here.
"""

from __future__ import annotations

__all__ = ["MEMORY", "PCI", "PCI_SHIFT", "PORT", "GuestMemory", "Platform"]

PORT = 0
"""Port I/O space; a base is a port number. The values are Xen's range types (dm_op.h)."""
MEMORY = 1
"""Guest-physical memory space; a base is a GPA in bytes."""
PCI = 2
"""PCI configuration space; a base is ``SBDF << PCI_SHIFT``, a claim counts in SBDFs."""
PCI_SHIFT = 32
"""In PCI space an address is ``SBDF << 32 | register``, as Xen sends it (ioreq.h)."""


class GuestMemory:
    """The guest's RAM, by guest-physical address (GPA) in bytes."""

    def read(self, gpa: int, length: int) -> bytes:
        """``length`` bytes at ``gpa``; GuestError when some of them are not RAM."""
        raise NotImplementedError

    def write(self, gpa: int, data: bytes | bytearray | memoryview[int]) -> None:
        """Store ``data`` at ``gpa``; GuestError, and nothing stored, when some of it is not RAM."""
        raise NotImplementedError

    def invalidate(self) -> None:
        """Forget cached mappings: the guest gave pages back (IOREQ_TYPE_INVALIDATE)."""


class Platform:
    """What the other side of the machine does for its devices."""

    def claim(self, space: int, first: int, last: int) -> None:
        """Ask for the accesses to ``first``..``last`` (inclusive) of ``space``."""
        raise NotImplementedError

    def release(self, space: int, first: int, last: int) -> None:
        """Give a claimed range, or a part of one, back."""
        raise NotImplementedError

    def set_isa_irq(self, irq: int, level: int) -> None:
        """Drive ISA interrupt line ``irq`` (0..15) to ``level`` (0 or 1)."""
        raise NotImplementedError

    def set_intx(self, slot: int, pin: int, level: int) -> None:
        """Drive INTx ``pin`` (0 = INTA) of PCI device ``slot`` (0..31) on bus 0."""
        raise NotImplementedError

    def set_link_route(self, link: int, irq: int) -> None:
        """Route PCI link ``link`` (0..3) to ISA interrupt ``irq``; 0 disconnects it."""
        raise NotImplementedError

    def inject_msi(self, address: int, data: int) -> None:
        """Deliver a message signalled interrupt."""
        raise NotImplementedError

    def set_memory_type(self, first_gfn: int, count: int, *, writable: bool) -> None:
        """Make guest RAM pages writable or read-only for the guest."""
        raise NotImplementedError

    def shutdown(self, reason: str) -> None:
        """End the guest: ``poweroff``, ``reboot``, ``suspend``, ``crash`` or ``watchdog``."""
        raise NotImplementedError

    def suspend(self) -> None:
        """Put the guest into ACPI S3."""
        raise NotImplementedError
