"""Keepers and those who ask them: one line each, nothing that a client does ends a keeper."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tools.toolstack.children import Loop
from tools.toolstack.errors import HostFailure, ToolstackError
from tools.toolstack.life.control import ControlServer, Request, ask


class Served:
    """A server in a thread of its own, with one request: what `perform` does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.perform: Callable[[Request], object] = lambda request: request.done(request.arguments)
        self.loop = Loop()
        self._end = False
        self.server = ControlServer(self.loop, path, self._handle)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _handle(self, request: Request) -> None:
        self.perform(request)

    def _run(self) -> None:
        while not self._end:
            self.loop.step(0.02)

    def close(self) -> None:
        self._end = True
        self._thread.join()
        self.server.close()
        self.loop.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path / "control")
    yield served
    served.close()
    assert not served.path.exists()


def test_a_request_has_its_arguments_and_gets_its_result(served: Served) -> None:
    assert ask(served.path, "do", number=3) == {"command": "do", "number": 3}


def test_progress_comes_before_the_result(served: Served) -> None:
    told: list[str] = []

    def perform(request: Request) -> None:
        request.progress("half")
        request.done(1)

    served.perform = perform
    assert ask(served.path, "do", progress=told.append) == 1
    assert told == ["half"]


@pytest.mark.parametrize("kind", [ToolstackError, HostFailure])
def test_an_error_keeps_its_kind(served: Served, kind: type[Exception]) -> None:
    served.perform = lambda request: request.failed(kind("why"))
    with pytest.raises(kind, match="why"):
        ask(served.path, "do")


def test_no_keeper_is_a_host_failure(tmp_path: Path) -> None:
    with pytest.raises(HostFailure, match="No such file"):
        ask(tmp_path / "nobody", "do")


def test_a_keeper_that_does_not_answer_is_a_host_failure(served: Served) -> None:
    served.perform = lambda request: None
    with pytest.raises(HostFailure, match="no answer in time"):
        ask(served.path, "do", timeout=0.1)


def test_a_keeper_that_ends_is_a_host_failure(tmp_path: Path) -> None:
    served = Served(tmp_path / "control")
    ending = threading.Event()
    served.perform = lambda request: ending.set()

    def close() -> None:
        ending.wait()
        served.close()

    closing = threading.Thread(target=close)
    closing.start()
    with pytest.raises(HostFailure, match="has ended"):
        ask(served.path, "do")
    closing.join()


@pytest.mark.parametrize(
    "data", [b"\n", b"[]\n", b"{\n", b"\xff\n", b"x" * 70_000, b"null\n", b"[" * 60_000 + b"\n"]
)
def test_nonsense_ends_only_its_own_connection(served: Served, data: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as wrong:
        wrong.settimeout(20)
        wrong.connect(str(served.path))
        try:
            wrong.sendall(data)
            assert wrong.recv(1) == b""
        except ConnectionError:
            pass
    assert ask(served.path, "do") == {"command": "do"}


def test_who_connects_and_says_nothing_is_in_nobody_s_way(served: Served) -> None:
    silent = [socket.socket(socket.AF_UNIX) for _ in range(10)]
    for one in silent:
        one.connect(str(served.path))
    answer: Any = ask(served.path, "do")
    assert json.dumps(answer)
    for one in silent:
        one.close()
