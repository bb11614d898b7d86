"""What a guest asked in vain, and the declarations that would answer it.

In vain: at addresses of a window where nothing is declared, with sizes that a bank does not accept,
and at addresses that no device has. The skeleton is a Python file of its own; its `Register.at`
lines and handlers can be moved into the classes that they are about.
"""

from __future__ import annotations

from dm.device.platform import MEMORY, PCI, PCI_SHIFT, PORT

from .events import Access, Sink, place_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .events import Event
    from .output import Output

__all__ = ["Suggestions", "skeleton"]

PLACES_LIMIT = 4096
"""Different places that are kept; a guest can ask at any address."""
VALUES_LIMIT = 4
"""Different written values that are kept of each."""
REACH = {PORT: 16, MEMORY: 256}
"""Bytes between two unclaimed addresses that still belong to one window."""
LARGEST = {PORT: 256, MEMORY: 1 << 20}
"""Bytes of such a window."""


class Place:
    """One address and size that was asked for in vain: how often, and with which values."""

    __slots__ = ("offset", "reads", "size", "values", "writes")

    def __init__(self, offset: int, size: int) -> None:
        self.offset = offset
        self.size = size
        self.reads = 0
        self.writes = 0
        self.values: list[int] = []

    def count(self, access: Access) -> None:
        """One more access."""
        if access.reads:
            self.reads += access.count
            return
        self.writes += access.count
        if access.size == len(access.data) and len(self.values) < VALUES_LIMIT:
            value = access.value
            if value not in self.values:
                self.values.append(value)

    def __str__(self) -> str:
        reads = [f"read {self.reads} x"] if self.reads else []
        values = ", ".join(f"{value:#x}" for value in self.values)
        some = f": {values}" if values else ""
        return ", ".join(reads + ([f"written {self.writes} x{some}"] if self.writes else []))


class Group:
    """What was asked in vain of one window; ``base``, ``size``, ``sizes`` and ``gap`` are its own.

    ``name``: of the class; ``taken``: where registers are, as (first, behind the last) offsets.
    """

    def __init__(self, title: str, name: str, space: int, base: int) -> None:
        self.title = title
        self.name = name
        self.space = space
        self.base = base
        self.size = 0
        self.sizes: tuple[int, ...] = (1, 2, 4, 8)
        self.gap = 0xFF
        self.places: dict[tuple[int, int], Place] = {}
        self.taken: list[tuple[int, int]] = []

    @classmethod
    def of(cls, access: Access) -> Group:
        """The group of a window."""
        window = access.window
        assert window is not None
        bank, owner = window.bank, type(window.device).__name__
        name = f"{owner}{window.name.title().replace('_', '')}"
        title = f"{owner}, window {window.name}"
        group = cls(title, name, window.space, window.base or 0)
        group.size, group.sizes, group.gap = window.size, bank.sizes, bank.gap
        group.taken = [(at, at + slot.size) for _, slot, at, _ in type(bank).registers()]
        group.taken += [(m.offset, m.offset + m.length) for m in bank.memories.values()]
        return group

    def registers(self) -> Iterator[tuple[str, Place]]:
        """The registers that answer the places, by name; none overlaps another."""
        taken = list(self.taken)
        for place in sorted(self.places.values(), key=lambda one: (one.offset, -one.size)):
            end = place.offset + place.size
            free = all(end <= first or last <= place.offset for first, last in taken)
            if free and end <= self.size:
                taken.append((place.offset, end))
                yield f"unknown_{place.offset:02x}", place

    def overlapping(self) -> list[Place]:
        """The places that no register of their own answers."""
        answered = [id(place) for _, place in self.registers()]
        return [place for place in self.places.values() if id(place) not in answered]


class Suggestions(Sink):
    """Collects what was asked in vain; writes the skeleton at the end."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._windows: dict[tuple[str, str], Group] = {}
        self._nobody: dict[tuple[int, int, int], Place] = {}
        self._left_out = 0

    def event(self, event: Event) -> None:
        """See `Sink.event`."""
        for inner in event.inner:
            self.event(inner)
        if not isinstance(event, Access):
            return
        if event.window is None:
            key = (event.space, event.address, event.size)
            place = self._nobody.get(key)
            if place is None and self._room():
                place = self._nobody[key] = Place(event.address, event.size)
        elif event.undeclared or event.refused:
            owner = (type(event.window.device).__qualname__, event.window.name)
            group = self._windows.get(owner)
            if group is None:
                group = self._windows[owner] = Group.of(event)
            place = group.places.get((event.offset, event.size))
            if place is None and self._room():
                place = Place(event.offset, event.size)
                group.places[event.offset, event.size] = place
        else:
            return
        if place is not None:
            place.count(event)

    def _room(self) -> bool:
        """Whether one more place may be kept."""
        kept = len(self._nobody) + sum(len(g.places) for g in self._windows.values())
        self._left_out += kept >= PLACES_LIMIT
        return kept < PLACES_LIMIT

    def text(self) -> str:
        """The skeleton of what was asked in vain until now."""
        groups = [*self._windows.values(), *_clusters(self._nobody)]
        functions = sorted({at >> PCI_SHIFT for space, at, _ in self._nobody if space == PCI})
        notes = [
            f"# PCI function {place_name(PCI, sbdf << PCI_SHIFT).partition('+')[0]} was looked for."
            for sbdf in functions
        ]
        if self._left_out:
            notes.append(f"# {self._left_out} more accesses, to other places, were not kept.")
        return skeleton(groups, notes)

    def close(self) -> None:
        """See `Sink.close`."""
        self._output.write(self.text().encode())
        self._output.close()


def _clusters(places: dict[tuple[int, int, int], Place]) -> list[Group]:
    """Unclaimed addresses that lie together, as windows of devices to come."""
    groups: list[Group] = []
    for (space, address, size), place in sorted(places.items()):
        if space == PCI:
            continue
        group = groups[-1] if groups else None
        if (
            group is None
            or group.space != space
            or address >= group.base + group.size + REACH[space]
            or address + size > group.base + LARGEST[space]
        ):
            base = address & ~0xF
            name = f"{'Ports' if space == PORT else 'Memory'}{base:x}"
            group = Group(f"nobody, {place_name(space, base)}", name, space, base)
            groups.append(group)
        moved = group.places[address - group.base, size] = Place(address - group.base, size)
        moved.reads, moved.writes, moved.values = place.reads, place.writes, place.values
        group.size = max(group.size, (address + size - group.base + 15) & ~0xF)
    return groups


def skeleton(groups: list[Group], notes: list[str]) -> str:
    """Python that declares all that ``groups`` were asked for; ``notes`` are lines at its end."""
    if not groups:
        return "\n".join(["# The guest asked no device for anything in vain.", *notes, ""])
    out = [
        '"""What the guest asked in vain. Move the lines to where they belong, and name them."""',
        "",
        "from dm import Bank, Device, MmioWindow, PciConfig, PciDevice, PciIdentity, PciWindow",
        "from dm import PortWindow, Register",
    ]
    for group in groups:
        out += ["", "", *_bank(group), "", "", *_device(group)]
    return "\n".join([*out, *(["", "", *notes] if notes else []), ""])


def _bank(group: Group) -> Iterator[str]:
    """The bank's class, with a register for each place."""
    sizes = tuple(sorted({*group.sizes, *(place.size for place in group.places.values())}))
    if group.space == PCI:
        yield f"class {group.name}Bank(PciConfig, sizes={sizes}):"
    else:
        keywords = f"size={group.size:#x}, gap={group.gap:#04x}, sizes={sizes}"
        yield f"class {group.name}Bank(Bank, {keywords}):"
    yield f'    """{group.title}: sizes {group.sizes} were accepted."""'
    yield ""
    for name, place in group.registers():
        width = 8 * place.size
        yield f"    {name} = Register.at({place.offset:#x}, width={width})  # {place}"
    for place in group.overlapping():
        yield f"    # at {place.offset:#x} with {place.size} bytes, over something else: {place}"


def _device(group: Group) -> Iterator[str]:
    """The device's class, with a handler for each direction in which a register was accessed."""
    bank = f"{group.name}Bank"
    if group.space == PCI:
        yield f"class {group.name}(PciDevice):"
        yield f'    """{group.title}."""'
        yield ""
        yield "    identity = PciIdentity(vendor=0xFFFE, device=0, class_code=0xFF0000)"
        yield f"    config = PciWindow({bank})"
        window = "config"
    else:
        kind = "PortWindow" if group.space == PORT else "MmioWindow"
        yield f"class {group.name}(Device):"
        yield f'    """{group.title}."""'
        yield ""
        yield f"    window = {kind}({bank}, at={group.base:#x})"
        window = "window"
    for name, place in group.registers():
        if place.reads:
            yield from ("", f"    @{bank}.{name}.on_read", f"    def read_{name}(self) -> int:")
            yield f"        return self.{window}.{name}.value"
        if place.writes:
            yield from ("", f"    @{bank}.{name}.on_write")
            yield f"    def write_{name}(self, new: int, old: int) -> None:"
            yield f'        """{place}."""'
