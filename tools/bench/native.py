"""What one request costs from slot to answer, as a multiple of the least that Python can do.

The base is unpacking a slot and calling a method. All cases take turns, so that whatever else the
machine does hits all of them; the fastest turn counts.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct, pack_into
from time import perf_counter_ns

from dm import Bank, BankMemory, Device, IsaLine, MmioWindow, PortWindow, Register
from dm.machine.fakes import TestBench
from dm.server.executor import Executor
from dm.server.ring import BufferedRing
from dm.server.slots import Slots
from protocol import layouts
from tools.bench.figures import Figure, Table

__all__ = ["measure"]

ROUNDS = 2000
REQUESTS = 200
LIMIT = 4.0
FLAT = 1.10
"""A cost is flat if it grows by no more than this factor."""

RANGES = 256
VCPUS = 128

SLOT = layouts.IOREQ_FORMAT
SIZE = layouts.IOREQ_SIZE
FLAGS = layouts.IOREQ_FLAGS_OFFSET
READY = layouts.IOREQ_STATE_READY
READS = layouts.IOREQ_DIR_MASK
PIO, COPY = layouts.IOREQ_TYPE_PIO, layouts.IOREQ_TYPE_COPY

PLAIN_PORT, HANDLED_PORT, GPA, MANY = 0x200, 0x101, 0xFE000000, 0x1000

Case = Callable[[], None]


class Ports(Bank, size=4, width=8):
    """Port 0 is plain, port 1 has handlers."""

    plain = Register.at(0)
    handled = Register.at(1)


class Memory(Bank, size=0x100, width=32):
    """A register in memory."""

    word = Register.at(4)


class Handled(Device):
    """A device with handlers and an interrupt line, which is settled after each access."""

    ports = PortWindow(Ports, at=0x100)
    registers = MmioWindow(Memory, at=GPA)
    line = IsaLine(5)

    @line.level
    def _level(self) -> bool:
        return False

    @Ports.handled.on_read
    def _read(self) -> int:
        return 1

    @Ports.handled.on_write
    def _write(self, new: int, old: int) -> None:
        pass


class Pixels(Bank, size=0x1000):
    """Nothing but memory, as in the VGA window."""

    memory = BankMemory(0, 0x1000)


class Screen(Device):
    """A device that is written to through the buffered ring."""

    frame = MmioWindow(Pixels, at=0xA0000)


class Plain(Device):
    """A device that has nothing but stored values."""

    ports = PortWindow(Ports, at=PLAIN_PORT)


def _plain_at(port: int) -> Device:
    """One more device, so that the machine claims one more range."""

    class Another(Device):
        ports = PortWindow(Ports, at=port)

    return Another(f"another{port:x}")


class _Target:
    def method(self, address: int, size: int) -> int:
        return 1


def _bare() -> Case:
    """Unpack a slot and call a method, REQUESTS times."""
    page = memoryview(bytearray(layouts.IOREQ_PAGE_SIZE))
    unpack = Struct(SLOT).unpack_from
    target = _Target()

    def run() -> None:
        for _ in range(REQUESTS):
            page[FLAGS] = READY
            address, _, _, size, _, _, _, _ = unpack(page, 0)
            target.method(address, size)

    return run


def _request(
    kind: int, address: int, size: int, *, reads: bool, ranges: int = 0, vcpus: int = 1
) -> Case:
    """Serve one request, REQUESTS times, in the slot of the last of ``vcpus``."""
    more = [_plain_at(MANY + 8 * number) for number in range(ranges)]
    machine = TestBench(Handled("handled"), Plain("plain"), *more).machine
    page = memoryview(bytearray(layouts.IOREQ_PAGE_SIZE))
    slots = Slots(page, vcpus, machine, Executor(machine), lambda vcpu: None)
    vcpu = vcpus - 1
    flags = READY | (READS if reads else 0)
    pack_into(SLOT, page, vcpu * SIZE, address, 0, 1, size, 7, 0, flags, kind)
    serve, at = slots.serve, vcpu * SIZE + FLAGS
    if not serve(vcpu):
        raise AssertionError("the request got no answer")

    def run() -> None:
        for _ in range(REQUESTS):
            page[at] = flags
            serve(vcpu)

    return run


def _buffered() -> Case:
    """Drain REQUESTS byte writes to memory from the ring."""
    machine = TestBench(Screen("screen")).machine
    page = memoryview(bytearray(layouts.IOREQ_PAGE_SIZE))
    for index in range(REQUESTS):
        at = layouts.BUFFERED_PAGE_BUF_IOREQ_OFFSET + index * layouts.BUF_IOREQ_SIZE
        address = 0xA0000 + index
        pack_into("<II", page, at, COPY | address << layouts.BUF_IOREQ_ADDR_SHIFT, index)
    ring = BufferedRing(page, lambda *_: None, machine.spaces.memory_at)
    words = page.cast("I")
    read = layouts.BUFFERED_PAGE_READ_POINTER_OFFSET // 4
    words[layouts.BUFFERED_PAGE_WRITE_POINTER_OFFSET // 4] = REQUESTS

    def run() -> None:
        words[read] = 0
        ring.drain()

    run()
    if ring.entries != REQUESTS:
        raise AssertionError("the ring was not drained")
    return run


def _cases() -> dict[str, Case]:
    ranges = RANGES - 2
    return {
        "plain port, read": _request(PIO, PLAIN_PORT, 1, reads=True),
        "plain port, write": _request(PIO, PLAIN_PORT, 1, reads=False),
        "register with handler, read": _request(PIO, HANDLED_PORT, 1, reads=True),
        "register with handler, write": _request(PIO, HANDLED_PORT, 1, reads=False),
        "register in memory, read": _request(COPY, GPA + 4, 4, reads=True),
        "buffered write to memory, drained": _buffered(),
        f"plain port of {RANGES} ranges, read": _request(
            PIO, PLAIN_PORT, 1, reads=True, ranges=ranges
        ),
        f"plain port, vCPU {VCPUS - 1}, read": _request(
            PIO, PLAIN_PORT, 1, reads=True, vcpus=VCPUS
        ),
    }


def _fastest(cases: dict[str, Case], rounds: int) -> dict[str, float]:
    """The least time of one request of each case, in microseconds."""
    best = dict.fromkeys(cases, float("inf"))
    for _ in range(rounds):
        for name, run in cases.items():
            start = perf_counter_ns()
            run()
            best[name] = min(best[name], (perf_counter_ns() - start) / REQUESTS / 1000)
    return best


def measure(rounds: int = ROUNDS) -> Table:
    """Measure for about a second."""
    base = "unpack a slot, call a method"
    best = _fastest({base: _bare(), **_cases()}, rounds)
    bare, first = best.pop(base), best["plain port, read"]
    figures = [Figure(name, "µs", [bare], [value], LIMIT) for name, value in best.items()]
    flat = [
        Figure(f"{name}, against 1", "µs", [first], [best[name]], FLAT) for name in list(best)[-2:]
    ]
    notes = [f"The fastest of {rounds} turns of {REQUESTS} requests."]
    return Table(
        "Natively: one request, from slot to answer", "base", "ioreqd", figures + flat, notes
    )
