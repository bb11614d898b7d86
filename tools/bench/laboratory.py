"""Stock QEMU and ioreqd-dm in one boot of the laboratory, in turns: what each costs.

Each round creates, for each device model, a guest with SeaBIOS (start, memory, idling) and the
bench's own guest (times of accesses). Nothing polls in dom0 meanwhile: with one CPU that would
double every time. The machine outside waits, by reading Xen's log.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dm.errors import HostError
from tools.bench import watcher
from tools.bench.figures import Figure, Table
from tools.bench.guest import (
    DONE,
    READY,
    compile_echo,
    compile_guest,
    compile_launcher,
    parse,
)
from tools.xenlab import Command, Lab

__all__ = ["Plan", "measure"]

Progress = Callable[[str], None]

_RUN = "/run/ioreqd-bench"
_RECORD = f"{_RUN}/started"
_IDLE_SECONDS = 5
_STEADY = 1.15
"""Exits that Xen handles alone cost the same on both sides, give or take this factor."""
_GUEST_ROUNDS = 15
_REQUESTS = 40


@dataclass(frozen=True)
class Model:
    """A device model: its name, its program in dom0, and arguments for the bench's guest."""

    name: str
    target: str
    arguments: tuple[str, ...] = ()


QEMU = Model("stock QEMU", "/usr/libexec/xen-qemu-system-i386")
OURS = Model("ioreqd-dm", "/usr/local/bin/ioreqd-dm", ("-device", "tools.bench.rig:Rig"))
MODELS = {"qemu": QEMU, "ioreqd": OURS}

SYNCHRONOUS = {
    "port-read": "port read (0x64)",
    "port-write": "port write (0x3ff)",
    "pci-read": "PCI configuration read (00:00.0)",
    "mmio-read": "MMIO read (edu, BAR 0)",
    "rep-insl": "`rep insl` of a page (0x1f0)",
}
"""What one CPU at least waits for: the sample's name, and the row's."""
ECHOES = {"sleep": "C echo, sleeping", "poll": "C echo, polling"}
"""The emulator that does the least (echo.c), by its two ways to wait."""
ECHO_PORT = 0x5100
OTHERS = {
    "unclaimed": "unclaimed port (0x5000)",
    "vga-issue": "VGA-window write, buffered: issued",
    "vga-drained": "VGA-window write, buffered: until drained",
    "in-xen": "for comparison: exit handled in Xen (0x61)",
}


@dataclass(frozen=True)
class Plan:
    """What to measure: the Xen release, emulated CPUs, the wheel, and how many rounds.

    ``settled`` rounds wait for SeaBIOS's end, for memory and idling, which vary little.
    """

    xen: str
    cpus: int
    wheel: Path
    rounds: int = 5
    settled: int = 2


@dataclass
class Sample:
    """What was seen of one device model, one value for each round."""

    access: dict[str, list[float]] = field(default_factory=dict)
    start: list[float] = field(default_factory=list)
    resident: list[float] = field(default_factory=list)
    proportional: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    idle: list[float] = field(default_factory=list)
    statistics: str = ""


class Bench:
    """Runs guests in a booted laboratory."""

    def __init__(self, lab: Lab, progress: Progress) -> None:
        self._lab = lab
        self._progress = progress
        self.mhz = 0.0
        self._watcher: Command

    def prepare(self) -> None:
        """Put programs and configurations in place and start the watcher."""
        folder = self._lab.share
        compile_guest(folder / "guest.elf", rounds=_GUEST_ROUNDS, requests=_REQUESTS)
        compile_echo(folder / "echo")
        (folder / "echo.cfg").write_text(_bench("echo", "qemu", QEMU))
        (folder / "watcher.py").write_text(Path(watcher.__file__).read_text())
        for key, model in MODELS.items():
            compile_launcher(folder / key, target=model.target, record=_RECORD)
            (folder / f"{key}-seabios.cfg").write_text(_seabios(f"{key}-seabios", key))
            (folder / f"{key}-bench.cfg").write_text(_bench(f"{key}-bench", key, model))
        copies = " ".join(f"/share/{name}" for name in (*MODELS, "echo"))
        targets = " && ".join(f"test -x {model.target}" for model in MODELS.values())
        self._run(f"{targets} && mkdir -p {_RUN} && cp {copies} {_RUN} && cp /share/*.cfg {_RUN}")
        clock = re.search(r"cpu_mhz\s*:\s*([\d.]+)", self._run("xl info"))
        if clock is None:
            raise HostError("xl info tells no cpu_mhz")
        self.mhz = float(clock[1])
        self._watcher = self._lab.start("exec python3 -I -S /share/watcher.py")
        self._watcher.wait_for("ready", 30)

    def _run(self, command: str) -> str:
        return self._lab.run(command, timeout=120).check().stdout

    def _create(self, name: str, options: str = "") -> int:
        """Create a guest; gives its domain id. On failure the device model's log is shown."""
        log = f"/var/log/xen/qemu-dm-{name}.log"
        text = self._run(
            # As in a shell of a user's: the laboratory's own keeps Python from caching byte code.
            f"env -u PYTHONDONTWRITEBYTECODE xl create -q {options} {_RUN}/{name}.cfg"
            f" && xl domid {name}"
            f" || {{ cat {log} >&2; exit 1; }}"
        )
        return int(text.split()[-1])

    def _pid(self, domid: int) -> int:
        return int(self._run(f"xenstore-read /local/domain/{domid}/image/device-model-pid"))

    def _cpu_time(self, pid: int) -> int:
        return _milliseconds(self._run(f"cat /proc/{pid}/stat"))

    def seabios(self, key: str, sample: Sample, *, settle: bool) -> None:
        """Start a guest with SeaBIOS; with ``settle`` also wait for its end, for the memory."""
        name = f"{key}-seabios"
        seen = len(self._lab.xen_log())
        domid = self._create(name)
        running = self._watcher.wait_for(rf"(?m)^{domid} (\d+)$", 60)
        started = int(self._run(f"cat {_RECORD}"))
        sample.start.append((int(running[1]) - started) / 1e9)
        if settle:
            self._lab.wait_log("No bootable device", 120, start=seen)
            self._memory(self._pid(domid), sample)
        self._run(f"xl destroy {name}")

    def _memory(self, pid: int, sample: Sample) -> None:
        text = self._run(f"grep VmRSS /proc/{pid}/status; grep ^Pss: /proc/{pid}/smaps_rollup")
        kilobytes = [int(number) for number in re.findall(r"(\d+) kB", text)]
        sample.resident.append(kilobytes[0] / 1024)
        sample.proportional.append(kilobytes[1] / 1024)

    def accesses(self, key: str, sample: Sample, *, settle: bool) -> None:
        """Run the bench's guest to its end; with ``settle`` also watch it idle."""
        name = f"{key}-bench"
        seen = len(self._lab.xen_log())
        pid = self._pid(self._create(name))
        ready = self._lab.wait_log(READY, 60, start=seen)
        began = self._cpu_time(pid)
        if re.search("BENCH in-xen", self._lab.xen_log()[ready.end() :]):
            self._progress(f"  {name}: CPU time was read late")
        self._lab.wait_log(DONE, 240, start=seen)
        spent = self._cpu_time(pid) - began
        log = self._lab.xen_log()[seen:]
        for kind, value in parse(log, self.mhz).items():
            sample.access.setdefault(kind, []).append(value)
        sample.busy.append(spent / _seconds(log, self.mhz))
        if settle:
            text = self._run(f"cat /proc/{pid}/stat; sleep {_IDLE_SECONDS}; cat /proc/{pid}/stat")
            before, after = text.splitlines()
            sample.idle.append((_milliseconds(after) - _milliseconds(before)) / _IDLE_SECONDS)
        if MODELS[key] is not QEMU:
            sample.statistics = self._run(f"xl qemu-monitor-command {name} 'info ioreq'")
        self._run(f"xl destroy {name}")

    def echo(self, mode: str) -> float:
        """Let the echo stand beside QEMU and answer the bench's guest: microseconds a request."""
        seen = len(self._lab.xen_log())
        domid = self._create("echo")
        echo = self._lab.start(f"exec {_RUN}/echo {domid} {ECHO_PORT} {mode}")
        echo.wait_for("serving", 10)
        self._lab.wait_log(DONE, 240, start=seen)
        answered = parse(self._lab.xen_log()[seen:], self.mhz)
        if "echo" not in answered:
            raise HostError("the echo came too late for its guest")
        self._run("xl destroy echo")
        echo.kill()
        return answered["echo"]


def _milliseconds(line: str) -> int:
    """CPU time of a process from its /proc/PID/stat, in steps of 10 ms; without stolen time.

    (/proc/PID/schedstat is finer, but counts what the guest did while the process yielded.)
    """
    user, system = line.rpartition(")")[2].split()[11:13]
    return 10 * (int(user) + int(system))


def _seconds(log: str, mhz: float) -> float:
    """How long all samples took together."""
    ticks = re.findall(r"BENCH (?!vga-issue)[a-z-]+ [0-9a-f]+ ([0-9a-f]+)$", log, re.MULTILINE)
    return sum(int(value, 16) for value in ticks) / mhz / 1e6


def _config(name: str, key: str, **values: object) -> str:
    common = {
        "name": name,
        "type": "hvm",
        "vcpus": 1,
        "vnc": 0,
        "serial": "pty",
        "on_poweroff": "destroy",
        "on_reboot": "destroy",
        "on_crash": "destroy",
        "device_model_version": "qemu-xen",
        "device_model_override": f"{_RUN}/{key}",
    }
    lines = []
    for option, value in {**common, **values}.items():
        text = f'"{value}"' if isinstance(value, str) else str(value).replace("'", '"')
        lines.append(f"{option}={text}\n")
    return "".join(lines)


def _seabios(name: str, key: str) -> str:
    return _config(name, key, memory=32, vga="none")


def _bench(name: str, key: str, model: Model) -> str:
    return _config(
        name,
        key,
        memory=64,
        vga="stdvga",
        firmware_override="/share/guest.elf",
        device_model_args_hvm=["-device", "edu", *model.arguments],
    )


def measure(plan: Plan, progress: Progress = lambda line: None) -> list[Table]:
    """Boot, measure, and return the tables. Raises what ``Lab`` raises, HostError for a failure."""
    samples = {key: Sample() for key in MODELS}
    echoes: dict[str, list[float]] = {mode: [] for mode in ECHOES}
    with (
        tempfile.TemporaryDirectory(prefix="ioreqd-bench-") as folder,
        Lab(
            xen=plan.xen,
            cpus=plan.cpus,
            dom0_vcpus=1,
            install=[plan.wheel],
            share=Path(folder),
            progress=progress,
        ) as lab,
    ):
        bench = Bench(lab, progress)
        bench.prepare()
        for key in MODELS:
            # The first start of either fills caches.
            bench.seabios(key, Sample(), settle=False)
        for number in range(plan.rounds):
            progress(f"Xen {plan.xen}, {plan.cpus} CPU(s): round {number + 1} of {plan.rounds}")
            for key, sample in samples.items():
                bench.seabios(key, sample, settle=number < plan.settled)
                bench.accesses(key, sample, settle=number < plan.settled)
            for mode, times in echoes.items() if number < plan.settled else ():
                times.append(bench.echo(mode))
    return [
        table(plan, samples["qemu"], samples["ioreqd"]),
        floor(plan, samples["qemu"], echoes),
    ]


def floor(plan: Plan, qemu: Sample, echoes: dict[str, list[float]]) -> Table:
    """What a port read costs when the emulator does nothing: who answers it costs more."""
    name = "port-read"
    base = qemu.access.get(name, [])
    figures = [
        Figure(f"{SYNCHRONOUS[name]}; {text}", "µs", base, echoes[mode])
        for mode, text in ECHOES.items()
    ]
    notes = [
        f"The echo answers port {ECHO_PORT:#x} of the same guest, beside stock QEMU; a C program"
        " that does nothing but wait, store and notify.",
    ]
    return Table(
        f"The least that a request costs: {_where(plan)}", QEMU.name, "C echo", figures, notes
    )


def _where(plan: Plan) -> str:
    return f"Xen {plan.xen}, {plan.cpus} emulated CPU" + ("s" if plan.cpus > 1 else "")


def table(plan: Plan, qemu: Sample, ours: Sample) -> Table:
    """What was seen, with the project's expectations."""
    per_request = 0.5 if plan.cpus > 1 else 1.0
    figures = [
        *_accesses(SYNCHRONOUS, qemu, ours, per_request),
        *_accesses(OTHERS, qemu, ours, 1.0),
        Figure("exec to `running`", "s", qemu.start, ours.start, 1.0),
        Figure("resident memory after SeaBIOS", "MB", qemu.resident, ours.resident, 0.6),
        Figure("proportional memory after SeaBIOS", "MB", qemu.proportional, ours.proportional),
        Figure("CPU time in a second of requests", "ms", qemu.busy, ours.busy),
        Figure("CPU time in a second of an idle guest", "ms", qemu.idle, ours.idle),
    ]
    watched = re.search(r"watched .*", ours.statistics)
    notes = [
        f"Medians of {plan.rounds} rounds in one boot, the device models in turns, each round the"
        f" lower quartile of {_GUEST_ROUNDS} samples; spread: the smallest and largest ratio of a"
        " round.",
        "Both run the same guest with the same xl.cfg (dom0 has one vCPU). `rep insl`: an IDE port"
        " without a drive in QEMU, a block port of a bench device in ioreqd-dm; VGA window: std VGA"
        " in QEMU, memory of that bench device in ioreqd-dm. Both had been started once before.",
        f"Polling in ioreqd-dm's last guest: {watched[0].strip() if watched else 'unknown'}.",
    ]
    steady = figures[len(SYNCHRONOUS) + len(OTHERS) - 1].ratio
    if steady is not None and not 1 / _STEADY <= steady <= _STEADY:
        notes.append(
            f"Exits that Xen handles alone differ by a factor of {steady:.2f}: something else ran"
            " on this machine, so the ratios above say little."
        )
    title = f"Against stock QEMU: {_where(plan)}"
    return Table(title, QEMU.name, OURS.name, figures, notes)


def _accesses(
    names: dict[str, str], qemu: Sample, ours: Sample, expected: float
) -> Sequence[Figure]:
    return [
        Figure(
            name,
            "µs",
            qemu.access.get(kind, []),
            ours.access.get(kind, []),
            None if kind == "in-xen" else expected,
        )
        for kind, name in names.items()
    ]
