"""Every chip's state is one dictionary of numbers, checked whole before it is taken."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from tests.unit.standalone.chips_support import SECOND, Pc
from tools.hypervisor.chips.chip import StateError

PORTS = (*range(0x20, 0x22), *range(0xA0, 0xA2), *range(0x40, 0x44), 0x61, 0x4D0, 0x4D1, 0xB000)
CMOS_INDICES = (*range(14), 0x8B)


def poke(pc: Pc, chance: random.Random) -> list[object]:
    """One access or event, and what it answered."""
    kind = chance.randrange(8)
    value = chance.randrange(256)
    if kind == 0:
        pc.outb(0x70, chance.choice(CMOS_INDICES))
        return [pc.in_(0x71)]
    if kind == 1:
        pc.outb(0x70, chance.choice(CMOS_INDICES))
        pc.outb(0x71, value)
    elif kind == 2:
        pc.lines.set_isa_irq(chance.choice((1, 3, 4, 5, 10, 12)), chance.randrange(2))
    elif kind == 3:
        pc.pass_time(chance.randrange(SECOND // 20) * chance.choice((1, 1, 1, 20)))
    elif kind == 4:
        return [pc.take(), list(pc.board.pending)]
    elif kind == 5:
        address = chance.choice((0xFEE00000, 0xFEC00000)) + 4 * chance.randrange(64)
        pc.store(address, chance.randrange(1 << 32))
        return [pc.load(address)]
    elif kind == 6:
        return [pc.in_(chance.choice(PORTS))]
    else:
        pc.out(chance.choice(PORTS), value)
    return []


@pytest.mark.parametrize("seed", range(10))
def test_a_restored_board_answers_as_the_one_that_was_saved(seed: int) -> None:
    chance = random.Random(seed)
    pc = Pc()
    for _ in range(300):
        poke(pc, chance)
    other = Pc()
    # The epoch of the host's clock and guest time are one line: let both hosts show the same time.
    other.clock.advance_to(pc.clock.now())
    other.lines.load(json.loads(json.dumps(pc.lines.save())))
    other.board.load(json.loads(json.dumps(pc.board.save())))
    assert other.board.save() == pc.board.save()
    again = random.Random(seed + 1000)
    for step in range(300):
        state = again.getstate()
        expected = poke(pc, again)
        again.setstate(state)
        assert poke(other, again) == expected, step


def test_instants_move_with_the_new_clock() -> None:
    pc = Pc()
    pc.outb(0x43, 0x34)
    pc.outb(0x40, 0, 0)
    pc.pass_time(20_000_000)
    other = Pc()
    other.clock.advance_to(5 * SECOND)
    other.board.load(pc.board.save())
    due = pc.clock.next_deadline()
    assert due is not None
    assert other.clock.next_deadline() == due - 20_000_000 + 5 * SECOND


def paths(state: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value of a state."""
    keys = state if isinstance(state, dict) else range(len(state))
    found = []
    for key in keys:
        found.append((*at, key))
        if isinstance(state[key], dict | list):
            found += paths(state[key], (*at, key))
    return found


BAD: tuple[Any, ...] = (None, "1", 1.0, True, -(1 << 70), 1 << 300, [], {}, [0] * 99)


def test_every_wrong_value_in_every_place_is_one_clear_error_and_changes_nothing() -> None:
    pc = Pc()
    good = pc.board.save()
    for path in paths(good):
        for bad in BAD:
            state = json.loads(json.dumps(good))
            place = state
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = bad
            with pytest.raises(StateError) as caught:
                pc.board.load(state)
            assert "\n" not in str(caught.value)
            assert len(str(caught.value)) < 200
    assert pc.board.save() == good


@pytest.mark.parametrize("change", ["lack", "more", "nothing"])
def test_a_state_of_another_shape_is_refused(change: str) -> None:
    pc = Pc()
    state: Any = pc.board.save()
    if change == "lack":
        del state["pit"]["speaker"]
    elif change == "more":
        state["pit"][7] = 1
    else:
        state = None
    with pytest.raises(StateError):
        pc.board.load(state)


@pytest.mark.parametrize("seed", range(40))
def test_any_state_in_range_is_survived(seed: int) -> None:
    """Numbers that no chip reaches by itself must not raise or spin later on."""
    chance = random.Random(seed)
    pc = Pc()
    state = pc.board.save()
    chips: list[tuple[Any, Any]] = [(pc.board, state)]
    for chip, values in chips:
        for name, limits in chip.STATE.items():
            least, largest = limits if isinstance(limits, tuple) else (0, limits)
            if isinstance(values[name], list):
                values[name] = [chance.randint(least, largest) for _ in values[name]]
            else:
                values[name] = chance.randint(least, largest)
        for name in chip.TIMES:
            values[name] = chance.randint(-(1 << 62), 1 << 62)
        for name, parts in chip._parts():
            inner = values[name] if isinstance(values[name], list) else [values[name]]
            chips += zip(parts, inner, strict=True)
    state["timekeepers"]["pm_timer"]["location"] = 1
    pc.board.load(state)
    for _ in range(200):
        poke(pc, chance)


def test_a_caller_may_move_the_instants_further() -> None:
    pc = Pc()
    pc.outb(0x43, 0x34)
    pc.outb(0x40, 0, 0)
    due = pc.clock.next_deadline()
    assert due is not None
    pc.board.load(pc.board.save(), shift=-1000)
    assert pc.clock.next_deadline() == due - 1000
