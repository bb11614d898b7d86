"""Writes a recording: all that a device was asked and told, and all that it did.

The format is declared in `protocol.recording`; here it is packed by the formats that were generated
from it. What devices do to each other through the machine's bus is left out: it is no access of
the guest's.
"""

from __future__ import annotations

from struct import Struct, pack

from dm.device.pci import PciDevice
from dm.device.state import Option
from protocol import layouts

from .events import Access, Sink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dm.device.device import Device

    from .events import Event
    from .machine import ObservedMachine
    from .output import Output

__all__ = ["Recorder"]

NONE = layouts.RECORDING_NONE
HEAD = Struct(layouts.RECORDING_RECORD_HEAD_FORMAT)


class Recorder(Sink):
    """Records everything. ``sources``: what ``-device`` named, by the device's name."""

    def __init__(self, output: Output, sources: dict[str, str]) -> None:
        self._output = output
        self._sources = sources
        self._numbers: dict[str, int] = {}

    def start(self, machine: ObservedMachine) -> None:
        """See `Sink.start`."""
        self._numbers = {device.name: index for index, device in enumerate(machine.devices)}
        kind = machine.kind.encode()
        head = pack(
            layouts.RECORDING_HEADER_HEAD_FORMAT,
            layouts.RECORDING_MAGIC,
            layouts.RECORDING_VERSION,
            len(machine.devices),
            len(kind),
        )
        devices = [_device(d, self._sources.get(d.name, "")) for d in machine.devices]
        self._output.write(b"".join((head, kind, *devices)))

    def event(self, event: Event) -> None:
        """See `Sink.event`."""
        parts: list[bytes] = []
        self._add(event, 0, parts)
        self._output.write(b"".join(parts))

    def _add(self, event: Event, flags: int, parts: list[bytes]) -> None:
        """Add the records of an event: its own, then those of what happened during it."""
        numbers = event.numbers
        if isinstance(event, Access):
            if flags:
                return
            numbers = (
                event.space,
                event.form,
                int(event.reads),
                event.size,
                event.count,
                int(event.down),
                event.address & (1 << 64) - 1,
                event.serial,
            )
            flags |= layouts.RECORDING_FLAG_DEFERRED if event.deferred else 0
            flags |= layouts.RECORDING_FLAG_SHARED if event.shared else 0
        data = event.data
        if event.failed:
            flags |= layouts.RECORDING_FLAG_FAILED
            if isinstance(event, Access) and event.reads:
                data = b""
        name = event.name.encode()
        size = HEAD.size + 8 * len(numbers) + len(name) + len(data)
        device = self._numbers.get(event.device, NONE)
        head = HEAD.pack(size, event.kind, flags, device, len(numbers), len(name), 0, event.time)
        parts += (head, pack(f"<{len(numbers)}Q", *numbers), name, data)
        for inner in event.inner:
            self._add(inner, layouts.RECORDING_FLAG_INNER, parts)

    def close(self) -> None:
        """See `Sink.close`."""
        self._output.close()


def _device(device: Device, source: str) -> bytes:
    """What the header says of a device."""
    options = []
    for key, declaration in device._declared.items():
        if isinstance(declaration, Option):
            value: object = device.__dict__[key]
            text = ("on" if value else "off") if isinstance(value, bool) else str(value)
            options.append((key.encode(), text.encode()))
    kind = type(device)
    texts = [t.encode() for t in (device.name, f"{kind.__module__}:{kind.__qualname__}", source)]
    devfn = device.devfn if isinstance(device, PciDevice) else NONE
    head = pack(
        layouts.RECORDING_DEVICE_HEAD_FORMAT,
        device.version,
        devfn,
        len(options),
        *[len(text) for text in texts],
    )
    packed = [
        pack(layouts.RECORDING_OPTION_HEAD_FORMAT, len(key), len(value)) + key + value
        for key, value in options
    ]
    return b"".join((head, *texts, *packed))
