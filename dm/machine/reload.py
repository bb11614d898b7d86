"""How a device of a running machine is replaced by one of another class, its state carried over.

State goes by the names and sizes of cells: what only the new class has is at its reset value, what
only the old one had is dropped. A *rehearsal* of the new device, over a region and behind a
platform of its own, comes first: whatever its class does wrong, it does wrong there.
"""

from __future__ import annotations

from dm.device.device import Collaborators
from dm.device.line import IsaLine
from dm.device.pci import PciConfig, PciDevice, Status
from dm.device.platform import GuestMemory, Platform
from dm.device.state import Fifo
from dm.device.window import Window
from dm.errors import ConfigError, GuestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dm.device.device import Device

    from .machine import Machine

__all__ = ["carry", "cell_values", "replace"]


class _NoPlatform(Platform):
    """Takes what a device drives, and does nothing."""

    def set_isa_irq(self, irq: int, level: int) -> None:
        """Nothing happens."""

    def set_intx(self, slot: int, pin: int, level: int) -> None:
        """Nothing happens."""

    def set_link_route(self, link: int, irq: int) -> None:
        """Nothing happens."""

    def inject_msi(self, address: int, data: int) -> None:
        """Nothing happens."""

    def set_memory_type(self, first_gfn: int, count: int, *, writable: bool) -> None:
        """Nothing happens."""

    def shutdown(self, reason: str) -> None:
        """Nothing happens."""

    def suspend(self) -> None:
        """Nothing happens."""


class _NoMemory(GuestMemory):
    """A guest without RAM."""

    def read(self, gpa: int, length: int) -> bytes:
        """There is none."""
        raise GuestError("there is no RAM in a rehearsal")

    def write(self, gpa: int, data: bytes | bytearray | memoryview[int]) -> None:
        """There is none."""
        raise GuestError("there is no RAM in a rehearsal")


def replace(machine: Machine, old: Device, make: Callable[[], Device]) -> list[str]:
    """Let a device that ``make`` constructs go on where ``old`` was; call between two requests.

    Gives one line for each piece of state that was not carried over. ``make`` is called twice.
    A process that is killed inside, once the rehearsal is over, leaves no state that a successor
    can go on with: all registers of all devices are lost then.

    Raises:
        ConfigError: the new class cannot stand in for the old one; the machine is as before.
        Exception: what the new class raised, likewise.
    """
    position, size = next((at, size) for device, at, size in machine.regions() if device is old)
    rehearsed = make()
    state, notes = _rehearse(machine, old, rehearsed, size)
    region = machine.buffer[position : position + size]
    before = bytes(region)
    _lower_vanished(old, rehearsed)
    machine.layout_changes(False)
    try:
        new = _placed(make(), old)
        machine.lend(new)
        machine.bind(new, region)
        new.power_on()
        region[:] = state
    except BaseException:
        region[:] = before
        machine.layout_changes(True)
        for timer in old.timers:
            machine.timers.changed(timer)
        machine.redrive(old)
        raise
    machine.substitute(old, new)
    machine.layout_changes(True)
    _take_over(machine, old, new)
    return notes


def _take_over(machine: Machine, old: Device, new: Device) -> None:
    """Re-derive all that hangs on state, as after a load."""
    for timer in old.timers:
        machine.timers.forget(timer)
    for timer in new.timers:
        machine.timers.changed(timer)
    machine.complain(machine.spaces.exchange(old.windows, new.windows))
    plug = old.character_plug()
    if plug is not None:
        plug.hand_over(new.character_plug())
    try:
        new.restored()
        machine.redrive(new)
    except Exception as error:
        machine.contain(error, f"{new.name}, reloaded")


def _rehearse(machine: Machine, old: Device, new: Device, size: int) -> tuple[bytes, list[str]]:
    """What the region of ``new`` will hold, and what was not carried; all checks are made here."""
    _check_identity(old, new)
    needed = new._layout.region_size
    if needed > size:
        raise ConfigError(f"its state of {needed} bytes does not fit where {size} were kept for it")
    region = memoryview(bytearray(size))
    no_timer_changed = Collaborators(
        _NoPlatform(),
        _NoMemory(),
        machine.clock.now,
        lambda timer: None,
        lambda device: None,
        lambda device, message, arguments: None,
        lambda: False,
        lambda error, what: None,
    )
    _placed(new, old)
    machine.lend(new)
    new.bind(region, no_timer_changed)
    new.power_on()
    notes = carry(new, cell_values(old), {c.name: c.size for c in old._layout.cells.values()})
    for window in new.windows:
        if not isinstance(new, PciDevice) or new.bar_of(window.name) is None:
            machine.check_place(old, window)
        window.wanted()
    state = bytes(region)
    new.settle()
    for line in new.lines:
        line.redrive()
    new.forward()
    return state, notes


def _placed(new: Device, old: Device) -> Device:
    if isinstance(new, PciDevice) and isinstance(old, PciDevice):
        new.place_at(old.devfn)
    return new


def _check_identity(old: Device, new: Device) -> None:
    """A guest has seen who is there; it is not told of a change."""
    if new.name != old.name:
        raise ConfigError(f"the device is {new.name!r} now")
    if isinstance(old, PciDevice) != isinstance(new, PciDevice):
        raise ConfigError("a PCI function stays one, and nothing else becomes one")
    if isinstance(old, PciDevice) and isinstance(new, PciDevice):
        before, after = old.identity.resets(), new.identity.resets()
        for name, value in after.items():
            if before[name] != value:
                raise ConfigError(f"the PCI identity changed: {name} {before[name]:#x}→{value:#x}")


def cell_values(device: Device) -> dict[str, int | bytes]:
    """What every cell of a device holds, by name."""
    values: dict[str, int | bytes] = {}
    for name, cell in device._layout.cells.items():
        data = bytes(device.cells.region[cell.offset : cell.offset + cell.size])
        values[name] = data if cell.bulk else int.from_bytes(data, "little")
    return values


def carry(
    device: Device,
    values: Mapping[str, int | bytes],
    sizes: Mapping[str, int] | None = None,
) -> list[str]:
    """Give a device, which is in its reset state, those of ``values`` that it has cells for.

    ``sizes``: bytes of the cells that the values come from; None where they are not known. Gives
    one line for each cell that stays at its reset value, and for each value that finds no cell.
    """
    notes: list[str] = []
    cells = device._layout.cells
    for name in _misfits(device, values, sizes, notes):
        values = {other: value for other, value in values.items() if other != name}
    for name, value in values.items():
        cell = cells.get(name)
        if cell is None:
            notes.append(f"{name} is gone, its value is dropped")
            continue
        if isinstance(value, int):
            value = _derived(device, name, value).to_bytes(cell.size, "little")
        device.cells.region[cell.offset : cell.offset + cell.size] = value
    return notes


def _misfits(
    device: Device,
    values: Mapping[str, int | bytes],
    sizes: Mapping[str, int] | None,
    notes: list[str],
) -> set[str]:
    """The names of values that their cells cannot take; what is new or misfits is noted."""
    misfits: set[str] = set()
    for name, cell in device._layout.cells.items():
        if name not in values:
            notes.append(f"{name} is new, at its reset value")
            continue
        value = values[name]
        size = len(value) if isinstance(value, bytes) else (sizes or {}).get(name, cell.size)
        if size != cell.size or cell.bulk != isinstance(value, bytes):
            problem = "has another size"
        elif isinstance(value, int) and value & ~cell.mask:
            problem = f"cannot hold {value:#x}"
        else:
            continue
        misfits.add(name)
        notes.append(f"{name} {problem}, it is at its reset value")
    for name, declaration in device._declared.items():
        if isinstance(declaration, Fifo) and f"{name}.bytes" in misfits:
            misfits |= {f"{name}.head", f"{name}.count"}
    return misfits


def _derived(device: Device, name: str, value: int) -> int:
    """The carried value of a cell, with what the class alone decides as the class has it.

    In a configuration space those are the read-only bits: identity, capabilities, kinds and sizes
    of BARs. Of the status register the others tell what happened.
    """
    window, _, register = name.partition(".")
    declaration = device._declared.get(window)
    if not isinstance(device, PciDevice) or window != "config":
        return value
    if not isinstance(declaration, Window):
        return value
    if register not in PciConfig.slots and not register.startswith("capability_"):
        return value
    slot = declaration.bank.slots[register]
    fixed = Status.capabilities.mask if register == "status" else ~slot.mask("stores")
    reset: int = slot.reset
    return value & ~fixed | reset & fixed


def _lower_vanished(old: Device, new: Device) -> None:
    """Lower the lines that the new device does not have, or has elsewhere."""
    names = [name for name, d in old._declared.items() if isinstance(d, IsaLine)]
    # Declared lines come first, in the order of declaration; a PCI function's interrupt follows.
    for index, line in enumerate(old.lines):
        if index < len(names):
            before = old._declared[names[index]].number(old)
            after = new._declared.get(names[index])
            kept = isinstance(after, IsaLine) and after.number(new) == before
        else:
            kept = isinstance(new, PciDevice) and type(new).irq_level is not PciDevice.irq_level
        if not kept:
            line.lower()
