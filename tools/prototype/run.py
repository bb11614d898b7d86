"""One run: a hypervisor in this process, a device model beside it, a guest between them.

This process is the hypervisor and, for what little is needed here, the toolstack: it starts the
device model and waits for its `running`, lets the vCPUs go, resets softly when the guest asks for
it, and turns the guest's end into an exit status.
"""

from __future__ import annotations

import queue
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from dm.errors import ConfigError, HostError
from protocol import layouts
from tools.hypervisor.clock import VirtualClock
from tools.hypervisor.engines.choose import make_engine
from tools.hypervisor.errors import EngineUnavailable, ImageError
from tools.hypervisor.hypercalls import Hypercalls
from tools.hypervisor.hypervisor import Hypervisor
from tools.hypervisor.ports import ConsolePort, ExitPort

from .child import END_PATIENCE, DeviceModelProcess
from .guest_build import build_guest

if TYPE_CHECKING:
    from tools.hypervisor.domain import Domain
    from tools.hypervisor.engines import Engine
    from tools.hypervisor.images.cpu_start import CpuStart

    from .in_process import DirectModel, DirectVcpu
    from .plan import Plan
    from .script import ScriptEngine

__all__ = ["CRASHED", "Run"]

FAILED = 1
"""Exit status when the device model died."""
CRASHED = 3
"""Exit status for a guest that crashed or whose watchdog ended it."""
STATUSES = {
    layouts.SHUTDOWN_REASON_POWEROFF: 0,
    layouts.SHUTDOWN_REASON_REBOOT: 0,
    layouts.SHUTDOWN_REASON_SUSPEND: 0,
    layouts.SHUTDOWN_REASON_CRASH: CRASHED,
    layouts.SHUTDOWN_REASON_WATCHDOG: CRASHED,
}
LOOK_INTERVAL = 0.1
MOST_FAILURES = 6
"""Device models in a row that end before they can serve; each may leave a server, of 8."""
START_PATIENCE = 30.0
"""Seconds until a device model must say `running`."""
VGA_START, VGA_END = 0xA0000, 0xC0000
"""The hole of the VGA's window, where writes are buffered."""
LOW_END = 0xF0000000
"""Where RAM below 4 GiB ends at most; the rest goes above 4 GiB."""
HIGH_START = 1 << 32


class Run:
    """A run of a `Plan`; ``print_line`` takes lines for people and those of port 0xe9."""

    def __init__(self, plan: Plan, print_line: Callable[[str], object] | None = None) -> None:
        self.plan = plan
        self._print = print_line or _to_stderr
        self._events: queue.SimpleQueue[Callable[[], int | None]] = queue.SimpleQueue()
        self._folder = _make_folder()
        try:
            self.hypervisor = Hypervisor(str(self._folder / "xen"))
        except OSError as error:
            shutil.rmtree(self._folder)
            raise ConfigError(f"{error.strerror} (TMPDIR chooses another folder)") from None
        self.domain: Domain
        self._engine: Engine | None = None
        self._child: DeviceModelProcess | None = None
        self._direct: DirectModel | None = None
        self._script: ScriptEngine | None = None
        self._vcpus: list[DirectVcpu] = []
        self._exit_port: ExitPort
        self._failures = 0

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the device model, load the guest meanwhile, and let it run when both are ready.

        Raises ConfigError for what the user can put right, HostError for what this host refuses.
        """
        self._make_domain()
        if not self.plan.in_process:
            self.hypervisor.start()
        self._start_device_model()
        try:
            self._engine = self._make_engine()
        except (ImageError, EngineUnavailable) as error:
            raise ConfigError(str(error)) from None
        self._await_running()
        self.domain.on_shutdown.append(self._on_shutdown)
        self._engine.start()

    def _make_engine(self) -> Engine:
        plan = self.plan
        if plan.scripted:
            from .hello import hello
            from .script import ScriptEngine, body_of

            body = hello(self._words(), print) if plan.script is None else body_of(plan.script)
            self._script = ScriptEngine(self.domain, body)
            return self._script
        start = self._load()
        if self._direct is None:
            return make_engine(plan.engine, self.domain, start)
        if plan.engine == "kvm":
            raise ConfigError("--in-process goes with the unicorn engine")
        from tools.hypervisor.engines.unicorn import UnicornEngine

        self._vcpus = self._direct.vcpus()
        return UnicornEngine(self.domain, start, vcpus=self._vcpus)

    def _make_domain(self) -> None:
        size = self.plan.memory_mib << 20
        regions = [(0, VGA_START), (VGA_END, min(size, LOW_END) - VGA_END)]
        if size > LOW_END:
            regions.append((HIGH_START, size - LOW_END))
        if self.plan.bios is not None:
            from tools.hypervisor.images import bios_regions

            length = self.plan.bios.stat().st_size
            if not length:
                raise ConfigError(f"{self.plan.bios}: the file is empty")
            regions += bios_regions(length)
        clock = VirtualClock() if self.plan.scripted else None
        self.domain = self.hypervisor.create_domain(vcpus=self.plan.vcpus, ram=regions, clock=clock)
        if self.plan.bios is None:
            # A firmware that saw Xen would look for what hvmloader prepares.
            self.domain.hypercalls = Hypercalls(self.domain)
        ConsolePort(self.domain, lambda line: self._print(f"(d{self.domain.domid}) {line}"))
        self._exit_port = ExitPort(self.domain)

    def _load(self) -> CpuStart:
        from tools.hypervisor import images

        plan, memory = self.plan, self.domain.memory
        if plan.bios is not None:
            return images.load_bios(memory, plan.bios)
        assert plan.kernel is not None
        kernel = plan.kernel
        if kernel.suffix == ".c":
            kernel = build_guest(kernel, self._folder / "guest.elf", folders=[kernel.parent])
        return images.load_auto(memory, kernel, plan.append)

    def _start_device_model(self, state: Path | None = None) -> None:
        words = self._words()
        if state is not None:
            with state.open("rb") as file:
                incoming = ["-incoming", f"fd:{file.fileno()}"]
                self._launch([*words, *incoming], (file.fileno(),))
        else:
            self._launch(words, ())

    def _words(self) -> list[str]:
        """The argument vector of the device model."""
        plan = self.plan
        words = ["-m", str(plan.memory_mib), "-smp", str(plan.vcpus), "-serial", plan.serial]
        for device in plan.devices:
            words += ["-device", device]
        for option in plan.observe:
            words += ["-observe", option]
        return [*words, *plan.extra]

    def _launch(self, words: list[str], inherited: Sequence[int]) -> None:
        if self.plan.in_process:
            from .in_process import DirectModel

            self._direct = DirectModel(
                self.domain, self.hypervisor.store, words, lambda: self._events.put(lambda: 0)
            )
            for vcpu in self._vcpus:
                vcpu.attach(self._direct.model)
            return
        where = f"local,path={self.hypervisor.path},domid={self.domain.domid}"
        self._child = DeviceModelProcess(
            ["-accel", where, *words], self._folder / "qmp", self._on_child_end, inherited
        )

    def _on_child_end(self, child: DeviceModelProcess, status: int) -> None:
        self._events.put(lambda: self._child_ended(child, status))

    def _child_ended(self, child: DeviceModelProcess, status: int) -> int | None:
        if child is not self._child or child.leaving:
            return None
        if not status and not self.plan.supervise:
            return 0
        # Nobody needs one any more; the domain's own end follows, and says how it went.
        if self.plan.supervise and self.domain.over:
            return None
        return None if self._follow(status) else FAILED

    def _follow(self, status: int) -> bool:
        """Start another device model after one that ended with ``status``; says whether it was."""
        state, store = self._state_node(), self.hypervisor.store
        if store.read(state) is None:
            self._failures += 1
        else:
            self._failures = 0
            store.remove(state)
        how = f"signal {-status}" if status < 0 else f"status {status}"
        # 2 is the user's mistake, which the next one would find, too.
        if self.plan.supervise and status != 2 and self._failures < MOST_FAILURES:
            self._print(f"the device model ended with {how}; another one follows")
            self._start_device_model()
            return True
        self._print(f"the device model ended with {how}")
        return False

    def _state_node(self) -> str:
        """Where a device model says that it runs."""
        return f"/local/domain/0/device-model/{self.domain.domid}/state"

    def _await_running(self) -> None:
        """Wait until the device model can serve. SystemExit: it ended, and has said why itself."""
        path = self._state_node()
        deadline = monotonic() + START_PATIENCE
        while not self.hypervisor.store.wait(path, LOOK_INTERVAL, "running"):
            status = self._child.poll() if self._child is not None else None
            if status is not None:
                raise SystemExit(max(status, FAILED))
            if monotonic() > deadline:
                raise HostError(f"the device model is not ready after {START_PATIENCE:.0f} s")

    def _on_shutdown(self, domain: Domain) -> None:
        self._events.put(self._shut_down)

    def _shut_down(self) -> int | None:
        domain = self.domain
        if domain.shutdown_reason == layouts.SHUTDOWN_REASON_SOFT_RESET:
            return None if self._soft_reset() else FAILED
        if domain.crash_message is not None:
            self._print(f"domain {domain.domid} crashed: {domain.crash_message}")
        if self._exit_port.status is not None:
            return self._exit_port.status
        if self._script is not None:
            return self._script.status
        return STATUSES.get(domain.shutdown_reason or 0, CRASHED)

    def _soft_reset(self) -> bool:
        """What libxl does: save, end the device model, reset the domain, start another one.

        False: there is no device model to be saved, and none that follows.
        """
        state = self._folder / "state"
        self.domain.pause()
        if not self._save(state):
            return False
        model = self._child or self._direct
        assert model is not None
        model.end()
        self.hypervisor.store.remove(self._state_node())
        self.domain.soft_reset()
        self._start_device_model(state)
        self._await_running()
        state.unlink()
        self.domain.unpause()
        return True

    def _save(self, state: Path) -> bool:
        """Save the device model's state, or that of one that follows it; False: there is none."""
        if self._direct is not None:
            self._direct.save(state)
            return True
        while True:
            child = self._child
            assert child is not None
            try:
                child.save(state)
            except HostError:
                status = child.poll(END_PATIENCE)
                if status is None:
                    raise
                if not self._follow(status):
                    return False
                self._await_running()
            else:
                return True

    def wait(self) -> int:
        """Wait for the end; gives the exit status of the guest, or the device model's."""
        while True:
            status = self._events.get()()
            if status is not None:
                return status

    def close(self) -> None:
        """End everything that this run has started."""
        if self._direct is not None:
            self._direct.interrupt()
        if self._engine is not None:
            self._engine.stop()
        model = self._child or self._direct
        if model is not None:
            model.end()
        self._child = self._direct = None
        self.hypervisor.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def kill(self) -> None:
        """Leave no process and no file, whatever this process waits for; it ends itself next."""
        if self._child is not None:
            self._child.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


def _make_folder() -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="ioreqd-"))
    except OSError as error:
        raise HostError(f"{error.filename}: {error.strerror}", error.errno or 0) from None


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")
