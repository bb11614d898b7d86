"""Virtual time: the hypervisor's timers and the emulators' deadlines, each at its own time."""

from __future__ import annotations

import mmap
import os
import struct
import threading
from collections.abc import Callable

import pytest

from protocol import layouts
from tools.hypervisor.clock import VirtualClock
from tools.hypervisor.domain import Domain

from .core_emulator import ONES, Emulator, Host

MS = 1_000_000


class Ticking:
    """An emulator's clock: timers at times, run when the hypervisor asks."""

    def __init__(self, emulator: Emulator) -> None:
        self._page = mmap.mmap(emulator.hello_fds[1], layouts.LOCAL_CLOCK_PAGE_SIZE)
        self._ask, self._done = emulator.hello_fds[2:]
        os.set_blocking(self._ask, True)
        self.deadlines: list[int] = []
        self.fired: list[tuple[int, int]] = []
        self.on_fire: Callable[[int], None] = lambda now: None
        threading.Thread(target=self._run, daemon=True).start()

    def _word(self, offset: int) -> int:
        return int(struct.unpack_from("<Q", self._page, offset)[0])

    @property
    def now(self) -> int:
        return self._word(layouts.LOCAL_CLOCK_NOW_OFFSET)

    def _run(self) -> None:
        while True:
            try:
                os.eventfd_read(self._ask)
            except OSError:
                return
            now = self.now
            for deadline in sorted(self.deadlines):
                if deadline <= now:
                    self.deadlines.remove(deadline)
                    self.fired.append((deadline, now))
                    self.on_fire(now)
            soonest = min(self.deadlines, default=ONES)
            struct.pack_into("<Q", self._page, layouts.LOCAL_CLOCK_DEADLINE_OFFSET, soonest)
            asked = self._word(layouts.LOCAL_CLOCK_ASKED_OFFSET)
            struct.pack_into("<Q", self._page, layouts.LOCAL_CLOCK_DONE_OFFSET, asked)
            os.eventfd_write(self._done, 1)


def virtual(host: Host) -> Domain:
    return host.domain(clock=VirtualClock())


def test_the_mode_is_told_in_hello_and_time_stands_still(host: Host) -> None:
    domain = virtual(host)
    domain.step_clock(5)
    emulator = host.emulator()
    assert struct.unpack_from("<I", emulator.hello, 8) == (layouts.LOCAL_CLOCK_MODE_VIRTUAL,)
    assert Ticking(emulator).now == 5


def test_deadlines_of_both_sides_fire_in_order_each_at_its_own_time(host: Host) -> None:
    domain = virtual(host)
    ticking = [Ticking(host.emulator()) for _ in range(2)]
    order: list[tuple[str, int]] = []
    for index, one in enumerate(ticking):
        one.on_fire = lambda now, i=index: order.append((f"emulator {i}", now))  # type: ignore[misc]
    ticking[0].deadlines = [10 * MS, 40 * MS]
    ticking[1].deadlines = [20 * MS, 200 * MS]
    clock = domain.clock
    for when in (15 * MS, 40 * MS):
        clock.call_at(when, lambda: order.append(("own", clock.now())))
    assert domain.step_clock(100 * MS) == 100 * MS
    assert order == [
        ("emulator 0", 10 * MS),
        ("own", 15 * MS),
        ("emulator 1", 20 * MS),
        ("own", 40 * MS),
        ("emulator 0", 40 * MS),
    ]
    assert [one.now for one in ticking] == [100 * MS] * 2
    assert domain.step_clock(100 * MS) == 200 * MS
    assert order[-1] == ("emulator 1", 200 * MS)


def test_without_a_length_time_goes_to_the_next_deadline(host: Host) -> None:
    domain = virtual(host)
    ticking = Ticking(host.emulator())
    assert domain.step_clock(None) == 0
    ticking.deadlines = [30]
    domain.clock.call_at(20, lambda: None)
    assert domain.step_clock(None) == 20
    assert ticking.fired == []
    assert domain.step_clock(None) == 30
    assert ticking.fired == [(30, 30)]


def test_timers_that_timers_start_fire_in_the_same_step(host: Host) -> None:
    domain = virtual(host)
    ticking = Ticking(host.emulator())
    ticking.deadlines = [10]
    ticking.on_fire = lambda now: ticking.deadlines.append(now + 10) if now < 50 else None
    domain.step_clock(100)
    assert [now for _, now in ticking.fired] == [10, 20, 30, 40, 50]


def test_an_emulator_may_make_calls_while_it_runs_its_timers(host: Host) -> None:
    domain = virtual(host)
    emulator = host.emulator()
    ticking = Ticking(emulator)
    ticking.deadlines = [10]

    def interrupt(now: int) -> None:
        emulator.dm_op(layouts.DM_OP_SET_ISA_IRQ_LEVEL, "<BB", 4, 1)

    ticking.on_fire = interrupt
    domain.step_clock(10)
    assert domain.interrupts.level(4) == 1


def test_an_emulator_that_dies_is_waited_for_no_longer(host: Host) -> None:
    domain = virtual(host)
    emulator = host.emulator()
    thread = threading.Thread(target=domain.step_clock, args=(10,), daemon=True)
    thread.start()
    emulator.close()
    thread.join(20)
    assert not thread.is_alive()
    assert domain.clock.now() == 10


def test_a_deadline_that_does_not_move_on_ends_the_domain(host: Host) -> None:
    domain = virtual(host)
    ticking = Ticking(host.emulator())
    ticking.deadlines = [5]
    ticking.on_fire = ticking.deadlines.append
    domain.step_clock(10)
    assert domain.state == "crashed"
    assert "does not move on" in str(domain.crash_message)


def test_a_real_clock_cannot_be_stepped(host: Host) -> None:
    with pytest.raises(TypeError):
        host.domain().step_clock(1)


def test_a_real_clocks_timers_fire_under_the_domains_lock_without_anybodys_help(
    host: Host,
) -> None:
    domain = host.domain()
    fired = threading.Event()
    with domain.lock:
        domain.clock.call_at(domain.clock.now() + 1, fired.set)
    assert fired.wait(20)
