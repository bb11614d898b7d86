"""What the declarations of a device class say, as data that a page can be made of.

Everything comes from the class itself; nothing is constructed and no handler is called.
"""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dm.device.bank import Bank
from dm.device.device import Device
from dm.device.pci import PciConfig, PciWindow
from dm.device.register import Register, RegisterArray, RegisterSlot
from dm.device.state import Option
from dm.device.window import MmioBar, MmioWindow, PortBar, PortWindow, Window

from .doc_notes import Notes, class_text
from .doc_sections import Section, sections_of

if TYPE_CHECKING:
    from dm.device.register import Field

__all__ = ["DeviceDoc", "FieldDoc", "MemoryDoc", "RegisterDoc", "WindowDoc", "describe"]

_EVENTS = {
    "write": "acts on writes",
    "read": "acts on reads",
    "compute": "computed",
    "read_block": "answers string reads at once",
    "write_block": "takes string writes at once",
}


@dataclass(frozen=True)
class FieldDoc:
    """Bits ``high`` to ``low`` of a register. ``values``: what each named value is called."""

    name: str
    high: int
    low: int
    access: str
    reset: int
    values: dict[int, str]
    text: str


@dataclass(frozen=True)
class RegisterDoc:
    """A register or an array of ``count``, ``stride`` bytes apart, at ``offset``; width in bits."""

    name: str
    offset: int
    width: int
    access: str
    reset: int
    text: str
    fields: tuple[FieldDoc, ...]
    count: int = 1
    stride: int = 0
    remarks: tuple[str, ...] = ()

    @property
    def meaning(self) -> str:
        """Text and remarks in a line."""
        return "; ".join(part.rstrip(".") for part in (self.text, *self.remarks) if part)


@dataclass(frozen=True)
class MemoryDoc:
    """Plain memory of ``length`` bytes at ``offset``."""

    name: str
    offset: int
    length: int
    access: str
    text: str


@dataclass(frozen=True)
class WindowDoc:
    """A bank at a place; ``remarks`` are its rules of access."""

    name: str
    place: str
    size: int
    text: str
    remarks: tuple[str, ...]
    entries: tuple[RegisterDoc | MemoryDoc, ...]

    @property
    def registers(self) -> list[RegisterDoc]:
        """The registers among the entries."""
        return [entry for entry in self.entries if isinstance(entry, RegisterDoc)]


@dataclass(frozen=True)
class DeviceDoc:
    """A device class."""

    name: str
    summary: str
    text: str
    windows: tuple[WindowDoc, ...]
    sections: tuple[Section, ...] = field(default=())


def describe(cls: type[Device]) -> DeviceDoc:
    """All that ``cls`` declares."""
    notes = Notes()
    found = [(n, d) for n, d in cls._declared.items() if isinstance(d, Window)]
    found.sort(key=lambda item: isinstance(item[1], PciWindow))
    windows = tuple(_window(cls, name, window, notes) for name, window in found)
    return DeviceDoc(cls.__name__, cls.summary, _text(cls), windows, sections_of(cls, notes))


def _text(cls: type[Device]) -> str:
    """The class's docstring, and its module's where the module is about this device alone."""
    module = sys.modules.get(cls.__module__)
    others = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Device)
        and value.__module__ == cls.__module__
        and not value.__name__.startswith("_")
        and value is not cls
    ]
    about = "" if module is None or others else inspect.cleandoc(module.__doc__ or "")
    return "\n\n".join(part for part in (class_text(cls), about) if part)


def _window(cls: type[Device], name: str, window: Window[Any], sources: Notes) -> WindowDoc:
    bank = window.bank
    remarks = []
    if bank.sizes != Bank.sizes:
        sizes = ", ".join(map(str, bank.sizes))
        remarks.append(f"Only accesses of {sizes} bytes are answered.")
    remarks.append(f"What is not listed reads as {bank.gap:#04x} in every byte.")
    if cls.on_reset is not Device.on_reset:
        remarks.append("`on_reset` may change the reset values listed.")
    notes = sources.of(bank)
    entries: list[RegisterDoc | MemoryDoc] = [
        MemoryDoc(n, m.offset, m.length, "RW" if m.writable else "RO", notes.get(n, ""))
        for n, m in bank.memories.items()
    ]
    for slot in bank.slots.values():
        entries.append(_register(cls, slot, notes.get(slot.name, ""), sources))
    entries.sort(key=lambda entry: entry.offset)
    # A PCI function's bank is made for it, from the one that somebody wrote.
    written = bank.__bases__[0] if isinstance(window, PciWindow) else bank
    text = "" if written is PciConfig else class_text(written)
    return WindowDoc(name, _place(cls, window), bank.size, text, tuple(remarks), tuple(entries))


def _place(cls: type[Device], window: Window[Any]) -> str:
    """Where a window is, in words."""
    if isinstance(window, PciWindow):
        return "PCI configuration space"
    if isinstance(window, MmioBar):
        extra = ", prefetchable" if window.prefetchable else ""
        return f"memory BAR {window.index} ({window.bits} bits{extra})"
    if isinstance(window, PortBar):
        return f"I/O BAR {window.index}"
    kind = {PortWindow: "I/O ports", MmioWindow: "memory"}.get(type(window))
    if kind is None:
        return "private: reached by the device's own code only"
    method = cls._handlers.get((id(window), "address"))
    if method is not None:
        return f"{kind}, where state says (`{method}`)"
    if isinstance(window.at, Option):
        return f"{kind} from option `{window.at.name}` (default {window.at.default:#x})"
    return f"{kind}, nowhere" if window.at is None else f"{kind} from {window.at:#x}"


def _register(
    cls: type[Device],
    slot: RegisterSlot[Any] | RegisterArray[Any],
    note: str,
    sources: Notes,
) -> RegisterDoc:
    single = slot.element if isinstance(slot, RegisterArray) else slot
    kind = single.register
    own = "" if kind is Register else class_text(kind)
    field_notes = sources.of(kind)
    fields = tuple(
        FieldDoc(
            name,
            one.high,
            one.low,
            (one.access or single.access).name,
            one.of(single.reset),
            dict(one.names or {}),
            field_notes.get(name, ""),
        )
        for name, one in sorted(kind.fields.items(), key=lambda item: -item[1].low)
    )
    return RegisterDoc(
        slot.name,
        single.offset,
        single.width or 0,
        _access(single, kind.fields),
        single.reset,
        "\n\n".join(part for part in (note, own) if part),
        fields,
        slot.count if isinstance(slot, RegisterArray) else 1,
        (slot.stride or single.size) if isinstance(slot, RegisterArray) else 0,
        tuple(_remarks(cls, single)),
    )


def _access(slot: RegisterSlot[Any], fields: Any) -> str:
    """The access kinds of all of a register's bits."""
    kinds: list[Field] = list(fields.values())
    names = dict.fromkeys((one.access or slot.access).name for one in kinds) or [slot.access.name]
    return ", ".join(names)


def _remarks(cls: type[Device], slot: RegisterSlot[Any]) -> list[str]:
    """Conditions, masks, and what the device does on an access."""
    remarks = []
    if slot.when is not None:
        other, condition, value = slot.when
        remarks.append(f"there while {other.name}.{condition.name} is {value:#x}")
    if slot.writable is not None:
        remarks.append(f"writable bits: {slot.writable:#x}")
    if slot.exact:
        remarks.append("only as a whole")
    for event, words in _EVENTS.items():
        method = cls._handlers.get((id(slot.origin), event))
        if method is not None:
            text = (getattr(cls, method).__doc__ or "").strip().partition("\n")[0]
            remarks.append(f"{words}: {text}" if text else words)
    return remarks
