"""Killed at any instant: what is seen between any two byte codes is enough for the successor."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import pytest

from dm import (
    RO,
    WO,
    Bank,
    BankMemory,
    Device,
    Fifo,
    IsaLine,
    MmioWindow,
    PortWindow,
    Register,
    Timer,
    Transient,
    Word,
)
from dm.machine.machine import Machine
from dm.machine.survivor import Survivor, seal_over
from dm.server.server import IoreqServer

from .fake_xen import COPY, DF, POINTER, READ, Domain, FakeServer, FakeXen

PORTS, WINDOW = 0x100, 0xF000_0000
ADD, POP, PUSH, PLAIN, LATER, ONCE = (PORTS + 4 * number for number in range(6))
PERIOD = 1000
TRACED = (
    *("journal.py", "slots.py", "survivor.py", "server.py", "element.py", "state.py", "bank.py"),
    *("bus.py", "executor.py", "machine.py", "timers.py", "test_journal.py"),
)


class Ports(Bank, size=24, width=32):
    add = Register.at(0)
    pop = Register.at(4, access=RO)
    push = Register.at(8, access=WO)
    plain = Register.at(12)
    later = Register.at(16)
    once = Register.at(20)


class Window(Bank, size=0x1000, width=32):
    cursor = Register.at(0)
    total = Register.at(4)
    memory = BankMemory(0x400, 0x400)


class Counter(Device):
    """Every access changes several things, none of which may happen twice."""

    ports = PortWindow(Ports, at=PORTS)
    window = MmioWindow(Window, at=WINDOW)
    sum = Word(64)
    calls = Word()
    ticks = Word()
    queue = Fifo(64)
    tick = Timer()
    line = IsaLine(5)
    waiting = Transient()

    @line.level
    def _level(self) -> bool:
        return bool(len(self.queue) & 1)

    @Ports.add.on_write
    def _add(self, new: int, old: int) -> None:
        self.sum += new
        self.calls += 1
        self.sum += old

    @Ports.add.on_read
    def _count(self) -> int:
        self.calls += 1
        return self.calls

    @Ports.pop.on_read
    def _pop(self) -> int:
        return self.queue.pop() if len(self.queue) else 0xEE

    @Ports.push.on_write
    def _push(self, new: int, old: int) -> None:
        self.queue.push(new & 0xFF)
        self.calls += 1

    @Ports.later.on_read
    def _later(self) -> int:
        self.calls += 1
        self.waiting = self.defer()
        raise self.waiting

    @Ports.later.on_write
    def _write_later(self, new: int, old: int) -> None:
        self._later()

    @Ports.once.on_write
    def _arm(self, new: int, old: int) -> None:
        self.tick.start_in(new)

    @Window.total.on_write
    def _advance(self, new: int, old: int) -> None:
        cursor = self.window.cursor.value
        self.window.memory[cursor % 0x400] = new & 0xFF
        self.window.cursor.value = cursor + 1
        self.sum += new

    @tick.expired
    def _ticked(self) -> None:
        self.ticks += 1
        self.queue.push(self.ticks & 0xFF)
        if self.ticks < 3:
            self.tick.start_at(self.tick.deadline + PERIOD)


class Model:
    """A device model of one Counter, from its start on; ``time`` is that of its host."""

    def __init__(self, domain: Domain, folder: Path, time: int = 0) -> None:
        self.domain, self.time = domain, time
        self.xen = FakeXen(domain)
        self.xen.folder = folder
        self.machine = Machine("test", self.xen, self.xen.memory, lambda: self.time)
        self.counter = Counter("counter")
        self.machine.add(self.counter)
        self.server = IoreqServer(self.xen, self.machine, lambda seconds: None)

    def open(self) -> Model:
        """What the process does at its start."""
        self.server.open()
        path = self.xen.run_file("state")
        self.survivor = seal_over(
            path,
            self.machine,
            inherit=self.server.adopted,
            now=lambda: self.time,
            under_way=self.server.under_way(),
        )
        self.machine.start()
        self.server.settle_predecessors()
        return self

    def request(self, **request: int) -> int | None:
        """One request of vCPU 0, served; its answer."""
        assert self.domain.send(self.own, 0, **request)
        self.server.serve(0)
        return self.domain.answer(self.own, 0)

    @property
    def own(self) -> FakeServer:
        """The server as Xen has it."""
        return self.domain.servers[self.server.id]

    @property
    def taken(self) -> dict[int, FakeServer]:
        """The servers that are gone already, with their answers."""
        taken: dict[int, FakeServer] = self.domain.__dict__["taken"]
        return taken

    def observe(self) -> tuple[object, ...]:
        """Everything that a guest can find out later."""
        self.server.drain()
        counter, ram = self.counter, self.domain.memory.ram
        queue = [counter.queue.pop() for _ in range(len(counter.queue))]
        window = counter.window.cursor.value, bytes(counter.window.memory)
        words = counter.sum, counter.calls, counter.ticks, counter.ports.plain.value
        return words, queue, window, bytes(ram), counter.tick.armed and counter.tick.deadline


class Instant(NamedTuple):
    """What outlives a process that is killed."""

    domain: Domain
    file: bytes

    def key(self) -> tuple[object, ...]:
        servers = self.domain.servers.values()
        pages = [(s.id, s.enabled, bytes(s.synchronous), bytes(s.buffered)) for s in servers]
        return tuple(pages), bytes(self.domain.memory.ram), self.file

    def succeed(self, folder: Path, time: int = 0) -> Model:
        """A device model that follows."""
        folder.joinpath("state").write_bytes(self.file)
        folder.joinpath("state.new").unlink(missing_ok=True)
        return Model(copy.deepcopy(self.domain), folder, time)


def freeze(domain: Domain, folder: Path) -> Instant:
    """A copy of what is now; the processes that had bound ports are dead in it."""
    owners = {id(channel.owner): None for channel in domain.channels.values() if channel.owner}
    file = folder / "state"
    data = file.read_bytes() if file.exists() else b""
    return Instant(copy.deepcopy(domain, dict[int, Any](owners)), data)


def instants(domain: Domain, folder: Path, action: Callable[[], object]) -> list[Instant]:
    """Every different instant of ``action``, looked at between any two byte codes."""
    seen: dict[object, Instant] = {}

    def look(frame: FrameType, event: str, argument: object) -> Any:
        if not frame.f_code.co_filename.endswith(TRACED):
            return None
        frame.f_trace_opcodes = True
        sys.settrace(None)
        file = folder / "state"
        now = Instant(domain, file.read_bytes() if file.exists() else b"")
        key = now.key()
        if key not in seen:
            seen[key] = freeze(domain, folder)
        sys.settrace(look)
        return look

    before = sys.gettrace()
    sys.settrace(look)
    try:
        action()
    finally:
        sys.settrace(before)
    return list(seen.values())


OPERATIONS: list[dict[str, int]] = [
    {"address": ADD, "size": 4, "data": 5},
    {"address": PUSH, "size": 4, "data": 7},
    {"address": ADD, "size": 4, "flags": READ},
    {"address": PUSH, "size": 4, "data": 9},
    {"address": POP, "size": 4, "flags": READ},
    {"address": PLAIN, "size": 4, "data": 0x1234},
    {"address": PLAIN, "size": 4, "flags": READ},
    {"address": PUSH, "size": 1, "data": 0x100, "count": 8, "flags": POINTER},
    {"address": POP, "size": 4, "data": 0x200, "count": 4, "flags": READ | POINTER},
    {"address": POP, "size": 4, "data": 0x220, "count": 2, "flags": READ | POINTER | DF},
    {"address": ADD + 1, "size": 2, "data": 0x8001},
    {"address": ADD, "size": 1, "flags": READ},
    {"kind": COPY, "address": WINDOW + 4, "size": 4, "data": 0x31},
    {"kind": COPY, "address": WINDOW + 4, "size": 4, "data": 0x32, "count": 1},
    {"kind": COPY, "address": WINDOW + 0x3FE, "size": 4, "data": 0x55667788},
    {"address": 0x7777, "size": 1, "flags": READ},
]


@pytest.fixture
def clean(tmp_path: Path) -> tuple[list[int | None], tuple[object, ...]]:
    """The answers and the end without any death."""
    folder = tmp_path / "clean"
    folder.mkdir()
    model = Model(fresh(), folder).open()
    return [model.request(**operation) for operation in OPERATIONS], model.observe()


def fresh() -> Domain:
    domain = Domain(vcpus=2)
    domain.memory.ram[0x100:0x108] = bytes(range(0x40, 0x48))
    return domain


@pytest.mark.parametrize("index", range(len(OPERATIONS)))
def test_a_request_is_executed_exactly_once_wherever_its_process_dies(
    index: int, tmp_path: Path, clean: tuple[list[int | None], tuple[object, ...]]
) -> None:
    answers, end = clean
    domain = fresh()
    model = Model(domain, tmp_path).open()
    assert [model.request(**one) for one in OPERATIONS[:index]] == answers[:index]
    assert domain.send(model.own, 0, **OPERATIONS[index])
    old = model.server.id
    deaths = instants(domain, tmp_path, lambda: model.server.serve(0))
    assert len(deaths) >= 2
    for death in deaths:
        successor = death.succeed(tmp_path).open()
        server = death.domain.servers[old]
        assert server.slot(0)[0] == OPERATIONS[index].get("address", 0)
        assert successor.domain.answer(successor.taken[old], 0) == answers[index]
        rest = [successor.request(**one) for one in OPERATIONS[index + 1 :]]
        assert rest == answers[index + 1 :]
        assert successor.observe() == end
        assert successor.domain.punishments == []


@pytest.fixture(autouse=True)
def _keep_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remember servers that are destroyed, so that their answers can be taken."""
    destroy = FakeXen.destroy_server

    def keep(self: FakeXen, server: int) -> None:
        taken = self.domain.__dict__.setdefault("taken", {})
        taken[server] = self.domain.servers[server]
        destroy(self, server)

    monkeypatch.setattr(FakeXen, "destroy_server", keep)


@pytest.mark.parametrize("index", [0, 4, 8])
def test_it_stays_once_when_the_successor_dies_while_it_takes_over(
    index: int, tmp_path: Path, clean: tuple[list[int | None], tuple[object, ...]]
) -> None:
    answers, end = clean
    domain = fresh()
    model = Model(domain, tmp_path).open()
    for operation in OPERATIONS[:index]:
        model.request(**operation)
    domain.send(model.own, 0, **OPERATIONS[index])
    deaths = instants(domain, tmp_path, lambda: model.server.serve(0))
    halfway = deaths[len(deaths) // 2]
    heir = halfway.succeed(tmp_path)
    for death in instants(heir.domain, tmp_path, heir.open):
        last = death.succeed(tmp_path).open()
        assert last.domain.answer(last.taken[0], 0) == answers[index]
        rest = [last.request(**one) for one in OPERATIONS[index + 1 :]]
        assert rest == answers[index + 1 :]
        assert last.observe() == end


def test_a_timer_expires_exactly_once(tmp_path: Path) -> None:
    domain = fresh()
    model = Model(domain, tmp_path).open()
    model.request(address=ONCE, size=4, data=PERIOD)
    model.time = PERIOD
    for death in instants(domain, tmp_path, model.machine.run_timers):
        successor = death.succeed(tmp_path, time=PERIOD).open()
        for time in range(PERIOD, 8 * PERIOD, PERIOD):
            successor.time = time
            successor.machine.run_timers()
        words, queue, *_ = successor.observe()
        assert (words[2], queue) == (3, [1, 2, 3])  # type: ignore[index]


@pytest.mark.parametrize("flags", [READ, 0])
def test_what_a_device_was_to_answer_later_is_not_undone(flags: int, tmp_path: Path) -> None:
    domain = fresh()
    model = Model(domain, tmp_path).open()
    domain.send(model.own, 0, address=LATER, size=4, flags=flags)
    model.server.serve(0)
    old = model.own
    assert domain.send(old, 1, address=ADD, size=4, data=3)
    model.server.serve(1)
    successor = freeze(domain, tmp_path).succeed(tmp_path).open()
    assert successor.counter.sum == 3
    # The read is asked again, the write is not: it had its effects.
    assert successor.counter.calls == (3 if flags else 2)
    if flags:
        successor.counter.waiting.complete(0x77)
        assert successor.domain.answer(successor.domain.servers[0], 0) == 0x77
    else:
        assert successor.domain.answer(successor.taken[0], 0) == 0


def test_a_file_that_names_a_place_outside_the_buffer_undoes_nothing(tmp_path: Path) -> None:
    domain = fresh()
    model = Model(domain, tmp_path).open()
    model.request(address=ADD, size=4, data=3)
    file = tmp_path / "state"
    data = bytearray(file.read_bytes())
    data[64:88] = (1 << 40).to_bytes(8, "little") + (8).to_bytes(8, "little") + b"\1" + bytes(7)
    file.write_bytes(data)
    inherited = Survivor(str(file), model.machine).inherited([0])
    assert inherited is not None
    assert inherited[0] == bytes(model.machine.buffer)


def test_what_is_answered_later_stays_noted_when_another_predecessor_is_ended(
    tmp_path: Path,
) -> None:
    first = Model(fresh(), tmp_path).open()
    first.domain.send(first.own, 1, address=LATER, size=4, flags=READ)
    first.server.serve(1)
    second = freeze(first.domain, tmp_path).succeed(tmp_path).open()
    third = freeze(second.domain, tmp_path).succeed(tmp_path).open()
    assert bytes(third.machine.journal.deferred[:2]) == b"\0\1"
    third.request(address=PUSH, size=4, data=7)
    before = third.counter.calls
    last = freeze(third.domain, tmp_path).succeed(tmp_path).open()
    assert last.counter.queue.pop() == 7
    assert last.counter.calls == before + 1


def test_an_answer_that_came_late_may_be_a_process_s_last_act(tmp_path: Path) -> None:
    domain = fresh()
    model = Model(domain, tmp_path).open()
    domain.send(model.own, 0, address=LATER, size=4, flags=READ)
    model.server.serve(0)
    complete = model.counter.waiting.complete
    for death in instants(domain, tmp_path, lambda: complete(0x77)):
        heir = death.succeed(tmp_path).open()
        assert heir.machine.journal.deferred[0] == (0 in heir.server.under_way())
