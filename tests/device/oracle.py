"""How a long run of accesses is made on QEMU and on our devices, and compared.

Requests are sent to QEMU by the thousand, so an access costs microseconds. After each access its
answer and the level of every watched interrupt line are compared; the first difference ends the
run and tells what led to it. A fresh seed is drawn for each run and named in every failure;
``IOREQD_ORACLE_SEED=N`` repeats a run.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from random import Random, SystemRandom
from typing import Any, NamedTuple

import pytest

from dm.machine.fakes import TestBench

from .qtest import BATCH_BYTES, Answer, Qtest
from .support import Access

SEED_VARIABLE = "IOREQD_ORACLE_SEED"
ACCESSES = 100_000
"""That each device gets at least."""

BATCH = 2000
REMEMBERED = 12


class Pause(NamedTuple):
    """A point at which both sides are at rest, and what is done to them there."""

    deed: Callable[[Qtest, TestBench], None]


Step = Access | Pause


Lines = Mapping[int, Callable[[], int]]
"""I/O APIC input to where our level of it is read."""


@pytest.fixture
def random(
    request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> Random:
    """Random numbers of the run's seed, which is told when the test fails (or with ``-rP``)."""
    given = os.environ.get(SEED_VARIABLE)
    seed = int(given, 0) if given else SystemRandom().getrandbits(32)
    record_property("seed", seed)
    sys.stdout.write(f"{SEED_VARIABLE}={seed}\n")
    return Random(f"{seed} {request.node.name}")


def within(random: Random, base: int, length: int, sizes: Sequence[int]) -> tuple[int, int]:
    """An address and a size within a window."""
    size = random.choice(sizes)
    return base + random.randrange(length - size + 1), size


def _level(levels: dict[Any, int], line: object) -> int:
    return levels.get(line, 0)


def isa(bench: TestBench, *irqs: int) -> Lines:
    """Watch ISA interrupts."""
    levels = bench.platform.isa
    return {irq: partial(_level, levels, irq) for irq in irqs}


def intx(bench: TestBench, inputs: Mapping[int, int]) -> Lines:
    """Watch pin A of PCI slots: I/O APIC input to slot."""
    levels = bench.platform.intx
    return {line: partial(_level, levels, (slot, 0)) for line, slot in inputs.items()}


def compare(qemu: Qtest, bench: TestBench, lines: Lines, steps: Iterable[Step]) -> None:
    """Make `ACCESSES` of ``steps``, which must be as many, on both sides."""
    comparison = Comparison(qemu, bench, lines)
    comparison.run(steps)
    assert comparison.made == ACCESSES


def noise(random: Random, size: int) -> int:
    """A value of ``size`` bytes of the kinds that drivers and fuzzers write."""
    bits = 8 * size
    kind = random.randrange(5)
    if kind == 0:
        return 1 << random.randrange(bits)
    if kind == 1:
        return random.choice((0, (1 << bits) - 1))
    return random.getrandbits(8 if kind == 2 else bits)


class Comparison:
    """QEMU and a bench side by side. ``made``: accesses that were compared so far."""

    def __init__(self, qemu: Qtest, bench: TestBench, lines: Lines) -> None:
        self.qemu = qemu
        self.bench = bench
        self.lines = lines
        self.made = 0
        self._recent: deque[str] = deque(maxlen=REMEMBERED)
        self._theirs = dict.fromkeys(lines, 0)
        qemu.irq_intercept()

    def run(self, steps: Iterable[Step]) -> None:
        """Make every access on both sides. AssertionError names the first difference."""
        waiting: list[tuple[Access, list[str]]] = []
        room = BATCH_BYTES
        for step in steps:
            if self.made + len(waiting) == ACCESSES:
                break
            if isinstance(step, Pause):
                self._flush(waiting)
                step.deed(self.qemu, self.bench)
                self._catch_up()
                waiting, room = [], BATCH_BYTES
                continue
            requests = step.requests()
            length = sum(map(len, requests)) + len(requests)
            if length > room or len(waiting) == BATCH:
                self._flush(waiting)
                waiting, room = [], BATCH_BYTES
            waiting.append((step, requests))
            room -= length
        self._flush(waiting)
        assert self.bench.machine.errors == 0

    def _flush(self, waiting: list[tuple[Access, list[str]]]) -> None:
        if not waiting:
            return
        answers = iter(self.qemu.batch([line for _, requests in waiting for line in requests]))
        for access, requests in waiting:
            for _ in requests:
                answer = next(answers)
                self._theirs.update(answer.changes)
            self._compare(access, answer)

    def _compare(self, access: Access, answer: Answer) -> None:
        ours, theirs = access.perform(self.bench), access.parse(answer.text)
        self.made += 1
        self._recent.append(repr(access))
        if ours != theirs and (ours ^ theirs) & ~access.ignored:
            self._fail(f"QEMU {theirs:#x}, ours {ours:#x}")
        for line, level in self.lines.items():
            if level() != self._theirs[line]:
                self._fail(f"line {line}: QEMU {self._theirs[line]}, ours {level()}")

    def _catch_up(self) -> None:
        """Take over the levels that QEMU's lines got while something was done to both sides."""
        self._theirs.update(self.qemu.irqs)
        self._recent.append("pause")

    def _fail(self, difference: str) -> None:
        told = "\n  ".join(self._recent)
        raise AssertionError(f"access {self.made}: {difference}; the last ones:\n  {told}")
