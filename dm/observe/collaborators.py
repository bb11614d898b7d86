"""What an observed device is given in place of platform, memory and character plugs: they tell."""

from __future__ import annotations

from dm.device.character import LiveCharacter
from dm.device.platform import GuestMemory, Platform
from protocol import layouts

from .events import Event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .machine import Watch

__all__ = ["ObservedCharacter", "ObservedMemory", "ObservedPlatform"]


class ObservedPlatform(Platform):
    """The platform as one device sees it. Claims are the machine's, and not made through it."""

    def __init__(self, platform: Platform, device: str, watch: Watch) -> None:
        self._platform = platform
        self._device = device
        self._watch = watch

    def _tell(self, kind: int, *numbers: int, name: str = "") -> None:
        watch = self._watch
        watch.note(Event(kind, watch.now(), self._device, name, numbers))

    def set_isa_irq(self, irq: int, level: int) -> None:
        """See `Platform.set_isa_irq`."""
        self._platform.set_isa_irq(irq, level)
        self._tell(layouts.RECORDING_KIND_ISA, irq, level)

    def set_intx(self, slot: int, pin: int, level: int) -> None:
        """See `Platform.set_intx`."""
        self._platform.set_intx(slot, pin, level)
        self._tell(layouts.RECORDING_KIND_INTX, slot, pin, level)

    def set_link_route(self, link: int, irq: int) -> None:
        """See `Platform.set_link_route`."""
        self._platform.set_link_route(link, irq)
        self._tell(layouts.RECORDING_KIND_LINK, link, irq)

    def inject_msi(self, address: int, data: int) -> None:
        """See `Platform.inject_msi`."""
        self._platform.inject_msi(address, data)
        self._tell(layouts.RECORDING_KIND_MSI, address, data)

    def set_memory_type(self, first_gfn: int, count: int, *, writable: bool) -> None:
        """See `Platform.set_memory_type`."""
        self._platform.set_memory_type(first_gfn, count, writable=writable)
        self._tell(layouts.RECORDING_KIND_MEMORY_TYPE, first_gfn, count, int(writable))

    def shutdown(self, reason: str) -> None:
        """See `Platform.shutdown`."""
        self._tell(layouts.RECORDING_KIND_SHUTDOWN, name=reason)
        self._platform.shutdown(reason)

    def suspend(self) -> None:
        """See `Platform.suspend`."""
        self._tell(layouts.RECORDING_KIND_SUSPEND)
        self._platform.suspend()


class ObservedMemory(GuestMemory):
    """Guest memory as one device sees it."""

    def __init__(self, memory: GuestMemory, device: str, watch: Watch) -> None:
        self._memory = memory
        self._device = device
        self._watch = watch

    def _event(self, kind: int, gpa: int, length: int) -> Event:
        numbers = (gpa & (1 << 64) - 1, length)
        return Event(kind, self._watch.now(), self._device, "", numbers)

    def read(self, gpa: int, length: int) -> bytes:
        """See `GuestMemory.read`."""
        event = self._event(layouts.RECORDING_KIND_DMA_READ, gpa, length)
        try:
            event.data = self._memory.read(gpa, length)
        except Exception as error:
            event.error = error
            raise
        finally:
            self._watch.note(event)
        return event.data

    def write(self, gpa: int, data: bytes | bytearray | memoryview[int]) -> None:
        """See `GuestMemory.write`."""
        event = self._event(layouts.RECORDING_KIND_DMA_WRITE, gpa, len(data))
        event.data = bytes(data)
        try:
            self._memory.write(gpa, data)
        except Exception as error:
            event.error = error
            raise
        finally:
            self._watch.note(event)

    def invalidate(self) -> None:
        """See `GuestMemory.invalidate`."""
        self._memory.invalidate()


class ObservedCharacter(LiveCharacter):
    """A character plug that tells of bytes in both directions, in ``plug``'s stead."""

    __slots__ = ("_device", "_name", "_watch")

    def __init__(self, plug: LiveCharacter, device: str, name: str, watch: Watch) -> None:
        super().__init__(plug._received, plug._room, plug.after_input, plug._running, plug._contain)
        self._device = device
        self._name = name
        self._watch = watch

    def _deliver(self, data: bytes) -> None:
        watch, kind = self._watch, layouts.RECORDING_KIND_INPUT
        event = Event(kind, watch.now(), self._device, self._name, data=bytes(data))
        deliver = super()._deliver
        watch.during(event, lambda: deliver(data))

    def write(self, data: bytes) -> int:
        """See `LiveCharacter.write`."""
        taken = super().write(data)
        watch, kind = self._watch, layouts.RECORDING_KIND_OUTPUT
        watch.note(Event(kind, watch.now(), self._device, self._name, (taken,), bytes(data)))
        return taken
