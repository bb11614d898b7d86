"""A machine that is observed: every access, interrupt, DMA and timer becomes an event for sinks.

It differs from a plain machine by the objects that it is made of. Its dispatch tables stay empty,
so that every request comes to its bus; its devices get a platform, a memory, a clock and character
plugs that tell. What a device does to other devices, through the machine's bus, is an inner event.
"""

from __future__ import annotations

from time import perf_counter_ns

from dm.device.character import Character, LiveCharacter
from dm.device.deferral import Deferral
from dm.device.platform import MEMORY, PORT
from dm.device.state import Timer
from dm.machine.address_space import AddressSpaces
from dm.machine.bus import Bus
from dm.machine.machine import Machine
from protocol import layouts

from .collaborators import ObservedCharacter, ObservedMemory, ObservedPlatform
from .events import Access, Event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from dm.device.device import Device
    from dm.device.platform import GuestMemory, Platform
    from dm.device.state import LiveTimer
    from dm.device.window import LiveWindow
    from dm.errors import HostError

    from .events import Sink

    T = TypeVar("T")

__all__ = ["ObservedMachine", "Watch"]

ELEMENT, STRING, BLOCK = (
    layouts.RECORDING_FORM_ELEMENT,
    layouts.RECORDING_FORM_STRING,
    layouts.RECORDING_FORM_BLOCK,
)
WHOLE = {PORT: (0, 0xFFFF), MEMORY: (0, (1 << 52) - 1)}
"""First and last address; of memory, as far as a processor's physical addresses go."""


class Watch:
    """What is under way, and who is told when it is over. ``now`` gives guest time."""

    def __init__(self, now: Callable[[], int], sinks: list[Sink]) -> None:
        self.now = now
        self.sinks = sinks
        self.under_way: list[Event] = []
        self.accesses = 0
        self.last_failed: Access | None = None

    def note(self, event: Event) -> None:
        """Something happened at once."""
        if self.under_way:
            self.under_way[-1].inner.append(event)
            return
        for sink in self.sinks:
            sink.event(event)

    def during(self, event: Event, action: Callable[[], T]) -> T:
        """Do ``action``; what is noted meanwhile is part of ``event``."""
        self.under_way.append(event)
        start = perf_counter_ns()
        try:
            return action()
        except Deferral:
            raise
        except BaseException as error:
            event.error = error
            if isinstance(event, Access):
                self.last_failed = event
            raise
        finally:
            event.took = perf_counter_ns() - start
            self.under_way.pop()
            self.note(event)


class ObservedSpaces(AddressSpaces):
    """Address spaces without dispatch tables: the bus finds the window of every access.

    ``everything``: the platform is asked for all ports and all memory, so that what no window has
    comes here, too.
    """

    def __init__(self, platform: Platform, *, everything: bool = False) -> None:
        super().__init__(platform)
        self._whole = WHOLE if everything else {}

    def place_all(self) -> list[HostError]:
        """See `AddressSpaces.place_all`."""
        problems = super().place_all()
        for space in self._whole:
            problems += self._claim(space)
        return problems

    def _extents(self, space: int) -> list[tuple[int, int]]:
        return [self._whole[space]] if space in self._whole else super()._extents(space)

    def remember(
        self, space: int, address: int, size: int, window: LiveWindow, offset: int
    ) -> None:
        """Nothing is remembered."""

    def _enter(self, window: LiveWindow, pieces: list[tuple[int, int]]) -> None:
        """Nothing is entered."""


class ObservedBus(Bus):
    """A bus that tells of each access. The rules are those of the plain bus behind it."""

    def __init__(self, spaces: AddressSpaces, watch: Watch) -> None:
        self._plain = Bus(spaces)
        super().__init__(spaces)
        self._places = spaces
        self._watch = watch

    @property
    def last(self) -> Device | None:
        """See `Bus`."""
        return self._plain.last

    @last.setter
    def last(self, device: Device | None) -> None:
        self._plain.last = device

    @property
    def unclaimed(self) -> int:
        """See `Bus`."""
        return self._plain.unclaimed

    @unclaimed.setter
    def unclaimed(self, count: int) -> None:
        self._plain.unclaimed = count

    def _observe(self, access: Access, action: Callable[[], T], size: int = 0) -> T:
        """Make the access; ``size``: bytes of the number that it reads, 0 for bytes or nothing."""
        watch = self._watch
        length = access.size * access.count if access.form == BLOCK else access.size
        low = access.address - (length - access.size if access.down else 0)
        found = self._places.find(access.space, low)
        access.locate(None if found is None else found[0], 0 if found is None else found[2])
        access.serial = watch.accesses
        watch.accesses += 1

        def perform() -> T:
            try:
                answer = action()
            except Deferral as deferral:
                self._await(access, deferral)
                raise
            if isinstance(answer, int):
                access.data = (answer & (1 << 8 * size) - 1).to_bytes(size, "little")
            elif isinstance(answer, bytes):
                access.data = answer
            return answer

        return watch.during(access, perform)

    def _await(self, access: Access, deferral: Deferral) -> None:
        """Tell of the answer when it comes."""
        access.deferred = True
        watch, device, register = self._watch, access.device, access.register
        kind, serial = layouts.RECORDING_KIND_ANSWER, access.serial

        def answered(value: int) -> None:
            numbers = (serial, value & (1 << 64) - 1)
            watch.note(Event(kind, watch.now(), device, register, numbers))

        deferral.watch = answered

    def read(self, space: int, address: int, size: int) -> int:
        """See `Bus.read`."""
        access = Access(self._watch.now(), space, ELEMENT, address, size, 1, reads=True)
        return self._observe(access, lambda: self._plain.read(space, address, size), size)

    def write(self, space: int, address: int, size: int, value: int) -> None:
        """See `Bus.write`."""
        data = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
        now = self._watch.now()
        access = Access(now, space, ELEMENT, address, size, 1, reads=False, data=data)
        self._observe(access, lambda: self._plain.write(space, address, size, value))

    def read_string(self, space: int, address: int, size: int, count: int) -> bytes:
        """See `Bus.read_string`."""
        access = Access(self._watch.now(), space, STRING, address, size, count, reads=True)
        return self._observe(access, lambda: self._plain.read_string(space, address, size, count))

    def write_string(self, space: int, address: int, size: int, data: bytes) -> None:
        """See `Bus.write_string`."""
        now, count = self._watch.now(), len(data) // size
        access = Access(now, space, STRING, address, size, count, reads=False, data=data)
        self._observe(access, lambda: self._plain.write_string(space, address, size, data))

    def read_block(self, space: int, first: int, size: int, count: int, step: int) -> bytes:
        """See `Bus.read_block`."""
        now = self._watch.now()
        access = Access(now, space, BLOCK, first, size, count, reads=True, down=step < 0)
        return self._observe(
            access, lambda: self._plain.read_block(space, first, size, count, step)
        )

    def write_block(self, space: int, first: int, size: int, step: int, data: bytes) -> None:
        """See `Bus.write_block`."""
        now, count, down = self._watch.now(), len(data) // size, step < 0
        access = Access(now, space, BLOCK, first, size, count, reads=False, down=down, data=data)
        self._observe(access, lambda: self._plain.write_block(space, first, size, step, data))


class ObservedMachine(Machine):
    """A machine whose sinks are told of all that happens.

    ``sinks``: who is told, in this order. ``failed(error, what, access)`` is called for each
    exception of a device's, with the access under which it was raised, if there was one; it says
    whether it has reported it. ``everything``: see `ObservedSpaces`.
    """

    def __init__(
        self,
        kind: str,
        platform: Platform,
        memory: GuestMemory,
        host_now: Callable[[], int],
        sinks: list[Sink],
        failed: Callable[[Exception, str, Access | None], bool] | None = None,
        *,
        everything: bool = False,
    ) -> None:
        super().__init__(kind, platform, memory, host_now)
        self.watch = Watch(self.clock.now, sinks)
        self.spaces = ObservedSpaces(platform, everything=everything)
        self.bus = ObservedBus(self.spaces, self.watch)
        self._failed = failed

    def seal(self, buffer: memoryview[int] | None = None) -> None:
        """See `Machine.seal`."""
        event = Event(layouts.RECORDING_KIND_RESET, self.clock.now())
        self.watch.under_way.append(event)
        super().seal(buffer)
        self.watch.under_way.pop()
        for sink in self.watch.sinks:
            sink.start(self)
        if event.inner:
            self.watch.note(event)

    def bind(self, device: Device, region: memoryview[int]) -> None:
        """See `Machine.bind`; the device's timers and plugs tell when they are used."""
        given = self.collaborators()
        given.platform = ObservedPlatform(given.platform, device.name, self.watch)
        given.memory = ObservedMemory(given.memory, device.name, self.watch)
        given.now = self._told_time(device, given.now)
        device.bind(region, given)
        names = [name for name, d in device._declared.items() if isinstance(d, Timer)]
        for name, timer in zip(names, device.timers, strict=True):
            timer.handler = self._told_timer(device, name, timer)
        for name, declaration in device._declared.items():
            if isinstance(declaration, Character):
                plug: LiveCharacter = device.__dict__[name]
                device.__dict__[name] = ObservedCharacter(plug, device.name, name, self.watch)

    def _told_time(self, device: Device, now: Callable[[], int]) -> Callable[[], int]:
        """A device's look at the clock: noted where it tells another time than the event has."""
        watch, name = self.watch, device.name

        def told() -> int:
            time = now()
            if watch.under_way and watch.under_way[-1].time != time:
                watch.note(Event(layouts.RECORDING_KIND_NOW, time, name))
            return time

        return told

    def _told_timer(self, device: Device, name: str, timer: LiveTimer) -> Callable[[], object]:
        watch, fire, kind = self.watch, timer.handler, layouts.RECORDING_KIND_TIMER
        return lambda: watch.during(Event(kind, watch.now(), device.name, name), fire)

    def connect(self) -> None:
        """See `Machine.connect`."""
        event = Event(layouts.RECORDING_KIND_LINES, self.clock.now())
        self.watch.during(event, super().connect)

    def reset(self) -> None:
        """See `Machine.reset`."""
        self.watch.during(Event(layouts.RECORDING_KIND_RESET, self.clock.now()), super().reset)

    def after_load(self) -> None:
        """See `Machine.after_load`."""
        from dm.machine.container import save

        event = Event(layouts.RECORDING_KIND_STATE, self.clock.now(), data=save(self))
        self.watch.during(event, super().after_load)

    def substitute(self, old: Device, new: Device) -> None:
        """See `Machine.substitute`."""
        super().substitute(old, new)
        kind, name = layouts.RECORDING_KIND_RELOAD, type(new).__qualname__
        self.watch.note(Event(kind, self.clock.now(), new.name, name))

    def contain(self, error: Exception, what: str) -> None:
        """See `Machine.contain`."""
        if self._failed is not None and self._failed(error, what, self._culprit(error)):
            self.errors += 1
            return
        super().contain(error, what)

    def _culprit(self, error: Exception) -> Access | None:
        """The access that raised ``error``; its event is complete by now."""
        last = self.watch.last_failed
        return last if last is not None and last.error is error else None
