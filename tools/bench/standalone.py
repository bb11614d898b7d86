"""What the stand-alone hypervisor's guests pay: for a request, for a port access, for a whole run.

A request's round trip is measured from a vCPU's thread, once against `ioreqd-dm` and once against
a C program that does the least an emulator can, on the same kind of page and event channel. A port
access is one turn of a loop of guest code on Unicorn; the base is a hook that returns a constant.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter_ns, sleep
from typing import TYPE_CHECKING, Any

from dm.errors import ConfigError, HostError
from protocol import layouts
from tools.bench.figures import Figure, Table
from tools.bench.plain import PORT_NUMBER
from tools.hypervisor.hypervisor import Hypervisor
from tools.hypervisor.vcpu import PORT

if TYPE_CHECKING:
    from tools.hypervisor.domain import Domain
    from tools.hypervisor.vcpu import Vcpu

__all__ = ["measure"]

ROUNDS = 15
BATCHES, REQUESTS = 60, 50
ACCESSES = 20_000
RUNS, TRIES = 7, 3
SLEEPING_LIMIT, WATCHING_LIMIT, IN_PROCESS_LIMIT = 1.3, 4.0, 3.0
LONGEST_RUN = 500.0
"""Milliseconds that a run of an empty guest may take."""
WATCH_NS = 3_000_000
"""How long both emulators watch; as long as `ioreqd-dm` does at most."""
SETTLING = 200
"""Requests before each measurement: `ioreqd-dm` finds out that watching pays."""
PAUSE = 3 * WATCH_NS / 1e9
PATIENCE = 10.0
RAM = [(0, 1 << 20)]
ECHO_PORT = 0x6000
ECHO_SOURCE = Path(__file__).parent / "data" / "echo_local.c"
PLAIN = f"{Path(__file__).parent / 'plain.py'}:Plain"
ANSWER = 0x5A
EMPTY = bytes.fromhex("b000e6f4f4ebfd")
"""mov al, 0; out 0xf4, al; then hlt for ever."""
EMPTY_STATUS = 1


def measure(tell: Callable[[str], None] = lambda line: None) -> Table:
    """Measure for some ten seconds; what this host cannot do is told and left out."""
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="ioreqd-bench-") as name:
        folder = Path(name)
        for part in (_round_trips, _accesses, _runs):
            try:
                figures += part(folder)
            except (ConfigError, HostError) as error:
                tell(f"left out: {error}")
    notes = [
        f"Round trips: the vCPU's side is the same; {ROUNDS} rounds in turns, of each round the"
        f" fastest of {BATCHES} times {REQUESTS} reads.",
        "sleeping: nobody watches the slot; watching: both sides do.",
        f"Port accesses: a loop of {ACCESSES} `in` on Unicorn, of each round the fastest of"
        f" {TRIES}; base: a hook in Python that gives a constant.",
    ]
    return Table("Stand-alone", "base", "ioreqd", figures, notes)


def _round_trips(folder: Path) -> list[Figure]:
    """One request from a vCPU to another process and back, in microseconds."""
    echo = _build_echo(folder)
    figures = []
    for name, watched, limit in (
        ("round trip to the other process, sleeping; C", 0, SLEEPING_LIMIT),
        ("round trip to the other process, watching; C", WATCH_NS, WATCHING_LIMIT),
    ):
        hypervisor = Hypervisor(str(folder / f"xen{watched}"))
        try:
            domain = hypervisor.create_domain(vcpus=1, ram=RAM)
            hypervisor.start()
            vcpu = domain.vcpus[0]
            if not watched:
                vcpu.watch.length = 0
            machine = f"none,poll-max-us={watched // 1000}"
            with _echo(echo, domain, watched), _device_model(hypervisor, domain, machine):
                base, ours = _in_turns(vcpu)
            figures.append(Figure(name, "µs", base, ours, limit))
        finally:
            hypervisor.close()
    return figures


def _in_turns(vcpu: Vcpu) -> tuple[list[float], list[float]]:
    base: list[float] = []
    ours: list[float] = []
    for _ in range(ROUNDS):
        for port, figures in ((ECHO_PORT, base), (PORT_NUMBER, ours)):
            # The other emulator stops watching, and this one begins to.
            sleep(PAUSE)
            _ask(vcpu, port, SETTLING)
            figures.append(min(_ask(vcpu, port, REQUESTS) for _ in range(BATCHES)))
    return base, ours


def _ask(vcpu: Vcpu, port: int, requests: int) -> float:
    """Microseconds for one read of ``port``."""
    begun = perf_counter_ns()
    for _ in range(requests):
        if vcpu.read(PORT, port, 4) != ANSWER:
            raise HostError(f"port {port:#x} gave a wrong answer")
    return (perf_counter_ns() - begun) / requests / 1000


def _build_echo(folder: Path) -> Path:
    compiler = shutil.which("gcc")
    if compiler is None:
        raise ConfigError("the C echo needs gcc (Debian package gcc)")
    echo = folder / "echo_local"
    words = [compiler, "-O2", "-Wall", "-Werror", "-o", str(echo), str(ECHO_SOURCE)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HostError(f"{ECHO_SOURCE}: {done.stderr.strip()}")
    return echo


@contextmanager
def _echo(program: Path, domain: Domain, watched: int) -> Iterator[None]:
    """The C program behind a server of its own."""
    emulator = 0
    with domain.lock:
        server = domain.servers.create(emulator, layouts.BUFIOREQ_MODE_OFF)
        page = server.acquire(layouts.IOREQ_SERVER_FRAME_IOREQ, 1)
        server.ranges[layouts.IO_RANGE_TYPE_PORT].add(ECHO_PORT, ECHO_PORT + 3)
        server.enable()
        domain.servers.changed()
        channel = domain.event_channels.bind(server.channels[0].port, emulator, program)
    fds = (page, channel.fd, domain.vcpus[0].wake_fd)
    words = [str(program), *map(str, fds), "0", str(watched)]
    with subprocess.Popen(
        words, pass_fds=fds, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise HostError(f"{program} does not serve")
        try:
            yield
        finally:
            process.kill()


@contextmanager
def _device_model(hypervisor: Hypervisor, domain: Domain, machine: str) -> Iterator[None]:
    """`ioreqd-dm` with the bench's device."""
    accelerator = f"local,path={hypervisor.path},domid={domain.domid}"
    words = [sys.executable, "-m", "dm.control.main", "-accel", accelerator]
    words += ["-machine", machine, "-device", PLAIN]
    state = f"/local/domain/0/device-model/{domain.domid}/state"
    with subprocess.Popen(words) as process:
        try:
            if hypervisor.store.wait(state, PATIENCE, "running") is None:
                raise HostError("ioreqd-dm does not serve")
            yield
        finally:
            process.terminate()


def _loop(accesses: int, port: int) -> bytes:
    """16-bit code: ``in eax, dx`` so many times, then an end by the exit port."""
    code = b"\x66\xb9" + accesses.to_bytes(4, "little") + b"\xba" + port.to_bytes(2, "little")
    return code + bytes.fromhex("66ed 6649 75fa".replace(" ", "")) + EMPTY


def _accesses(folder: Path) -> list[Figure]:
    """One port access of guest code, in microseconds."""
    image = folder / "loop.bin"
    image.write_bytes(_loop(ACCESSES, PORT_NUMBER))
    base: list[float] = []
    inside: list[float] = []
    beside: list[float] = []
    for _ in range(RUNS):
        base.append(min(_bare_hook() for _ in range(TRIES)))
        inside.append(min(_guest_loop(image, in_process=True) for _ in range(TRIES)))
        beside.append(min(_guest_loop(image, in_process=False) for _ in range(TRIES)))
    return [
        Figure("port access of a guest, in process; hook", "µs", base, inside, IN_PROCESS_LIMIT),
        Figure("port access of a guest, other process; hook", "µs", base, beside),
    ]


def _bare_hook() -> float:
    try:
        unicorn: Any = importlib.import_module("unicorn")
        constants: Any = importlib.import_module("unicorn.x86_const")
    except ImportError:
        raise ConfigError("unicorn is missing (pip install 'ioreqd[unicorn]')") from None
    engine = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_16)
    engine.mem_map(0, 1 << 20)
    code = _loop(ACCESSES, PORT_NUMBER)
    engine.mem_write(0x1000, code)
    engine.hook_add(
        unicorn.UC_HOOK_INSN,
        lambda uc, port, size, data: ANSWER,
        None,
        1,
        0,
        constants.UC_X86_INS_IN,
    )
    begun = perf_counter_ns()
    engine.emu_start(0x1000, 0x1000 + len(code) - len(EMPTY))
    return (perf_counter_ns() - begun) / ACCESSES / 1000


def _guest_loop(image: Path, *, in_process: bool) -> float:
    from tools.prototype.plan import Plan
    from tools.prototype.run import Run

    plan = Plan(
        devices=(PLAIN,), kernel=image, engine="unicorn", serial="null", in_process=in_process
    )
    with Run(plan, lambda line: None) as run:
        run.start()
        begun = perf_counter_ns()
        if run.wait() != EMPTY_STATUS:
            raise HostError("the guest of the bench did not end as it should")
        return (perf_counter_ns() - begun) / ACCESSES / 1000


def _runs(folder: Path) -> list[Figure]:
    """A whole run, in milliseconds."""
    image = folder / "empty.bin"
    image.write_bytes(EMPTY)
    ours = ["-m", "tools.cli.main", "run", "--kernel", str(image)]
    tree = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": tree}
    _spend(ours, EMPTY_STATUS, environment)
    pairs = [
        (_spend(["-c", "pass"], 0, environment), _spend(ours, EMPTY_STATUS, environment))
        for _ in range(RUNS)
    ]
    base, seen = [bare for bare, _ in pairs], [whole for _, whole in pairs]
    return [
        Figure("ioreqd run of an empty guest; python3 -c pass", "ms", base, seen),
        Figure(
            "ioreqd run of an empty guest; half a second", "ms", [LONGEST_RUN] * RUNS, seen, 1.0
        ),
    ]


def _spend(words: list[str], expected: int, environment: dict[str, str]) -> float:
    begun = perf_counter_ns()
    done = subprocess.run(
        [sys.executable, *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != expected:
        raise HostError(f"python3 {' '.join(words)} ended with {done.returncode}: {done.stderr}")
    return (perf_counter_ns() - begun) / 1_000_000
