from __future__ import annotations

import os
import select
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.xenlab.conftest import AgentProcess
from tools.xenlab import agent

FRAMES = st.lists(
    st.tuples(st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=300)), max_size=8
)


@given(FRAMES, st.integers(1, 50))
def test_frames_survive_any_division_of_the_stream(
    frames: list[tuple[int, int, bytes]], step: int
) -> None:
    stream = b"".join(agent.pack(*frame) for frame in frames)
    splitter = agent.Splitter()
    seen = []
    for start in range(0, len(stream), step):
        seen += splitter.feed(stream[start : start + step])
    assert seen == frames


def test_a_frame_beyond_the_limit_is_refused_by_both_ends() -> None:
    with pytest.raises(agent.FrameError):
        agent.pack(agent.START, 1, bytes(agent.MAX_PAYLOAD + 1))
    with pytest.raises(agent.FrameError):
        agent.Splitter().feed(b"\x01\0\0\0\x01\xff\xff\xff\xff")


class Peer:
    """Our end of the agent's port: frames in, frames out."""

    def __init__(self, process: AgentProcess) -> None:
        self._port = process.port
        self._splitter = agent.Splitter()
        self._frames: list[tuple[int, int, bytes]] = []
        assert self.next() == (agent.READY, 0, b"")

    def next(self) -> tuple[int, int, bytes]:
        while not self._frames:
            data = self._port.recv(4096)
            assert data, "the agent closed the port"
            self._frames += self._splitter.feed(data)
        return self._frames.pop(0)

    def start(self, ident: int, text: str) -> None:
        self._port.sendall(agent.pack(agent.START, ident, text.encode()))

    def signal(self, ident: int, number: int) -> None:
        self._port.sendall(agent.pack(agent.SIGNAL, ident, agent.NUMBER.pack(number)))

    def until_exit(self, ident: int) -> tuple[bytes, bytes, int]:
        texts = {agent.STDOUT: b"", agent.STDERR: b""}
        while True:
            kind, of, payload = self.next()
            assert of == ident
            if kind == agent.EXIT:
                return texts[agent.STDOUT], texts[agent.STDERR], agent.NUMBER.unpack(payload)[0]
            texts[kind] += payload


@pytest.fixture
def peer(agent_process: AgentProcess) -> Peer:
    return Peer(agent_process)


def test_a_command_gives_its_output_and_status(peer: Peer) -> None:
    peer.start(7, "echo out; echo err >&2; exit 3")
    assert peer.until_exit(7) == (b"out\n", b"err\n", 3)


def test_a_command_has_no_input_a_session_of_its_own_and_default_signals(peer: Peer) -> None:
    peer.start(1, "cat; [ $(ps -o sid= -p $$) = $$ ] && grep SigIgn /proc/self/status")
    out, _, status = peer.until_exit(1)
    assert status == 0
    ignored = int(out.split()[1], 16)
    assert not ignored & 1 << signal.SIGPIPE - 1
    assert not ignored & 1 << signal.SIGXFSZ - 1


def test_output_larger_than_any_buffer_arrives_whole(peer: Peer) -> None:
    peer.start(1, "head -c 3000000 /dev/zero")
    out, _, status = peer.until_exit(1)
    assert (out, status) == (bytes(3000000), 0)


def test_a_signal_reaches_the_whole_process_group(peer: Peer) -> None:
    peer.start(1, "sleep 1000 | { echo begun; cat; }")
    assert peer.next() == (agent.STDOUT, 1, b"begun\n")
    peer.signal(1, signal.SIGKILL)
    assert peer.until_exit(1) == (b"", b"", -signal.SIGKILL)


def test_commands_run_at_the_same_time(peer: Peer) -> None:
    peer.start(1, "echo one; sleep 1000")
    assert peer.next() == (agent.STDOUT, 1, b"one\n")
    peer.start(2, "echo two")
    assert peer.until_exit(2) == (b"two\n", b"", 0)
    peer.signal(1, signal.SIGTERM)
    assert peer.until_exit(1)[2] == -signal.SIGTERM


def test_a_daemon_that_keeps_the_pipes_does_not_hold_up_its_command(peer: Peer) -> None:
    peer.start(1, "setsid sleep 5 & echo $!")
    out, _, status = peer.until_exit(1)
    assert status == 0
    peer.start(2, f"kill {out.decode()}")
    assert peer.until_exit(2)[2] == 0


def test_a_signal_for_a_command_that_ended_is_ignored(peer: Peer) -> None:
    peer.start(1, "true")
    peer.until_exit(1)
    peer.signal(1, signal.SIGKILL)
    peer.start(2, "echo still here")
    assert peer.until_exit(2) == (b"still here\n", b"", 0)


def test_text_that_cannot_be_run_is_answered(peer: Peer) -> None:
    peer.start(1, "echo \0")
    out, err, status = peer.until_exit(1)
    assert (out, status) == (b"", 126)
    assert err.startswith(b"xenlab agent: ")


def test_the_agent_ends_when_its_port_closes(agent_process: AgentProcess) -> None:
    Peer(agent_process)
    agent_process.port.close()
    assert agent_process.process.wait(60) == 0


def test_the_agent_takes_its_commands_with_it(peer: Peer, agent_process: AgentProcess) -> None:
    peer.start(1, "echo $$; sleep 1000")
    pid = int(peer.next()[2])
    descriptor = os.pidfd_open(pid)
    agent_process.port.close()
    assert select.select([descriptor], [], [], 60)[0] == [descriptor]
    os.close(descriptor)
