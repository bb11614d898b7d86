"""Kill -9 at random instants: a guest that hammers a device never notices.

The seed is printed; the environment variables STRESS_SEED and STRESS_KILLS repeat a run or make it
longer. When a process dies depends on the machine, too, so that a seed is not the whole story.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.hypervisor.errors import DomainEnded
from tools.hypervisor.vcpu import PORT, Vcpu

from .processes import LIMIT, World
from .stress_device import MASK, STRIDE

SEED = int(os.environ.get("STRESS_SEED") or random.SystemRandom().getrandbits(32))
KILLS = int(os.environ.get("STRESS_KILLS") or 60)
DEVICE = Path(__file__).with_name("stress_device.py")
BASE = 0x5000
MIX, DRAW, VALUE, SUM = range(0, STRIDE, 4)
WORDS = 6
LONGEST_LIFE = 0.12
"""Seconds from the start of a process to its death at most; ready it is after some 0.04."""
MOST_UNREADY = 4
"""Deaths in a row before a process is ready; each leaves a server behind, of which there are 8."""


class Guest(threading.Thread):
    """A vCPU with its own registers of the device, and a model of what they must answer."""

    def __init__(self, vcpu: Vcpu, seed: int) -> None:
        super().__init__(daemon=True)
        self._vcpu = vcpu
        self._chance = random.Random(seed + vcpu.id)
        self._base = BASE + STRIDE * vcpu.id
        self._buffer = 0x10000 + 0x1000 * vcpu.id
        self._sum = self._drawn = self._value = 0
        self.ending = False
        self.accesses = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        steps = (self._mix, self._draw, self._store, self._look, self._mix_many, self._draw_many)
        try:
            while not self.ending and not self.wrong:
                self._chance.choice(steps)()
                self.accesses += 1
            self._look()
        except DomainEnded as error:
            self.wrong.append(str(error))

    def _expect(self, name: str, found: int, expected: int) -> None:
        if found != expected:
            where = f"vCPU {self._vcpu.id}, access {self.accesses}, {name}"
            self.wrong.append(f"{where}: {found:#x} instead of {expected:#x}")

    def _mixed(self, value: int) -> None:
        self._sum = (self._sum * 31 + value) & MASK

    def _next(self) -> int:
        self._drawn = (self._drawn * 1664525 + 1013904223 + self._vcpu.id) & MASK
        return self._drawn

    def _mix(self) -> None:
        value = self._chance.getrandbits(32)
        self._vcpu.write(PORT, self._base + MIX, 4, value)
        self._mixed(value)

    def _draw(self) -> None:
        self._expect("draw", self._vcpu.read(PORT, self._base + DRAW, 4), self._next())

    def _store(self) -> None:
        self._value = self._chance.getrandbits(32)
        self._vcpu.write(PORT, self._base + VALUE, 4, self._value)

    def _look(self) -> None:
        self._expect("value", self._vcpu.read(PORT, self._base + VALUE, 4), self._value)
        self._expect("sum", self._vcpu.read(PORT, self._base + SUM, 4), self._sum)

    def _mix_many(self) -> None:
        values = [self._chance.getrandbits(32) for _ in range(WORDS)]
        data = b"".join(value.to_bytes(4, "little") for value in values)
        self._vcpu.domain.memory.write(self._buffer, data)
        self._string(MIX, reads=False)
        for value in values:
            self._mixed(value)

    def _draw_many(self) -> None:
        self._string(DRAW, reads=True)
        data = self._vcpu.domain.memory.read(self._buffer, 4 * WORDS)
        for at in range(0, len(data), 4):
            self._expect("string", int.from_bytes(data[at : at + 4], "little"), self._next())

    def _string(self, register: int, *, reads: bool) -> None:
        self._vcpu.string(
            port=self._base + register,
            size=4,
            count=WORDS,
            gpa=self._buffer,
            reads=reads,
            down=False,
        )


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, vcpus=3)
    yield made
    made.close()


@pytest.mark.parametrize("longest", ["0", "3000"])
def test_whatever_is_under_way_is_done_exactly_once(world: World, longest: str) -> None:
    """Sleeping or watching: ``longest`` is how many microseconds the slots are watched."""
    print(f"STRESS_SEED={SEED}")  # noqa: T201
    chance = random.Random(SEED)
    machine = f"none,poll-max-us={longest}"
    words = ("-device", f"{DEVICE}:Hammered")
    world.start(*words, machine=machine)
    guests = [Guest(vcpu, SEED) for vcpu in world.domain.vcpus]
    for guest in guests:
        guest.start()
    begun = time.monotonic()
    unready = 0
    for _ in range(KILLS):
        time.sleep(chance.uniform(0, LONGEST_LIFE))
        world.models[-1].kill()
        unready = 0 if world.ready() else unready + 1
        if unready < MOST_UNREADY:
            world.launch(*words, machine=machine)
        else:
            world.start(*words, machine=machine)
    world.models[-1].kill()
    world.start(*words, machine=machine)
    for guest in guests:
        guest.ending = True
    for guest in guests:
        guest.join(LIMIT)
    accesses = [guest.accesses for guest in guests]
    print(f"{KILLS} kills in {time.monotonic() - begun:.1f} s, {accesses}")  # noqa: T201
    assert [guest.wrong for guest in guests] == [[]] * len(guests)
    assert not any(guest.is_alive() for guest in guests)
    assert world.domain.punishments == []
    assert world.domain.crash_message is None
    assert len(list(world.domain.servers)) == 1
    assert min(accesses) > KILLS
