"""What differs between two saved states, one line per difference."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .describe import DeviceView, FieldView, StateView, plain

__all__ = ["differences"]


def differences(one: StateView, two: StateView) -> Iterator[str]:
    """A line for each difference; none when the states are the same."""
    if one.kind != two.kind:
        yield f"machine: {plain(one.kind)} -> {plain(two.kind)}"
    if one.guest_time != two.guest_time:
        yield f"guest time: {one.guest_time} -> {two.guest_time} ns"
    for name in _all(one.devices, two.devices):
        before, after = one.devices.get(name), two.devices.get(name)
        if before is None or after is None:
            yield f"device {plain(name)}: only in the {'second' if before is None else 'first'}"
        else:
            yield from _device(before, after)


def _all(first: Iterable[str], second: Iterable[str]) -> list[str]:
    return list(dict.fromkeys([*first, *second]))


def _device(before: DeviceView, after: DeviceView) -> Iterator[str]:
    name = plain(before.name)
    if before.class_name != after.class_name:
        yield f"{name}: class {plain(before.class_name)} -> {plain(after.class_name)}"
    if before.version != after.version:
        yield f"{name}: version {before.version} -> {after.version}"
    for field in _all(before.fields, after.fields):
        old, new = before.fields.get(field), after.fields.get(field)
        where = f"{name}.{plain(field)}"
        if old is None or new is None:
            yield f"{where}: only in the {'second' if old is None else 'first'}"
        elif old.value != new.value:
            yield f"{where}: {_change(old, new)}"


def _change(old: FieldView, new: FieldView) -> str:
    if not isinstance(old.value, int) and not isinstance(new.value, int):
        return _memory_change(old.value, new.value)
    bits = [
        f"{name} {value:#x} -> {new.bits[name]:#x}"
        for name, value in old.bits.items()
        if name in new.bits and new.bits[name] != value
    ]
    named = f" ({', '.join(bits)})" if bits else ""
    return f"{old.text} -> {new.text}{named}"


def _memory_change(old: memoryview[int], new: memoryview[int]) -> str:
    if len(old) != len(new):
        return f"{len(old)} -> {len(new)} bytes"
    places = [at for at, (a, b) in enumerate(zip(old, new, strict=True)) if a != b]
    first = places[0]
    return (
        f"{len(places)} of {len(old)} bytes differ, the first at {first:#x}:"
        f" {old[first]:#04x} -> {new[first]:#04x}"
    )
