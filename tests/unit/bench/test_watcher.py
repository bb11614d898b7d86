"""The watcher in dom0, against a xenstore whose answers are a script."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator

import pytest

from tools.bench import watcher
from tools.bench.watcher import ERROR, EVENT, HEADER, READ, WATCH

ROOT = watcher.ROOT


class Xenstored:
    """The other end: what is sent to it is remembered, what it says was said before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.theirs, self.ours = socket.socketpair()
        monkeypatch.setattr(os, "open", lambda path, flags: self.theirs.fileno())

    def say(self, kind: int, payload: bytes) -> None:
        self.ours.sendall(HEADER.pack(kind, 0, 0, len(payload)) + payload)

    def close(self) -> None:
        self.ours.shutdown(socket.SHUT_WR)


@pytest.fixture
def xenstored() -> Iterator[Xenstored]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        daemon = Xenstored(monkeypatch)
        with daemon.theirs, daemon.ours:
            yield daemon


def run_to_the_end(xenstored: Xenstored) -> None:
    xenstored.close()
    with pytest.raises(EOFError):
        watcher.main()


def test_it_tells_the_domain_that_runs_and_when(
    xenstored: Xenstored, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "monotonic_ns", lambda: 4711)
    xenstored.say(WATCH, b"OK\0")
    xenstored.say(EVENT, ROOT + b"\0bench\0")
    xenstored.say(EVENT, ROOT + b"/7\0bench\0")
    xenstored.say(EVENT, ROOT + b"/7/state\0bench\0")
    xenstored.say(READ, b"running")
    run_to_the_end(xenstored)
    assert capsys.readouterr().out == "ready\n7 4711\n"


def test_another_state_and_a_node_that_went_away_are_no_news(
    xenstored: Xenstored, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind, payload in ((READ, b"paused"), (ERROR, b"ENOENT\0")):
        xenstored.say(EVENT, ROOT + b"/7/state\0bench\0")
        xenstored.say(kind, payload)
    run_to_the_end(xenstored)
    assert capsys.readouterr().out == "ready\n"
