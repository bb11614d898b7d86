"""What a device class declares beside registers, as tables: identity, options, lines, state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dm.device.character import Character
from dm.device.line import IsaLine
from dm.device.pci import PciDevice
from dm.device.state import Fifo, Memory, Option, Timer, Transient, Word

if TYPE_CHECKING:
    from dm.device.device import Device

    from .doc_notes import Notes

__all__ = ["Section", "sections_of"]


@dataclass(frozen=True)
class Section:
    """A table under a title; every cell is text."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def sections_of(cls: type[Device], sources: Notes) -> tuple[Section, ...]:
    """The tables of ``cls`` that have a row."""
    notes = sources.of(cls)
    made = (
        Section("PCI identity", ("Register", "Value"), tuple(_identity(cls))),
        Section("PCI capabilities", ("Offset", "Id", "Capability"), tuple(_capabilities(cls))),
        Section("Options", ("Option", "Type", "Default", "Meaning"), tuple(_options(cls))),
        Section("Interrupts", ("Line", "Drives", "Level"), tuple(_lines(cls, notes))),
        Section("Timers", ("Timer", "When it fires"), tuple(_timers(cls, notes))),
        Section("Character devices", ("Plug", "Meaning"), tuple(_plugs(cls, notes))),
        Section("State beside registers", ("Name", "Kind", "Meaning"), tuple(_state(cls, notes))),
    )
    return tuple(section for section in made if section.rows)


def _identity(cls: type[Device]) -> list[tuple[str, ...]]:
    if not issubclass(cls, PciDevice) or not hasattr(cls, "identity"):
        return []
    identity = cls.identity
    pin = f"INT{' ABCD'[identity.pin]}" if identity.pin else "none"
    return [
        ("vendor", f"{identity.vendor:#06x}"),
        ("device", f"{identity.device:#06x}"),
        ("class code", f"{identity.class_code:#08x}"),
        ("revision", f"{identity.revision:#04x}"),
        ("subsystem", f"{identity.subsystem_vendor:#06x}:{identity.subsystem:#06x}"),
        ("interrupt pin", pin),
        ("multifunction", "yes" if identity.multifunction else "no"),
    ]


def _capabilities(cls: type[Device]) -> list[tuple[str, ...]]:
    if not issubclass(cls, PciDevice):
        return []
    return [
        (f"{one.offset:#04x}", f"{one.capability_id:#04x}", _first_line(type(one)))
        for one in cls.capabilities
    ]


def _options(cls: type[Device]) -> list[tuple[str, ...]]:
    return [
        (name, one.kind.__name__, _value(one.default), one.doc)
        for name, one in _of_kind(cls, Option)
    ]


def _value(default: object) -> str:
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, int):
        return f"{default} ({default:#x})" if default > 9 else str(default)
    return f'"{default}"'


def _lines(cls: type[Device], notes: dict[str, str]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, line in _of_kind(cls, IsaLine):
        irq = line.irq
        number = (
            f"{irq}" if isinstance(irq, int) else f"option `{irq.name}` (default {irq.default})"
        )
        level = _handler_text(cls, (id(line), "level"))
        rows.append(
            (name, f"ISA interrupt {number}", " ".join((notes.get(name, ""), level)).strip())
        )
    if issubclass(cls, PciDevice) and cls.irq_level is not PciDevice.irq_level:
        pin = cls.identity.pin if hasattr(cls, "identity") else 0
        drives = [f"INT{' ABCD'[pin]}"] if pin else []
        drives += ["MSI"] if any(c.capability_id == 0x05 for c in cls.capabilities) else []
        rows.append(("irq_level", " or ".join(drives), _first_line(cls.irq_level)))
    return rows


def _timers(cls: type[Device], notes: dict[str, str]) -> list[tuple[str, ...]]:
    return [
        (name, notes.get(name, "") or _handler_text(cls, (id(timer), "expired")))
        for name, timer in _of_kind(cls, Timer)
    ]


def _plugs(cls: type[Device], notes: dict[str, str]) -> list[tuple[str, ...]]:
    return [(name, notes.get(name, "")) for name, _ in _of_kind(cls, Character)]


def _state(cls: type[Device], notes: dict[str, str]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, one in cls._declared.items():
        if name in PciDevice._declared and one is PciDevice._declared[name]:
            continue
        kind = _kind_of_state(one)
        if kind:
            rows.append((name, kind, notes.get(name, "")))
    return rows


def _kind_of_state(one: object) -> str:
    if isinstance(one, Word):
        return f"{one.bits} bits" + (f", {one.reset:#x} after reset" if one.reset else "")
    if isinstance(one, Memory):
        return f"{one.length} bytes of memory"
    if isinstance(one, Fifo):
        return f"queue of {one.capacity} bytes"
    return "host side only, not saved" if isinstance(one, Transient) else ""


def _of_kind(cls: type[Device], kind: Any) -> list[tuple[str, Any]]:
    return [(name, one) for name, one in cls._declared.items() if isinstance(one, kind)]


def _handler_text(cls: type[Device], key: tuple[int, str]) -> str:
    method = cls._handlers.get(key)
    return "" if method is None else _first_line(getattr(cls, method)) or f"`{method}`"


def _first_line(documented: object) -> str:
    return (documented.__doc__ or "").strip().partition("\n")[0]
