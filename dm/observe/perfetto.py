"""The trace that ui.perfetto.dev and chrome://tracing open: a track for each device.

Source: the Trace Event Format (Google, 2016), JSON array form, whose closing bracket may be
missing. Times are microseconds. A slice begins at its guest time, or, where guest time stood still
meanwhile, at the end of the slice before it; its length is the host time that the device took.
"""

from __future__ import annotations

import json

from protocol import layouts

from .events import Access, Sink
from .words import clock, describe, fields_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .events import Event
    from .filter import Filter
    from .machine import ObservedMachine
    from .output import Output

__all__ = ["PerfettoTrace"]

PROCESS = 1
MACHINE_TRACK = 1
"""As thread ids: the machine's own track; devices follow in their order."""

_COUNTERS = {
    layouts.RECORDING_KIND_ISA: lambda n: (f"ISA IRQ {n[0]}", n[1]),
    layouts.RECORDING_KIND_INTX: lambda n: (f"INT{'ABCD'[n[1] & 3]} of slot {n[0]}", n[2]),
}
_SLICES = (
    layouts.RECORDING_KIND_ACCESS,
    layouts.RECORDING_KIND_TIMER,
    layouts.RECORDING_KIND_INPUT,
    layouts.RECORDING_KIND_RESET,
    layouts.RECORDING_KIND_STATE,
)
_SILENT = (layouts.RECORDING_KIND_NOW, layouts.RECORDING_KIND_LINES)


class PerfettoTrace(Sink):
    """Writes the trace events of what passes ``wanted``."""

    def __init__(self, output: Output, wanted: Filter) -> None:
        self._output = output
        self._wanted = wanted
        self._tracks: dict[str, int] = {}
        self._free = 0.0
        self._first = True

    def start(self, machine: ObservedMachine) -> None:
        """See `Sink.start`."""
        self._put([self._meta("process_name", 0, f"machine {machine.kind}")])
        self._put([self._meta("thread_name", MACHINE_TRACK, "machine")])
        for number, device in enumerate(machine.devices, MACHINE_TRACK + 1):
            self._tracks[device.name] = number
            self._put([self._meta("thread_name", number, device.name)])

    @staticmethod
    def _meta(name: str, track: int, value: str) -> dict[str, Any]:
        return {"ph": "M", "pid": PROCESS, "tid": track, "name": name, "args": {"name": value}}

    def event(self, event: Event) -> None:
        """See `Sink.event`."""
        found: list[dict[str, Any]] = []
        begin = max(event.time / 1000, self._free)
        self._collect(event, begin, False, found)
        if found:
            self._free = begin + event.took / 1000
            self._put(found)

    def _collect(
        self, event: Event, begin: float, within: bool, found: list[dict[str, Any]]
    ) -> float:
        """Add the event's trace events from ``begin`` on; gives where it ends."""
        chosen = self._wanted.passes(event) or (within and self._wanted.belongs(event))
        end = begin
        if chosen and event.kind not in _SILENT:
            found.append(self._one(event, begin))
        inside = begin
        for inner in event.inner:
            inside = self._collect(inner, inside, chosen, found)
        if event.kind in _SLICES:
            end += event.took / 1000
        return max(end, inside)

    def _one(self, event: Event, at: float) -> dict[str, Any]:
        track = self._tracks.get(event.device, MACHINE_TRACK)
        common = {"pid": PROCESS, "tid": track, "ts": at, "cat": "ioreqd"}
        counter = _COUNTERS.get(event.kind)
        if counter is not None:
            name, level = counter(event.numbers)
            return {**common, "ph": "C", "name": name, "args": {"level": level}}
        arguments: dict[str, Any] = {"what": describe(event), "guest time": clock(event.time)}
        if event.kind not in _SLICES:
            name = describe(event).removeprefix(f"{event.device} ")
            return {**common, "ph": "i", "s": "t", "name": name, "args": arguments}
        if isinstance(event, Access):
            arguments |= {name: called or value for name, value, called in fields_of(event)}
        duration = event.took / 1000
        return {**common, "ph": "X", "dur": duration, "name": _title(event), "args": arguments}

    def _put(self, found: list[dict[str, Any]]) -> None:
        text = ",\n".join([json.dumps(one) for one in found])
        self._output.write((("[\n" if self._first else ",\n") + text).encode())
        self._first = False

    def close(self) -> None:
        """See `Sink.close`."""
        self._output.write(b"[\n]\n" if self._first else b"\n]\n")
        self._output.close()


def _title(event: Event) -> str:
    if isinstance(event, Access):
        return f"{event.register} {'read' if event.reads else 'write'}"
    if event.kind == layouts.RECORDING_KIND_TIMER:
        return f"timer {event.name}"
    return describe(event).removeprefix(f"{event.device or 'machine'} ")
