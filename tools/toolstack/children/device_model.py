"""The start of a device model, until it is ready or has failed, and its end thereafter.

Facts: contract §1.2, §2.1 (libxl__spawn_spawn): watch and timer stand before the fork; 60 seconds;
until readiness any end, even with status 0, is a failed start. What differs from libxl: it ends
only its middle process when time is up and leaves the device model to be signalled by the recorded
pid; here the device model is killed and has been reaped before the failure is told.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from tools.toolstack.errors import HostFailure

from .child_processes import Child, ChildProcesses
from .log_file import tail
from .loop import EventLoop
from .program import Program
from .readiness import Readiness
from .status import describe_end

__all__ = ["START_TIMEOUT_NS", "DeviceModel"]

START_TIMEOUT_NS = 60 * 10**9
"""LIBXL_DEVICE_MODEL_START_TIMEOUT."""


class DeviceModel:
    """A device model from its start on.

    ``started`` is called exactly once, from the event loop: with None when the device model is
    ready, or with a HostFailure when it is not and never will be; it does not run any more then.
    ``died`` is called exactly once, with the wait status, for the end of one that was ready.
    ``record_pid`` is called once, as soon as there is a process; what it raises fails the start.
    """

    def __init__(
        self,
        children: ChildProcesses,
        loop: EventLoop,
        program: Program,
        readiness: Readiness,
        *,
        record_pid: Callable[[int], object],
        started: Callable[[HostFailure | None], object],
        died: Callable[[int], object],
        timeout_ns: int = START_TIMEOUT_NS,
    ) -> None:
        """Start it. ToolstackError: no executable; HostFailure, RuntimeError: nothing started."""
        program.check()
        self._program = program
        self._started: Callable[[HostFailure | None], object] | None = started
        self._died = died
        self._failure: str | None = None
        self._timeout_ns = timeout_ns
        self._unwatch = readiness.arm(loop, self._ready)
        self._timer = loop.call_at(loop.now() + timeout_ns, self._late)
        try:
            self._child = self._fork(children)
        except BaseException:
            self._stop_waiting()
            raise
        self.pid = self._child.pid
        self._pidfd = -1
        self._register(record_pid)

    @property
    def running(self) -> bool:
        """Whether there is a process, as far as the event loop knows."""
        return self._child.in_use

    def signal(self, number: int) -> bool:
        """Send a signal; False: it has ended already.

        By pidfd: in `Owner.MAINLOOP` the application may have reaped the child and not have said
        so yet, and its pid may be a stranger's.
        """
        if self._pidfd < 0:
            return False
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            return False
        return True

    def _fork(self, children: ChildProcesses) -> Child:
        prepared = self._program.prepare()
        try:
            return children.start(prepared.run, self._ended)
        finally:
            prepared.close()

    def _register(self, record_pid: Callable[[int], object]) -> None:
        try:
            self._pidfd = os.pidfd_open(self.pid)
            record_pid(self.pid)
        except Exception as error:
            self._fail(f"its process id {self.pid} cannot be recorded: {error}")

    def _ready(self) -> None:
        if self._started is not None and self._failure is None:
            self._stop_waiting()
            started, self._started = self._started, None
            started(None)

    def _late(self) -> None:
        self._fail(f"it was not ready after {self._timeout_ns / 1e9:.0f} s")

    def _fail(self, why: str) -> None:
        """Kill it; the failure is told when it is dead."""
        self._stop_waiting()
        self._failure = why
        if not self.signal(signal.SIGKILL) and self._pidfd < 0:
            os.kill(self.pid, signal.SIGKILL)

    def _stop_waiting(self) -> None:
        self._timer.cancel()
        self._unwatch()

    def _ended(self, pid: int, status: int) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        if self._started is None:
            self._died(status)
            return
        self._stop_waiting()
        started, self._started = self._started, None
        why = self._failure or f"it {describe_end(status)} before it was ready"
        started(HostFailure(self._explain(why)))

    def _explain(self, why: str) -> str:
        """The failure in words, with the end of the log below."""
        program = self._program
        lines = tail(program.log)
        head = f"device model {program.path} (pid {self.pid}) did not start: {why}"
        if not lines:
            return f"{head}; nothing in {program.log}"
        return "\n".join([f"{head}; the end of {program.log}:", *(f"  {one}" for one in lines)])
