"""The stream of a qtest client: however it is cut into packets, each line is answered once."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.hypervisor.engines.qtest import QtestServer, server
from tools.hypervisor.errors import DomainEnded

from .qtest_support import Machine


class Served:
    """A server on one end of a socket pair, in a thread; the test has the other end."""

    def __init__(self, log: io.StringIO | None = None) -> None:
        self.machine = Machine()
        self.ours, theirs = socket.socketpair()
        self.ours.settimeout(30)
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(theirs, log))
        self._thread.start()

    def _run(self, connection: socket.socket, log: io.StringIO | None) -> None:
        with connection:
            try:
                QtestServer(self.machine.engine, connection, log).serve()
            except BaseException as error:
                self.error = error

    def rest(self) -> str:
        """All that is answered until the server leaves."""
        with self.ours.makefile("rb") as stream:
            data = stream.read()
        self.close()
        return data.decode()

    def close(self) -> None:
        """Go, and see the server end."""
        self.ours.close()
        self._thread.join(30)
        assert not self._thread.is_alive()


@pytest.fixture
def served() -> Iterator[Served]:
    one = Served()
    yield one
    one.close()


@given(cuts=st.lists(st.integers(0, 60), max_size=6))
def test_lines_may_arrive_in_any_pieces(cuts: list[int]) -> None:
    one = Served()
    data = b"endianness\nwriteb 5 7\r\nreadb 0x5\nnonsense\nendianness\n"
    places = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    for first, last in pairwise(places):
        one.ours.sendall(data[first:last])
    one.ours.shutdown(socket.SHUT_WR)
    lines = one.rest().split("\n")
    assert lines[:3] == ["OK little", "OK", "OK 0x0000000000000007"]
    assert lines[3].startswith("FAIL")
    assert lines[4:] == ["OK little", ""]


def test_a_line_that_is_never_ended_is_not_answered(served: Served) -> None:
    served.ours.sendall(b"endianness\nendian")
    served.ours.shutdown(socket.SHUT_WR)
    assert served.rest() == "OK little\n"


def test_a_line_that_is_too_long_ends_the_connection(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "LONGEST_LINE", 100)
    served.ours.sendall(b"endianness\n")
    assert served.ours.recv(100) == b"OK little\n"
    served.ours.sendall(b"x" * 200)
    assert served.rest() == ""


def test_more_answers_than_a_socket_holds_arrive_in_order(served: Served) -> None:
    count = 300
    writer = threading.Thread(
        target=lambda: served.ours.sendall(b"read 0 4096\n" * count + b"endianness\n")
    )
    writer.start()
    with served.ours.makefile("rb") as stream:
        answers = [stream.readline() for _ in range(count + 1)]
    writer.join(30)
    assert {len(answer) for answer in answers[:count]} == {len("OK 0x\n") + 2 * 4096}
    assert answers[count] == b"OK little\n"
    served.ours.shutdown(socket.SHUT_WR)


def test_the_access_that_ended_the_domain_is_answered(served: Served) -> None:
    served.machine.domain.destroy()
    served.ours.sendall(b"endianness\noutb 0 0\nendianness\n")
    assert served.rest() == "OK little\nOK 0x0\n"
    assert isinstance(served.error, DomainEnded)


def test_a_client_that_goes_without_reading_ends_the_server(served: Served) -> None:
    served.ours.sendall(b"read 0 65536\n" * 50)
    served.close()
    assert served.error is None


def test_the_exchange_can_be_logged() -> None:
    log = io.StringIO()
    one = Served(log)
    one.ours.sendall(b"endianness\n")
    one.ours.shutdown(socket.SHUT_WR)
    one.rest()
    assert log.getvalue() == "[R] endianness\n[S] OK little\n"
