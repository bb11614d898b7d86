"""Tests in a process of their own: dispositions, children and descriptors are the process's.

A forked copy of the test process, so that its one thread is the main thread, whichever it was.
"""

from __future__ import annotations

import functools
import os
import select
import signal
import traceback
import warnings
from collections.abc import Callable
from typing import Any, NoReturn, ParamSpec

from tools.toolstack.children import ChildProcesses, Hooks, Loop, Owner

P = ParamSpec("P")
LIMIT_SECONDS = 60


def isolated(test: Callable[P, None]) -> Callable[P, None]:
    """Runs the test in a forked process and fails with what it failed with."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        reader, writer = os.pipe()
        with warnings.catch_warnings():
            # From 3.12 on, os.fork warns of other threads, which pytest's workers have.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            _run(writer, lambda: test(*args, **kwargs))
        os.close(writer)
        _, status = os.waitpid(pid, 0)
        _end_group(pid)
        os.set_blocking(reader, False)
        with open(reader, "rb") as file:
            failure = (file.read() or b"").decode()
        assert status == 0, failure or f"wait status {status:#x}"

    return run


def _end_group(pid: int) -> None:
    """Ends what the test has left running, so that a failed one cannot hold pytest's output."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _run(writer: int, test: Callable[[], None]) -> NoReturn:
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        signal.alarm(LIMIT_SECONDS)
        test()
        os._exit(0)
    except BaseException:
        os.write(writer, traceback.format_exc().encode()[-60_000:])
    finally:
        os._exit(1)


class Context:
    """A `ChildProcesses` in a loop, and what it has told."""

    def __init__(self, hooks: Hooks | Owner | None = None, loop: Loop | None = None) -> None:
        self.loop = loop or Loop()
        self.warnings: list[str] = []
        self.disasters: list[str] = []
        self.deaths: list[tuple[int, int]] = []
        self.children = ChildProcesses(
            self.loop,
            warn=self.warnings.append,
            disaster=self.disasters.append,
            hooks=Hooks(hooks) if isinstance(hooks, Owner) else hooks,
        )

    def start(self, run: Callable[[], int | None] = lambda: 0) -> int:
        """Starts a child whose death is noted; gives its pid."""
        return self.children.start(run, self.died).pid

    def died(self, pid: int, status: int) -> None:
        self.deaths.append((pid, status))

    def run_until_idle(self) -> None:
        self.loop.run_until(lambda: not len(self.children))


def stranger(status: int = 0, run: Callable[[], Any] = lambda: None) -> int:
    """A child of the application's; gives its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            run()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(status)
    return pid


def await_zombie(pid: int) -> None:
    """Waits until the process has died, and leaves it to be reaped."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def exists(pid: int) -> bool:
    """Whether there is such a process, dead or alive."""
    return os.path.exists(f"/proc/{pid}")


def readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def disposition() -> Any:
    return signal.getsignal(signal.SIGCHLD)
