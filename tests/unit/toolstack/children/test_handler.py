"""The handler and the self-pipe (contract §8.4; seeds: self_pipe_wakeup, self_pipe_eatall)."""

from __future__ import annotations

import errno
import os
import signal
import threading

import pytest

from tools.toolstack.children import Hooks, Owner
from tools.toolstack.children.self_pipe import CHUNK, SelfPipe
from tools.toolstack.children.sigchld import SigchldHandler
from tools.toolstack.errors import HostFailure

from .isolated import Context, await_zombie, disposition, isolated, readable, stranger

STORM_SECONDS = 0.0002


def fill(fd: int) -> int:
    """Fills a pipe; gives the number of bytes."""
    count = 0
    try:
        while True:
            count += os.write(fd, b"\0")
    except BlockingIOError:
        return count


def pipe_of(context: Context) -> SelfPipe:
    user = context.children._user
    assert user is not None
    return user.pipe


def test_s8_4_both_ends_are_non_blocking_and_close_on_exec() -> None:
    pipe = SelfPipe()
    for fd in (pipe.reader, pipe.writer):
        assert not os.get_blocking(fd)
        assert not os.get_inheritable(fd)
    pipe.close()


def test_s8_4_a_wakeup_of_a_full_pipe_is_a_success() -> None:
    pipe = SelfPipe()
    fill(pipe.writer)
    pipe.wake()
    pipe.close()


@pytest.mark.parametrize("count", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_s8_4_a_drained_pipe_is_empty(count: int) -> None:
    pipe = SelfPipe()
    os.write(pipe.writer, b"\0" * count)
    assert len(pipe.drain()) == count
    assert not readable(pipe.reader)
    pipe.wake()
    assert readable(pipe.reader)
    pipe.close()


def test_any_other_error_of_the_pipe_is_a_host_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(fd: int, data: object) -> int:
        raise OSError(errno.EBADF, "Bad file descriptor")

    pipe = SelfPipe()
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", broken)
        patch.setattr(os, "read", broken)
        with pytest.raises(HostFailure, match=r"write.*Bad file descriptor"):
            pipe.wake()
        with pytest.raises(HostFailure, match=r"read.*Bad file descriptor"):
            pipe.drain()
    pipe.close()


@pytest.mark.parametrize("owner", [one for one in Owner if one is not Owner.MAINLOOP])
@isolated
def test_s8_4_a_full_pipe_loses_no_death(owner: Owner) -> None:
    context = Context(owner)
    context.start(signal.pause)
    fill(pipe_of(context).writer)
    pids = [context.start() for _ in range(20)]
    for pid in pids:
        await_zombie(pid)
    context.loop.run_until(lambda: len(context.deaths) == 20)
    assert sorted(pid for pid, _ in context.deaths) == sorted(pids)
    assert context.disasters == []


@isolated
def test_s8_4_a_storm_of_other_signals_loses_no_death() -> None:
    """EINTR in fork, waitpid, read, write and epoll_wait."""
    ticks: list[int] = []
    signal.signal(signal.SIGALRM, lambda number, frame: ticks.append(number))
    context = Context()
    signal.setitimer(signal.ITIMER_REAL, STORM_SECONDS, STORM_SECONDS)
    for _ in range(20):
        for _ in range(10):
            context.start()
        context.run_until_idle()
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert len(context.deaths) == 200
    assert len(ticks) > 1
    assert context.disasters == []


@isolated
def test_seed_one_thread_with_sigchld_unblocked_is_enough() -> None:
    """The main thread, which alone runs Python's handlers, sleeps with the signal blocked."""
    release = threading.Event()
    thread = threading.Thread(target=release.wait)
    thread.start()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    context = Context()
    reader, writer = os.pipe()
    pid = context.start(lambda: len(os.read(reader, 1)) - 1)
    killer = threading.Timer(0, os.write, (writer, b"x"))
    killer.start()
    context.run_until_idle()
    assert context.deaths == [(pid, 0)]
    release.set()
    thread.join()
    killer.join()


@isolated
def test_a_wakeup_of_the_interpreters_is_passed_on_to_the_other_users() -> None:
    one, two = (Context(Owner.LIBXL_ALWAYS_SELECTIVE_REAP) for _ in range(2))
    pipe_of(one).wake(bytes([signal.SIGCHLD]))
    assert not readable(pipe_of(two).reader)
    one.loop.step(0)
    assert readable(pipe_of(two).reader)
    two.loop.step(0)
    assert not readable(pipe_of(one).reader)
    assert not readable(pipe_of(two).reader)


@isolated
def test_the_applications_wakeup_descriptor_stays() -> None:
    own = SelfPipe()
    signal.set_wakeup_fd(own.writer, warn_on_full_buffer=False)
    context = Context()
    for _ in range(2):
        context.start()
        context.run_until_idle()
    assert signal.SIGCHLD in own.drain()
    assert len(context.deaths) == 2
    assert signal.set_wakeup_fd(-1) == own.writer


@isolated
def test_a_wakeup_descriptor_that_the_application_sets_meanwhile_stays() -> None:
    own = SelfPipe()
    context = Context()
    context.start()
    signal.set_wakeup_fd(own.writer, warn_on_full_buffer=False)
    context.run_until_idle()
    assert signal.set_wakeup_fd(-1) == own.writer


@isolated
def test_no_wakeup_descriptor_is_left_behind() -> None:
    one, two = (Context(Owner.LIBXL_ALWAYS_SELECTIVE_REAP) for _ in range(2))
    one.children.close()
    two.start()
    two.run_until_idle()
    two.children.set_mode(Hooks(Owner.MAINLOOP))
    assert signal.set_wakeup_fd(-1) == -1


@isolated
def test_s8_4_a_handler_that_was_replaced_stays_and_is_a_disaster() -> None:
    """libxl asserts that its own was still installed."""

    def foreign(number: int, frame: object) -> None:
        pass

    context = Context()
    pid = context.start()
    assert isinstance(disposition(), SigchldHandler)
    signal.signal(signal.SIGCHLD, foreign)
    await_zombie(pid)
    pipe_of(context).wake()
    context.run_until_idle()
    assert disposition() is foreign
    assert context.deaths == [(pid, 0)]
    assert context.disasters == [
        "somebody replaced the SIGCHLD handler while children were running"
    ]


@isolated
def test_s8_4_the_pipe_is_kept_until_the_context_is_freed() -> None:
    context = Context()
    context.start()
    context.run_until_idle()
    before = pipe_of(context)
    context.start()
    context.run_until_idle()
    assert pipe_of(context) is before
    context.children.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(before.reader)


@isolated
def test_stopped_children_are_not_dead() -> None:
    """Python's handlers lack SA_NOCLDSTOP."""
    context = Context()
    pid = context.start(signal.pause)
    for number in (signal.SIGSTOP, signal.SIGCONT):
        os.kill(pid, number)
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WCONTINUED)
        context.loop.step(0)
    assert context.deaths == []
    os.kill(pid, signal.SIGKILL)
    context.run_until_idle()
    assert context.deaths == [(pid, signal.SIGKILL)]


@isolated
def test_signals_of_strangers_cost_selective_contexts_nothing_but_a_look() -> None:
    context = Context(Owner.LIBXL_ALWAYS_SELECTIVE_REAP)
    os.waitpid(stranger(), 0)
    context.loop.step()
    assert context.warnings == context.disasters == []
