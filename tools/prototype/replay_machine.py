"""A machine whose surroundings are a recording: guest memory, the clock, the host's ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from dm.device.device import Collaborators
from dm.device.platform import GuestMemory
from dm.errors import GuestError
from dm.machine.fakes import FakePlatform
from dm.observe.events import Event, Sink
from dm.observe.machine import ObservedMachine
from protocol import layouts

__all__ = ["Kept", "RecordedBackend", "ReplayMachine", "Script"]

NOW, DMA_READ, DMA_WRITE, OUTPUT = (
    layouts.RECORDING_KIND_NOW,
    layouts.RECORDING_KIND_DMA_READ,
    layouts.RECORDING_KIND_DMA_WRITE,
    layouts.RECORDING_KIND_OUTPUT,
)


class Script:
    """What the recording has for the device during one event, to be taken in order."""

    def __init__(self) -> None:
        self.inner: dict[int, deque[Event]] = {}

    def begin(self, inner: list[Event]) -> None:
        """Go on with the next event."""
        self.inner = {}
        for event in inner:
            self.inner.setdefault(event.kind, deque()).append(event)

    def next(self, kind: int) -> Event | None:
        """Take the next event of a kind."""
        queue = self.inner.get(kind)
        return queue.popleft() if queue else None


class RecordedMemory(GuestMemory):
    """Guest memory as the recording has it."""

    def __init__(self, script: Script) -> None:
        self._script = script

    def read(self, gpa: int, length: int) -> bytes:
        """What was read then; GuestError when something else was."""
        event = self._script.next(DMA_READ)
        if event is None or event.numbers != (gpa, length) or event.failed:
            raise GuestError(f"{length} bytes at {gpa:#x} are not all RAM, or were not read")
        return event.data

    def write(self, gpa: int, data: bytes | bytearray | memoryview[int]) -> None:
        """Nothing, or GuestError where the recording has one."""
        event = self._script.next(DMA_WRITE)
        if event is not None and event.failed:
            raise GuestError(f"{len(data)} bytes at {gpa:#x} are not all RAM")


class RecordedBackend:
    """A character back end that takes as much as was taken."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.receive: Callable[[bytes], None] = lambda data: None

    def connect(self, receive: Callable[[bytes], None], room: Callable[[], int]) -> None:
        """Take the device's end."""
        self.receive = receive

    def write(self, data: bytes) -> int:
        """How much was taken then."""
        event = self._script.next(OUTPUT)
        return len(data) if event is None else event.numbers[0]

    def accept_input(self) -> None:
        """Input comes when it came."""


class ReplayMachine(ObservedMachine):
    """An observed machine whose devices see the recorded times."""

    def __init__(self, kind: str, script: Script, sink: Sink) -> None:
        super().__init__(kind, FakePlatform(), RecordedMemory(script), lambda: 0, [sink])
        self._script = script

    def collaborators(self) -> Collaborators:
        """See `Machine.collaborators`."""
        given = super().collaborators()
        given.now = self._recorded_now
        return given

    def _recorded_now(self) -> int:
        event = self._script.next(NOW)
        return self.clock.now() if event is None else event.time

    def contain(self, error: Exception, what: str) -> None:
        """What a device raises is part of the event under way."""
        self.errors += 1


class Kept(Sink):
    """Keeps the events of what was done last."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def event(self, event: Event) -> None:
        """See `Sink.event`."""
        self.events.append(event)
