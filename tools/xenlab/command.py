"""Commands in dom0 as the machine outside sees them: their output as it comes, and their end."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dm.errors import HostError
from tools.xenlab import agent

__all__ = ["Command", "LabError", "OnOutput", "Result"]

OnOutput = Callable[[bool, bytes], None]

_KEPT = 64 << 20
_QUEUED = 1 << 20
_KILL_GRACE = 10.0
TIMED_OUT = 124


class LabError(HostError):
    """The laboratory itself failed: no boot, or the emulator or the agent ended."""


@dataclass(frozen=True)
class Result:
    """How a command in dom0 ended.

    ``status`` is as a shell's ``$?`` (128 + n for signal n, 124 after a time-out); ``output`` is
    stdout and stderr as they came; ``share`` is dom0's /share on this machine; ``seconds`` counts
    here. ``truncated`` tells that output beyond 64 MiB was dropped.
    """

    status: int
    stdout: str
    stderr: str
    output: str
    seconds: float
    timed_out: bool
    truncated: bool
    share: Path

    def check(self) -> Result:
        """Return self; raise HostError with the end of the output if the status is not 0."""
        if self.status:
            tail = "\n".join(self.output.splitlines()[-20:])
            raise HostError(f"a command in dom0 ended with status {self.status}:\n{tail}")
        return self


class Command:
    """A command that runs in dom0, as ``Lab.start`` returns it; any thread may call its methods."""

    def __init__(self, ident: int, send: Callable[[bytes], None], share: Path) -> None:
        self.ident = ident
        self._send = send
        self._share = share
        self._began = time.monotonic()
        self._changed = threading.Condition()
        self._fresh: deque[tuple[bool, bytes]] = deque()
        self._texts = {False: bytearray(), True: bytearray()}
        self._all = bytearray()
        self._queued = 0
        self._consumed = False
        self._truncated = False
        self._timed_out = False
        self._status: int | None = None
        self._ended = 0.0
        self._failure: str | None = None

    def feed(self, kind: int, payload: bytes) -> None:
        """Take a frame for this command from the agent."""
        with self._changed:
            if kind == agent.EXIT:
                self._end(agent.NUMBER.unpack(payload)[0])
            else:
                self._take(kind == agent.STDERR, payload)
            self._changed.notify_all()

    def fail(self, reason: str) -> None:
        """End this command because the laboratory ended."""
        with self._changed:
            if self._status is None:
                self._failure = reason
            self._changed.notify_all()

    def _end(self, status: int) -> None:
        self._status = 128 - status if status < 0 else status
        self._ended = time.monotonic()

    def _take(self, is_stderr: bool, data: bytes) -> None:
        kept = data[: max(_KEPT - len(self._all), 0)]
        self._texts[is_stderr] += kept
        self._all += kept
        self._truncated |= len(kept) < len(data)
        # Whoever passes output on gets all of it: dom0 waits while the queue is full.
        while self._consumed and self._queued > _QUEUED and self._failure is None:
            self._changed.wait()
        if self._consumed or self._queued <= _KEPT:
            self._queued += len(data)
            self._fresh.append((is_stderr, data))

    @property
    def running(self) -> bool:
        """Whether the command has not ended yet."""
        return self._status is None and self._failure is None

    @property
    def output(self) -> str:
        """What the command has written so far, stdout and stderr as they came."""
        with self._changed:
            return self._all.decode(errors="replace")

    def kill(self, signum: int = signal.SIGKILL) -> None:
        """Send signal ``signum`` to the command's process group; daemons of their own survive."""
        self._send(agent.pack(agent.SIGNAL, self.ident, agent.NUMBER.pack(signum)))

    def wait_for(self, pattern: str, timeout: float) -> re.Match[str]:
        """Wait until the output so far matches the regular expression ``pattern``.

        Raises TimeoutError after ``timeout`` seconds or at the command's end, with what there was.
        """
        deadline = time.monotonic() + timeout
        expression = re.compile(pattern)
        with self._changed:
            while True:
                text = self._all.decode(errors="replace")
                match = expression.search(text)
                if match is not None:
                    return match
                self._check_failure()
                left = deadline - time.monotonic()
                if self._status is not None or left <= 0:
                    raise TimeoutError(f"no {pattern!r} in the output: {text[-2000:]!r}")
                self._changed.wait(left)

    def wait(self, timeout: float, on_output: OnOutput | None = None) -> Result:
        """Wait for the command's end; after ``timeout`` seconds kill it, which gives status 124.

        ``on_output(is_stderr, data)`` is called for each piece of output, in this thread. Raises
        LabError if the laboratory ends before the command does.
        """
        self._consume(True)
        try:
            if not self._wait(time.monotonic() + timeout, on_output):
                self._timed_out = True
                self.kill()
                if not self._wait(time.monotonic() + _KILL_GRACE, on_output):
                    raise LabError(
                        f"dom0 does not answer: SIGKILL has no effect in {_KILL_GRACE} s"
                    )
        finally:
            self._consume(False)
        with self._changed:
            assert self._status is not None
            return Result(
                status=TIMED_OUT if self._timed_out else self._status,
                stdout=self._texts[False].decode(errors="replace"),
                stderr=self._texts[True].decode(errors="replace"),
                output=self._all.decode(errors="replace"),
                seconds=self._ended - self._began,
                timed_out=self._timed_out,
                truncated=self._truncated,
                share=self._share,
            )

    def _consume(self, consumed: bool) -> None:
        with self._changed:
            self._consumed = consumed
            self._changed.notify_all()

    def _wait(self, deadline: float, on_output: OnOutput | None) -> bool:
        """Pass output on until the command ends (True) or the deadline comes (False)."""
        while True:
            with self._changed:
                left = deadline - time.monotonic()
                if not self._fresh and self.running and left > 0:
                    self._changed.wait(left)
                pieces = list(self._fresh)
                self._fresh.clear()
                self._queued = 0
                self._changed.notify_all()
                ended = self._status is not None
                if not pieces:
                    self._check_failure()
            for is_stderr, data in pieces:
                if on_output is not None:
                    on_output(is_stderr, data)
            if ended:
                return True
            if time.monotonic() >= deadline:
                return False

    def _check_failure(self) -> None:
        if self._failure is not None:
            raise LabError(self._failure)
