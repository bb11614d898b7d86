"""The rules that hold for every device, whatever it is, as tests that need only its class.

    TestTicker = generic_device_tests(Ticker, addr="4")

is a class that pytest collects: one test for each rule and seed. Every failure names the device,
the rule, the seed and, where there is one, the step: what was accessed, and which register it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from logging import CRITICAL, getLogger
from random import Random
from typing import TYPE_CHECKING, Any

from dm.device.deferral import Deferral
from dm.device.pci import PciDevice
from dm.device.register import RegisterSlot
from dm.device.window import Window
from dm.errors import GuestError

from .session import Access, Observation, Session, Step, steps

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dm.device.bank import Bank
    from dm.device.device import Device

    Factory = Callable[[], Device]

__all__ = ["RULES", "generic_device_tests", "rules_of"]

__tracebackhide__ = True
"""pytest shows the device's frames, not this file's."""

STEPS = 600
"""Random steps per rule and seed."""

CLONES = 8
"""How often a rule that compares with a reloaded device reloads one, per seed."""


def generic_device_tests(
    device: type[Device] | Factory, *, seeds: Iterable[int] = range(3), **options: Any
) -> type:
    """A class of pytest tests: every rule, each with every seed, for one device.

    ``device``: a device class, constructed with ``options``, or anything that gives a new, unbound
    device at each call. ``seeds``: of the random guests; a failure names the one that failed.
    """
    import pytest

    def factory() -> Device:
        return device(**options)

    def test_of(rule: Callable[[Factory, int], None]) -> Callable[[object, int], None]:
        def test(self: object, seed: int) -> None:
            _check(rule, factory, seed)

        test.__doc__ = rule.__doc__
        marked: Callable[[object, int], None] = pytest.mark.parametrize("seed", list(seeds))(test)
        return marked

    name = getattr(device, "__name__", "Device")
    tests = {f"test_{rule.__name__}": test_of(rule) for rule in RULES}
    return type(f"Test{name}", (), {"__doc__": f"The generic tests of {name}.", **tests})


def rules_of(factory: Factory, seeds: Iterable[int] = range(3)) -> dict[str, Callable[[], None]]:
    """The same tests by name, for whoever has no pytest; a failing one raises AssertionError."""
    return {
        f"{rule.__name__.replace('_', ' ')}, seed {seed}": partial(_check, rule, factory, seed)
        for rule in RULES
        for seed in seeds
    }


def _check(rule: Callable[[Factory, int], None], factory: Factory, seed: int) -> None:
    log = getLogger("ioreqd")
    level = log.level
    log.setLevel(CRITICAL)  # a random guest triggers every warning there is
    try:
        rule(factory, seed)
    except Exception as error:
        cause = error.__cause__ if isinstance(error, AssertionError) else error
        # Of the chain only the device's own part is kept: what the rule did, the message says.
        what = f"{type(factory()).__name__}, {rule.__name__.replace('_', ' ')}, seed {seed}"
        raise AssertionError(f"{what}: {_told(error)}") from cause
    finally:
        log.setLevel(level)


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, AssertionError) else repr(error)


def _observe(session: Session, step: Step, number: int) -> Observation:
    """Perform the step; what goes wrong is told with the step's number and deed."""
    try:
        return session.observe(step)
    except Exception as error:
        raise AssertionError(f"step {number}, {session.last}: {_told(error)}") from error


def _difference(seen: Observation, expected: Observation) -> str:
    """What of an observation is other than expected, by name."""
    return ", ".join(
        f"{name} {_shown(mine)} instead of {_shown(theirs)}"
        for name, mine, theirs in zip(Observation._fields, seen, expected, strict=True)
        if mine != theirs
    )


def _shown(value: object) -> str:
    return f"{value:#x}" if isinstance(value, int) else repr(value)


def _same(one: Session, other: Session, following: Iterable[Step], number: int) -> int:
    """Both do the same steps and must show the same; gives the number of the next step."""
    for step in following:
        seen, expected = _observe(other, step, number), _observe(one, step, number)
        assert seen == expected, f"step {number}, {one.last}: {_difference(seen, expected)}"
        number += 1
    changed = other.changed_cells(one.cells())
    assert not changed, f"step {number}: {changed} differ"
    assert one.bench.memory.ram == other.bench.memory.ram, f"step {number}: RAM differs"
    return number


def accesses_never_raise(factory: Factory, seed: int) -> None:
    """Accesses of every width, place and shape answer in range; lines are settled afterwards."""
    session, random = Session(factory, seed), Random(seed)
    for number, step in enumerate(steps(random, STEPS)):
        _observe(session, step, number)
        settled = session.levels(), len(session.bench.platform.msis)
        session.device.settle()
        again = session.levels(), len(session.bench.platform.msis)
        assert settled == again, f"step {number}, {session.last}: a line was not settled"
    assert not session.bench.machine.errors, "an error was contained"


def interrupt_levels_are_derived(factory: Factory, seed: int) -> None:
    """Settling, re-driving and asking for a window's place change no state and no line."""
    session, random = Session(factory, seed), Random(seed)
    for number, step in enumerate(steps(random, STEPS)):
        _observe(session, step, number)
        if number % 20:
            continue
        cells, levels = session.cells(), session.levels()
        session.device.settle()
        for window in session.device.windows:
            window.wanted()
        session.bench.machine.after_load()
        changed = session.changed_cells(cells)
        where = f"step {number}, after {session.last}"
        assert not changed, f"{where}: {changed} changed with nothing happening"
        assert session.levels() == levels, f"{where}: re-driving changed a line"


def a_reload_changes_no_later_answer(factory: Factory, seed: int) -> None:
    """Saved and loaded at any point, the device answers as if nothing had happened."""
    random = Random(seed)
    session, number = Session(factory, seed), 0
    for _ in range(CLONES):
        for step in steps(random, random.randrange(1, STEPS // CLONES)):
            _observe(session, step, number)
            number += 1
        fresh = session.reloaded()
        assert not fresh.changed_cells(session.cells()), f"step {number}: load lost cells"
        number = _same(session, fresh, steps(random, STEPS // CLONES), number)
        session = fresh


def reset_is_reset(factory: Factory, seed: int) -> None:
    """After a reset the device is as one that was never touched: its cells and its answers."""
    used, random = Session(factory, seed), Random(seed)
    number = 0
    for step in steps(random, STEPS // 2):
        _observe(used, step, number)
        number += 1
    used.bench.machine.reset()
    fresh = Session(factory, seed)
    fresh.bench.machine.clock.set(used.bench.machine.clock.now())
    fresh.bench.machine.reset()
    changed = used.changed_cells(fresh.cells())
    assert not changed, f"{changed} survived a reset"
    assert used.levels() == fresh.levels(), "a line survived a reset"
    fresh.adopt_surroundings(used)
    _same(used, fresh, steps(random, STEPS // 2), number)


def writes_move_only_writable_bits(factory: Factory, seed: int) -> None:
    """A write to a register that has no code changes its own writable bits and nothing else."""
    session, random = Session(factory, seed), Random(seed)
    for number, step in enumerate(steps(random, STEPS // 4)):
        _observe(session, step, number)
    for prefix, bank, name, slot, offset in _plain_registers(session.device):
        for value in (slot.full_mask, 0, random.getrandbits(slot.size * 8)):
            before, cell = session.cells(), f"{prefix}.{name}"
            old = _stored(session, cell)
            bank.write(offset, slot.size, value)
            changed = session.changed_cells(before)
            assert changed in ([], [cell]), f"a write to {cell} moved {changed}"
            moved = (old ^ _stored(session, cell)) & ~(slot.mask("stores") | slot.mask("clears"))
            assert not moved, f"a write of {value:#x} moved read-only bits {moved:#x} of {cell}"


def reserved_bits_stay(factory: Factory, seed: int) -> None:
    """Bits that no field names keep their reset value; so does a PCI function's identity."""
    session, random = Session(factory, seed), Random(seed)
    fixed = list(_fixed_bits(session.device))
    before = {cell: _stored(session, cell) for cell, _ in fixed}
    for number, step in enumerate(steps(random, STEPS)):
        _observe(session, step, number)
    for cell, mask in fixed:
        moved = (before[cell] ^ _stored(session, cell)) & mask
        assert not moved, f"bits {moved:#x} of {cell} are reserved or read-only, and moved"


def strings_are_single_accesses(factory: Factory, seed: int) -> None:
    """A string or block access does what the same accesses one by one do."""
    session, random = Session(factory, seed), Random(seed)
    for number, step in enumerate(steps(random, STEPS)):
        access = session.access(step) if step.kind not in ("read", "write") else None
        if access is None or not step.kind.endswith(("string", "block")):
            _observe(session, step, number)
            continue
        for character in session.characters:
            character.accepts = None  # how much one call takes would tell one call from many
        twin = session.reloaded()
        single, whole = _singly(twin, access), _observe(session, step, number).answer
        if isinstance(whole, str) or isinstance(single, str):
            continue
        what = f"step {number}, {session.last}"
        assert whole == single, f"{what}: {whole!r}, but {single!r} one by one"
        changed = twin.changed_cells(session.cells())
        assert not changed, f"{what}: {changed} are other than after single accesses"
        assert twin.levels() == session.levels(), f"{what}: lines differ"


def _singly(session: Session, access: Access) -> bytes | str | None:
    """Make the access one element at a time; gives what it reads, or why it was not finished."""
    size, single = access.size, access.kind.replace("_string", "").replace("_block", "")
    low = access.address + min(access.step, 0) * (access.times - 1)
    block = bytearray(size * access.times)
    for index in range(access.times):
        address = access.address + index * access.step
        at = address - low if access.step else index * size
        part = access.data[at : at + size]
        try:
            answer = session.perform(Access(single, access.space, address, size, 1, 0, part))
        except (Deferral, GuestError) as error:
            return repr(error)
        if isinstance(answer, int):
            block[at : at + size] = answer.to_bytes(size, "little")
    return bytes(block) if single == "read" else None


def _stored(session: Session, cell: str) -> int:
    view, index = session.device.cells.typed(cell)
    return view[index]


def _banks(device: Device) -> Iterator[tuple[str, Bank]]:
    for name, declaration in device._declared.items():
        if isinstance(declaration, Window):
            yield name, device.__dict__[name]


def _plain_registers(
    device: Device,
) -> Iterator[tuple[str, Bank, str, RegisterSlot[Any], int]]:
    """Registers whose bytes are theirs alone and whose writes no method handles."""
    for prefix, bank in _banks(device):
        registers = list(type(bank).registers())
        owners: dict[int, int] = {}
        for _, slot, offset, _ in registers:
            for byte in range(offset, offset + slot.size):
                owners[byte] = owners.get(byte, 0) + 1
        for name, slot, offset, _ in registers:
            alone = all(owners[byte] == 1 for byte in range(offset, offset + slot.size))
            handled = (id(slot.origin), "write") in device._handlers
            if alone and not handled and slot.size in bank.sizes:
                yield prefix, bank, name, slot, offset


def _fixed_bits(device: Device) -> Iterator[tuple[str, int]]:
    """Cells with the bits of them that nothing may ever move."""
    for prefix, bank in _banks(device):
        for name, slot, _, _ in type(bank).registers():
            named = sum(field.mask for field in slot.register.fields.values())
            if named and slot.writable is None and slot.full_mask & ~named:
                yield f"{prefix}.{name}", slot.full_mask & ~named
    if isinstance(device, PciDevice):
        for name in device.identity.resets():
            register = type(device.config).slots[name]
            if isinstance(register, RegisterSlot) and not (
                register.mask("stores") | register.mask("clears")
            ):
                yield f"config.{name}", register.full_mask


RULES: tuple[Callable[[Factory, int], None], ...] = (
    accesses_never_raise,
    interrupt_levels_are_derived,
    a_reload_changes_no_later_answer,
    reset_is_reset,
    writes_move_only_writable_bits,
    reserved_bits_stay,
    strings_are_single_accesses,
)
"""Every rule: it takes a factory and a seed, and raises when the device breaks it."""
