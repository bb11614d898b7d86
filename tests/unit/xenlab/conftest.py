from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tools.xenlab import agent, lab

_PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); import agent; agent.serve({0}, {0})"


class AgentProcess:
    """The real agent in a process of its own, which imports nothing else of this project.

    It stands in for ``Emulator`` too: same ``port``, same ``stop``.
    """

    def __init__(self, cwd: Path) -> None:
        self.port, theirs = socket.socketpair()
        self.port.settimeout(60)
        with theirs:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", "-c", _PROGRAM.format(theirs.fileno())),
                    str(Path(agent.__file__).parent),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                cwd=cwd,
            )

    def stop(self) -> None:
        """Hang up, upon which the agent ends by itself."""
        with contextlib.suppress(OSError):
            self.port.shutdown(socket.SHUT_RDWR)  # wakes a reader, which close would not
        self.port.close()
        self.process.wait(20)


@pytest.fixture
def agent_process(tmp_path: Path) -> Iterator[AgentProcess]:
    started = AgentProcess(tmp_path)
    yield started
    started.stop()


@pytest.fixture
def fake_lab(
    agent_process: AgentProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[lab.Lab]:
    """A Lab whose machine is the agent on this machine."""

    class FakeImage:
        folder = tmp_path

    def emulator(*arguments: Any) -> AgentProcess:
        return agent_process

    monkeypatch.setattr(lab, "build", lambda release, progress: FakeImage())
    monkeypatch.setattr(lab, "require_tools", lambda names: None)
    monkeypatch.setattr(lab, "Emulator", emulator)
    share = tmp_path / "share"
    share.mkdir()
    with lab.Lab(share=share) as booted:
        yield booted
