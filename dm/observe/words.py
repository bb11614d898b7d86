"""How an event reads: one line each, the registers' fields by name.

The lines of equal events are equal: nothing of the host is in them, and time only if asked for.
"""

from __future__ import annotations

from zlib import crc32

from protocol import layouts

from .events import Access

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .events import Event
    from .filter import Filter

__all__ = ["clock", "describe", "fields_of", "lines", "shown"]

SHOWN_BYTES = 16
"""Longer data is summed up."""


def clock(time: int) -> str:
    """Nanoseconds of guest time as seconds."""
    return f"{time // 10**9}.{time % 10**9:09d}"


def shown(data: bytes) -> str:
    """Bytes in hexadecimal; the first of many, with their number and checksum."""
    if len(data) <= SHOWN_BYTES:
        return data.hex(" ")
    return f"{data[:SHOWN_BYTES].hex(' ')} … ({len(data)} bytes, crc32 {crc32(data):08x})"


def fields_of(access: Access) -> Iterator[tuple[str, int, str]]:
    """The fields of the registers that were touched, as (name, value, what the value is called).

    Only fields all of whose bits are part of the access. Where it covers several registers, names
    have the register in front, and a register without fields counts as one.
    """
    whole = access.form == layouts.RECORDING_FORM_ELEMENT and len(access.data) == access.size
    if not whole or access.refused:
        return
    several = len(access.touched) > 1
    for name, slot, at in access.touched:
        first = max(at, access.offset)
        last = min(at + slot.size, access.offset + access.size)
        value = access.value >> 8 * (first - access.offset) & (1 << 8 * (last - first)) - 1
        value <<= 8 * (first - at)
        seen = (1 << 8 * (last - at)) - (1 << 8 * (first - at))
        prefix = f"{name}." if several else ""
        if several and not slot.register.fields:
            yield name, value, ""
        for field in slot.register.fields.values():
            if field.mask & ~seen == 0:
                number = field.of(value)
                yield prefix + field.name, number, (field.names or {}).get(number, "")


def _fields(access: Access) -> str:
    return "".join(
        f" {name}={called or (f'{value:#x}' if value > 9 else value)}"
        for name, value, called in fields_of(access)
    )


def _access(access: Access) -> str:
    verb = f"{'read' if access.reads else 'write'}{8 * access.size}"
    words = f"{access.device or 'nobody'} {access.register} {verb}"
    if access.form != layouts.RECORDING_FORM_ELEMENT:
        kind = "block" if access.form == layouts.RECORDING_FORM_BLOCK else "string"
        words += f" {kind} x{access.count}{' down' if access.down else ''}"
    if access.deferred:
        return f"{words} is answered later"
    if not access.reads or not access.failed:
        if access.form == layouts.RECORDING_FORM_ELEMENT:
            words += f" {access.value:#0{2 + 2 * access.size}x}"
        else:
            words += f" {shown(access.data)}"
    words += _fields(access)
    if access.undeclared:
        words += " (not declared)"
    elif access.refused:
        words += " (no access of this size)"
    elif access.shared and access.window is not None:
        words += " (beyond the window)"
    return words


_WORDS: dict[int, Callable[[Event], str]] = {
    layouts.RECORDING_KIND_ANSWER: lambda e: f"{e.name} answers {e.numbers[1]:#x}",
    layouts.RECORDING_KIND_TIMER: lambda e: f"timer {e.name} fires",
    layouts.RECORDING_KIND_INPUT: lambda e: f"{e.name} receives {shown(e.data)}",
    layouts.RECORDING_KIND_RESET: lambda e: "reset",
    layouts.RECORDING_KIND_STATE: lambda e: "state was loaded",
    layouts.RECORDING_KIND_LINES: lambda e: "lines and ranges are told again",
    layouts.RECORDING_KIND_RELOAD: lambda e: f"class {e.name} was loaded again",
    layouts.RECORDING_KIND_NOW: lambda e: f"looks at the clock: {clock(e.time)}",
    layouts.RECORDING_KIND_DMA_READ: lambda e: (
        f"DMA read {e.numbers[0]:#x} {e.numbers[1]} bytes {shown(e.data)}".rstrip()
    ),
    layouts.RECORDING_KIND_DMA_WRITE: lambda e: (
        f"DMA write {e.numbers[0]:#x} {e.numbers[1]} bytes {shown(e.data)}".rstrip()
    ),
    layouts.RECORDING_KIND_ISA: lambda e: f"ISA IRQ {e.numbers[0]} level {e.numbers[1]}",
    layouts.RECORDING_KIND_INTX: lambda e: (
        f"INT{'ABCD'[e.numbers[1] & 3]} of slot {e.numbers[0]} level {e.numbers[2]}"
    ),
    layouts.RECORDING_KIND_LINK: lambda e: f"PCI link {e.numbers[0]} to IRQ {e.numbers[1]}",
    layouts.RECORDING_KIND_MSI: lambda e: f"MSI {e.numbers[0]:#x} data {e.numbers[1]:#x}",
    layouts.RECORDING_KIND_OUTPUT: lambda e: f"{e.name} sends {shown(e.data)}",
    layouts.RECORDING_KIND_MEMORY_TYPE: lambda e: (
        f"GFNs {e.numbers[0]:#x}+{e.numbers[1]:#x} {'writable' if e.numbers[2] else 'read-only'}"
    ),
    layouts.RECORDING_KIND_SHUTDOWN: lambda e: f"shutdown: {e.name}",
    layouts.RECORDING_KIND_SUSPEND: lambda e: "suspend",
}


def describe(event: Event) -> str:
    """One event in words, without its time and its inner events."""
    if isinstance(event, Access):
        words = _access(event)
    else:
        words = f"{event.device or 'machine'} {_WORDS[event.kind](event)}"
    if event.failed:
        error = event.error
        words += f" !{error if isinstance(error, str) else f'{type(error).__name__}: {error}'}"
    return words


def lines(event: Event, *, timed: bool, wanted: Filter, within: bool = False) -> Iterator[str]:
    """The event's line, then those of its inner events, as far as they are wanted.

    ``within``: the event around it is. Looks at the clock are left out.
    """
    chosen = wanted.passes(event) or (within and wanted.belongs(event))
    told = event.kind != layouts.RECORDING_KIND_LINES or bool(event.inner)
    if chosen and told and event.kind != layouts.RECORDING_KIND_NOW:
        yield f"{clock(event.time)} {describe(event)}" if timed else describe(event)
    for inner in event.inner:
        yield from lines(inner, timed=timed, wanted=wanted, within=chosen)
