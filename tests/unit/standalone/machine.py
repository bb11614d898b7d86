"""A guest on an engine with nobody but this test around: what it accesses is recorded.

Guests are assembled by the system's compiler. Accesses that no chip takes reach `Recorder`, which
stands where a vCPU's requests go.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from tools.hypervisor.clock import Clock, VirtualClock
from tools.hypervisor.domain import Domain
from tools.hypervisor.engines.unicorn import UnicornEngine
from tools.hypervisor.images import CpuStart
from tools.hypervisor.vcpu import Vcpu

__all__ = ["CODE", "DATA", "END", "Guest", "Recorder", "assemble", "guest"]

CODE = 0x8000
DATA = 0x20000
STACK = 0x7000
RAM = 4 << 20
END = 0xF5
"""The port that ends a guest, with what it says last."""
PORT = 0
LIMIT = 20.0


def assemble(tmp_path: Path, source: str, width: int, origin: int = CODE) -> bytes:
    """The machine code of an assembler ``source`` for 16, 32 or 64-bit mode."""
    text, linked, flat = tmp_path / "guest.s", tmp_path / "guest.elf", tmp_path / "guest.bin"
    text.write_text(f".code{width}\n.globl _start\n_start:\n{source}\n")
    wide = "-m64" if width == 64 else "-m32"
    layout = (f"-Wl,-Ttext={origin:#x}", "-Wl,--build-id=none", "-Wl,-z,noseparate-code", "-Wl,-N")
    for command in (
        ["gcc", wide, "-nostdlib", "-static", "-no-pie", *layout, "-o", str(linked), str(text)],
        ["objcopy", "-O", "binary", "-j", ".text", str(linked), str(flat)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return flat.read_bytes()


class Recorder:
    """Stands for a vCPU: hypervisor's own chips answer; everything else is noted in ``log``.

    ``answers``: the bytes that reads find, by space and address; all ones elsewhere. A write to
    `END` ends the domain. ``on_read``, ``on_write`` and ``on_string`` are called with what was
    noted.
    """

    def __init__(self, vcpu: Vcpu, log: list[tuple[object, ...]]) -> None:
        self.vcpu = vcpu
        self.log = log
        self.answers: dict[tuple[int, int], int] = {}
        self.last: int | None = None
        self.on_read: Callable[[int], object] = lambda address: None
        self.on_write: Callable[[int, int], object] = lambda address, value: None
        self.on_string: Callable[[], object] | None = None

    @property
    def attention(self) -> bool:
        return self.vcpu.attention

    def read(self, space: int, address: int, size: int, /) -> int:
        domain = self.vcpu.domain
        with domain.lock:
            handler = domain.intercepts.find(space, address, size)
            value = handler.read(address, size) if handler is not None else None
        if value is not None:
            return value
        self.log.append(("in" if space == PORT else "read", address, size))
        self.on_read(address)
        bytes_ = bytes(self.answers.get((space, address + n), 0xFF) for n in range(size))
        return int.from_bytes(bytes_, "little")

    def write(self, space: int, address: int, size: int, value: int, /) -> None:
        domain = self.vcpu.domain
        with domain.lock:
            handler = domain.intercepts.find(space, address, size)
            if handler is not None and handler.write(address, size, value):
                return
        if (space, address) == (PORT, END):
            self.last = value
            domain.shutdown(0)
            return
        self.log.append(("out" if space == PORT else "write", address, size, value))
        self.on_write(address, value)

    def string(
        self, *, port: int, size: int, count: int, gpa: int, reads: bool, down: bool
    ) -> None:
        self.log.append(("ins" if reads else "outs", port, size, count, gpa, down))
        if self.on_string is not None:
            self.on_string()
        elif reads:
            self._fill(gpa, size, count, down)

    def move(self, *, mmio: int, size: int, count: int, gpa: int, reads: bool, down: bool) -> None:
        self.log.append(("from" if reads else "to", mmio, size, count, gpa, down))
        if reads:
            self._fill(gpa, size, count, down)

    def fill(self, *, mmio: int, size: int, count: int, value: int, down: bool) -> None:
        self.log.append(("fill", mmio, size, count, value, down))

    def _fill(self, gpa: int, size: int, count: int, down: bool) -> None:
        """Element n, counted in the order of the instruction, is n + 1 in each byte."""
        for number in range(count):
            at = gpa - number * size if down else gpa + number * size
            self.vcpu.domain.memory.write(at, bytes([number + 1 & 0xFF]) * size)


class Guest:
    """A domain with RAM from 0, a program in it, and the engine that runs it."""

    def __init__(
        self, code: bytes, start: CpuStart, *, vcpus: int = 1, clock: Clock | None = None
    ) -> None:
        self.domain = Domain(1, vcpus=vcpus, ram=[(0, RAM)], clock=clock)
        self.domain.memory.write(CODE, code)
        self.log: list[tuple[object, ...]] = []
        self.recorders = [Recorder(vcpu, self.log) for vcpu in self.domain.vcpus]
        self.engine = UnicornEngine(self.domain, start, self.recorders)

    def run(self) -> Guest:
        """Run to the end; the engine must not fail, and end in time."""
        self.engine.start()
        assert self.engine.join(LIMIT), f"the guest does not end; log: {self.log[-20:]}"
        assert self.engine.error is None, repr(self.engine.error)
        return self

    @property
    def last(self) -> int | None:
        """What the first vCPU wrote to the port `END`."""
        return self.recorders[0].last


@contextmanager
def guest(
    tmp_path: Path,
    source: str,
    mode: Literal["real", "protected", "long"] = "protected",
    *,
    vcpus: int = 1,
    clock: Clock | None = None,
) -> Iterator[Guest]:
    """A guest of ``source`` in a mode, in virtual time if nothing else is said; ready to run."""
    width = {"real": 16, "protected": 32, "long": 64}[mode]
    code = assemble(tmp_path, source, width)
    time = VirtualClock() if clock is None else clock
    if mode == "real":
        start = CpuStart("real", ip=CODE, sp=STACK)
    else:
        start = CpuStart(mode, ip=CODE, sp=STACK, page_table=TABLES if mode == "long" else 0)
    made = Guest(code, start, vcpus=vcpus, clock=time)
    if mode == "long":
        write_tables(made.domain)
    try:
        yield made
    finally:
        made.engine.stop()


TABLES = 0x100000


def write_tables(domain: Domain) -> None:
    """Identity tables for the first 4 GiB at `TABLES`."""
    memory = domain.memory
    memory.write(TABLES, (TABLES + 0x1000 | 3).to_bytes(8, "little"))
    for number in range(4):
        entry = TABLES + 0x2000 + number * 0x1000 | 3
        memory.write(TABLES + 0x1000 + 8 * number, entry.to_bytes(8, "little"))
    for number in range(2048):
        entry = number << 21 | 0x83
        memory.write(TABLES + 0x2000 + 8 * number, entry.to_bytes(8, "little"))
