"""The device model of a running guest: its start, what is asked of its monitor, its end.

Facts: contract §1 to §3. It is started as a process by its argument vector, and is a child of the
domain's keeper; libxl's order of the dialogue after the start is kept.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tools.toolstack.children import (
    ChildProcesses,
    DeviceModel,
    Loop,
    Program,
    StoreReadiness,
    pid_path,
    state_path,
)
from tools.toolstack.errors import HostFailure
from tools.toolstack.xlcfg import GuestConfig

from .device_model_words import device_model_words
from .monitor import Monitor

if TYPE_CHECKING:
    from tools.hypervisor.hypervisor import Hypervisor

    from .places import Place

__all__ = ["Emulator", "default_program"]

END_TIMEOUT_NS = 10 * 10**9
"""From SIGHUP until SIGKILL; libxl waits for neither."""
QMP, STATISTICS = "qmp-libxl", "qmp-libxenstat"


def default_program() -> Path:
    """The `ioreqd-dm` that belongs to this installation, else the one on the PATH."""
    beside = Path(sys.executable).parent / "ioreqd-dm"
    if os.access(beside, os.X_OK):
        return beside
    return Path(shutil.which("ioreqd-dm") or beside)


class Emulator:
    """One device model process. ``died`` is told the wait status of an end that nobody asked for.

    `wait` waits in the event loop; everything else may be called at any time.
    """

    def __init__(
        self,
        loop: Loop,
        children: ChildProcesses,
        hypervisor: Hypervisor,
        place: Place,
        log: Path,
        died: Callable[[int], object],
    ) -> None:
        self._loop, self._children = loop, children
        self._hypervisor, self._place, self._log = hypervisor, place, log
        self._died = died
        self._process: DeviceModel | None = None
        self._ending = False
        self._outcome: list[HostFailure | None] = []
        self.monitor = Monitor(place.file(QMP))

    @property
    def pid(self) -> int:
        """The process id; -1: it does not run."""
        return self._process.pid if self._process is not None else -1

    def start(self, config: GuestConfig, state: Path | None = None) -> None:
        """`begin`, then `wait`."""
        self.begin(config, state)
        self.wait()

    def begin(self, config: GuestConfig, state: Path | None = None) -> None:
        """Start it, with its saved ``state`` if there is one. ToolstackError: no such program."""
        incoming = None if state is None else _open(state)
        try:
            self._launch(config, incoming)
        finally:
            if incoming is not None:
                os.close(incoming)

    def wait(self) -> None:
        """Wait until it is ready. HostFailure: it did not start; nothing is left of it then."""
        self._loop.run_until(lambda: bool(self._outcome))
        if self._outcome[0] is not None:
            raise self._outcome[0]
        self._tell_serial()

    def _launch(self, config: GuestConfig, incoming: int | None) -> None:
        place, store = self._place, self._hypervisor.store
        for name in (QMP, STATISTICS):
            place.file(name).unlink(missing_ok=True)
        store.write(f"/local/domain/{place.domid}/image/device-model-domid", "0")
        if store.read(f"/local/domain/0/device-model/{place.domid}") is None:
            store.make(f"/local/domain/0/device-model/{place.domid}")
        override = config.device_model_override
        program = Program(
            Path(override).absolute() if override is not None else default_program(),
            device_model_words(
                config,
                place.domid,
                hypervisor=Path(self._hypervisor.path),
                monitor=place.file(QMP),
                statistics=place.file(STATISTICS),
                incoming=incoming,
            ),
            self._log,
            {"XEN_DOMAIN_ID": str(place.domid)},
            () if incoming is None else (incoming,),
        )
        self._outcome.clear()
        self._ending = False
        self._process = DeviceModel(
            self._children,
            self._loop,
            program,
            StoreReadiness(store, state_path(place.domid)),
            record_pid=lambda pid: store.write(pid_path(place.domid), str(pid)),
            started=self._started,
            died=self._ended,
        )

    def _started(self, failure: HostFailure | None) -> None:
        self._outcome.append(failure)
        if failure is not None:
            self._process = None

    def _ended(self, status: int) -> None:
        self._process = None
        if not self._ending:
            self._died(status)

    def _tell_serial(self) -> None:
        """libxl's dialogue after the start: where the serial ports' terminals are."""
        (found,) = self.monitor.ask(("query-chardev", {}))
        for one in found:
            label, name = one["label"], one.get("filename", "")
            number = label.removeprefix("serial")
            if label != number and number.isdecimal() and name.startswith("pty:"):
                path = f"/local/domain/{self._place.domid}/serial/{number}/tty"
                self._hypervisor.store.write(path, name.removeprefix("pty:"))

    def suspend(self, state: Path) -> None:
        """Stop the devices and write their state. HostFailure; there is no file then."""
        state.unlink(missing_ok=True)
        try:
            self.monitor.ask(
                ("stop", {}),
                ("xen-save-devices-state", {"live": False, "filename": str(state)}),
            )
        except HostFailure:
            state.unlink(missing_ok=True)
            raise

    def go_on(self) -> None:
        """QMP `cont`: the devices run, as they may do already. HostFailure."""
        self.monitor.ask(("cont", {}))

    def end(self) -> None:
        """Destroy it, by SIGHUP as libxl does, and wait until it is gone; by SIGKILL when it stays.

        Its nodes in xenstore and its sockets go, too.
        """
        self._ending = True
        store = self._hypervisor.store
        path = f"/local/domain/0/device-model/{self._place.domid}"
        if store.read(path) is not None:
            store.remove(path)
        if self._process is not None:
            process = self._process
            process.signal(signal.SIGHUP)
            kill = self._loop.call_at(self._loop.now() + END_TIMEOUT_NS, lambda: _kill(process))
            self._loop.run_until(lambda: self._process is None)
            kill.cancel()
        for name in (QMP, STATISTICS):
            self._place.file(name).unlink(missing_ok=True)


def _kill(process: DeviceModel) -> None:
    process.signal(signal.SIGKILL)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise HostFailure(f"open {path}: {error.strerror}") from None
