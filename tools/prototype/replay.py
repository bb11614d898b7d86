"""Re-drives one device with a recording, and finds where it does something else than recorded.

The device stands alone in an observed machine. Guest time, what it reads from guest memory, what
comes from the host and how much the host takes are the recording's; answers, interrupts, DMA and
output are compared. A timer fires when it did; one that the recording does not let fire soon after
its deadline fires by itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from dm.device.character import LiveCharacter
from dm.device.device import Deferral, Device
from dm.device.state import LiveTimer, Timer
from dm.errors import ConfigError
from dm.machine.reload import carry
from dm.machine.snapshot import parse
from dm.observe.events import Access, Event
from dm.observe.words import clock, describe, fields_of
from protocol import layouts

from .recording import Recording
from .replay_machine import Kept, RecordedBackend, ReplayMachine, Script

__all__ = ["Difference", "Replay"]

LATENESS = 1_000_000_000
"""Nanoseconds after its deadline within which a recorded timer is waited for."""

ACCESS, ANSWER, TIMER = (
    layouts.RECORDING_KIND_ACCESS,
    layouts.RECORDING_KIND_ANSWER,
    layouts.RECORDING_KIND_TIMER,
)
DMA_READ, OUTPUT = layouts.RECORDING_KIND_DMA_READ, layouts.RECORDING_KIND_OUTPUT
WHOLE_MACHINE = (
    layouts.RECORDING_KIND_RESET,
    layouts.RECORDING_KIND_STATE,
    layouts.RECORDING_KIND_LINES,
)
NOT_COMPARED = (layouts.RECORDING_KIND_NOW, *WHOLE_MACHINE, ACCESS)


@dataclass
class Difference:
    """The first thing in a record that is other than recorded. ``time``: guest time, nanoseconds.

    ``lines``: what was expected, what came, and the fields that differ. ``before``: the accesses
    before it, as (record number, event).
    """

    number: int
    time: int
    what: str
    lines: list[str]
    before: list[tuple[int, Event]] = field(default_factory=list)

    def __str__(self) -> str:
        head = f"record {self.number}, guest time {clock(self.time)}: {self.what}"
        lines = [head, *[f"  {line}" for line in self.lines]]
        if self.before:
            lines.append("before it:")
        for number, event in self.before:
            lines.append(f"  {number} {clock(event.time)} {describe(event)}")
        return "\n".join(lines)


class Replay:
    """A replay of what the recorded device did whose name ``device`` has.

    ``device`` is not bound yet. ``context``: how many accesses a
    difference shows before it. ``performed``: how many records were the device's. ``notes``: what
    a reader should know, one line each.
    """

    def __init__(self, recording: Recording, device: Device, context: int = 10) -> None:
        self._recording = recording
        self._device = device
        self._script = Script()
        self._kept = Kept()
        self._machine = ReplayMachine(recording.kind, self._script, self._kept)
        self._machine.add(device)
        self._machine.seal()
        self._machine.start()
        self._kept.events.clear()
        self._timers: dict[str, LiveTimer] = {}
        names = [name for name, d in device._declared.items() if isinstance(d, Timer)]
        self._timers.update(zip(names, device.timers, strict=True))
        self._backends: dict[str, RecordedBackend] = {}
        for name, plug in list(device.__dict__.items()):
            if isinstance(plug, LiveCharacter):
                self._backends[name] = RecordedBackend(self._script)
                plug.attach(self._backends[name])
        self._fires: dict[str, deque[int]] = {}
        for _, event in recording.events():
            if event.kind == TIMER and event.device == device.name:
                self._fires.setdefault(event.name, deque()).append(event.time)
        self._before: deque[tuple[int, Event]] = deque(maxlen=context)
        self.performed = 0
        self.notes: list[str] = []

    def differences(self) -> Iterator[Difference]:
        """Re-drive the device; each record that turns out otherwise gives one difference.

        Raises:
            ConfigError: a record is none.
        """
        name = self._device.name
        for number, event in self._recording.events():
            if event.device != name and event.kind not in WHOLE_MACHINE:
                continue
            yield from self._late_timers(number, event.time)
            self._machine.clock.set(event.time)
            expected = [inner for inner in event.inner if inner.device == name]
            self._script.begin(expected)
            self._kept.events.clear()
            problem = self._perform(event)
            self.performed += event.kind not in WHOLE_MACHINE
            found = problem or self._compare(event, expected)
            if found is not None:
                what, lines = found
                yield Difference(number, event.time, what, lines, list(self._before))
            if isinstance(event, Access):
                self._before.append((number, event))

    def _perform(self, event: Event) -> tuple[str, list[str]] | None:
        """Let happen what was recorded; what is in the way, as a difference's text."""
        if isinstance(event, Access):
            self._access(event)
            return None
        if event.kind == TIMER:
            return self._fire(event)
        if event.kind == layouts.RECORDING_KIND_INPUT:
            backend = self._backends.get(event.name)
            if backend is None:
                return f"{event.name} receives", ["the device has no such plug"]
            backend.receive(event.data)
        elif event.kind == layouts.RECORDING_KIND_RESET:
            self._machine.reset()
        elif event.kind == layouts.RECORDING_KIND_LINES:
            self._machine.connect()
        elif event.kind == layouts.RECORDING_KIND_STATE:
            self._load(event)
        elif event.kind == layouts.RECORDING_KIND_RELOAD:
            self.notes.append(f"at {clock(event.time)} its class was loaded again while recording")
        else:
            self.notes.append(f"at {clock(event.time)}, of its own accord: {describe(event)}")
        return None

    def _access(self, event: Access) -> None:
        bus, space, address, size = self._machine.bus, event.space, event.address, event.size
        step = -size if event.down else size
        try:
            if event.form == layouts.RECORDING_FORM_ELEMENT:
                if event.reads:
                    bus.read(space, address, size)
                else:
                    bus.write(space, address, size, event.value)
            elif event.form == layouts.RECORDING_FORM_STRING:
                if event.reads:
                    bus.read_string(space, address, size, event.count)
                else:
                    bus.write_string(space, address, size, event.data)
            elif event.reads:
                bus.read_block(space, address, size, event.count, step)
            else:
                bus.write_block(space, address, size, step, event.data)
        except Deferral as deferral:
            deferral.attach(lambda value: None)
        except Exception:
            return

    def _fire(self, event: Event) -> tuple[str, list[str]] | None:
        fires = self._fires.get(event.name)
        if fires:
            fires.popleft()
        timer = self._timers.get(event.name)
        if timer is None or not timer.armed or timer.deadline > event.time:
            state = "is not there" if timer is None else "is not due"
            return f"timer {event.name} fires", [f"expected: it fires; here it {state}"]
        self._run(timer)
        return None

    def _run(self, timer: LiveTimer) -> None:
        timer.stop()
        try:
            timer.handler()
        except Exception:
            return

    def _late_timers(self, number: int, until: int) -> Iterator[Difference]:
        """Fire what is due and what the recording does not fire soon."""
        for _ in range(1000):
            late = [
                (timer.deadline, name, timer)
                for name, timer in self._timers.items()
                if timer.armed and timer.deadline <= until and not self._awaited(name, timer)
            ]
            if not late:
                return
            deadline, name, timer = min(late, key=lambda one: one[:2])
            self._machine.clock.set(deadline)
            self._script.begin([])
            self._kept.events.clear()
            self._run(timer)
            did = [describe(inner) for inner in self._happened() if inner.kind not in NOT_COMPARED]
            if did:
                lines = [f"got: {line}" for line in did]
                what = f"timer {name} fires, as it did not while recording"
                yield Difference(number, deadline, what, lines, list(self._before))

    def _awaited(self, name: str, timer: LiveTimer) -> bool:
        fires = self._fires.get(name)
        return bool(fires) and fires[0] <= timer.deadline + LATENESS  # type: ignore[index]

    def _load(self, event: Event) -> None:
        """Give the device what a loaded state has for it."""
        try:
            state = parse(event.data).devices.get(self._device.name)
        except ConfigError as error:
            raise ConfigError(f"the recording's {error}") from None
        self._device.power_on()
        if state is not None:
            values = {k: v if isinstance(v, int) else bytes(v) for k, v in state.fields.items()}
            self.notes += carry(self._device, values)
        self._machine.after_load()

    def _happened(self) -> Iterator[Event]:
        """The inner events of what was done last, in order."""
        for event in self._kept.events:
            yield from _flat(event.inner)

    def _compare(self, event: Event, expected: list[Event]) -> tuple[str, list[str]] | None:
        """What is first otherwise about ``event``, as a difference's text."""
        if isinstance(event, Access):
            now = next(e for e in self._kept.events if isinstance(e, Access))
            event.window, event.offset, event.touched = now.window, now.offset, now.touched
            event.refused = now.refused
            found = _different_answer(event, now)
            if found is not None:
                return found
        wanted = [inner for inner in expected if inner.kind not in NOT_COMPARED]
        got = [inner for inner in self._happened() if inner.kind not in NOT_COMPARED]
        for index in range(max(len(wanted), len(got))):
            left = wanted[index] if index < len(wanted) else None
            right = got[index] if index < len(got) else None
            if left is None or right is None or _essence(left) != _essence(right):
                lines = [
                    f"expected: {'nothing' if left is None else describe(left)}",
                    f"got:      {'nothing' if right is None else describe(right)}",
                ]
                return describe(event), lines
        return None


def _flat(events: list[Event]) -> Iterator[Event]:
    for event in events:
        yield event
        yield from _flat(event.inner)


def _essence(event: Event) -> tuple[object, ...]:
    """What of an inner event must be as recorded."""
    if event.kind == ANSWER:
        return ANSWER, event.numbers[1]
    if event.kind == OUTPUT:
        return OUTPUT, event.name, event.data
    if event.kind == DMA_READ:
        return DMA_READ, event.numbers
    return event.kind, event.name, event.numbers, event.data


def _different_answer(wanted: Access, got: Access) -> tuple[str, list[str]] | None:
    if wanted.shared:
        return None
    same = (wanted.failed, wanted.deferred) == (got.failed, got.deferred)
    if same and (not wanted.reads or wanted.data == got.data):
        return None
    verb = "read" if wanted.reads else "write"
    what = f"{wanted.device} {wanted.register} {verb}{8 * wanted.size}"
    lines = [f"expected: {describe(wanted)}", f"got:      {describe(got)}"]
    if same:
        before = {name: value for name, value, _ in fields_of(wanted)}
        for name, value, _ in fields_of(got):
            if before.get(name) != value:
                lines.append(f"{name}: {before.get(name, 0):#x} expected, {value:#x} got")
    return what, lines
