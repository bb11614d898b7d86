"""Starting children (contract §8.2; seeds 000 and 004, libxl__ev_child_fork)."""

from __future__ import annotations

import atexit
import errno
import os
import signal

import pytest

from tools.toolstack.children import Answer, Hooks, Owner
from tools.toolstack.children.sigchld import SigchldHandler
from tools.toolstack.errors import HostFailure

from .isolated import Context, await_zombie, disposition, isolated, readable, stranger


def refused() -> int:
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


@isolated
def test_s8_2_the_parent_gets_the_pid_and_the_child_runs_the_function() -> None:
    reader, writer = os.pipe()
    context = Context()
    pid = context.start(lambda: os.write(writer, b"%d" % os.getpid()) and 6)
    context.run_until_idle()
    assert os.read(reader, 64) == b"%d" % pid
    assert context.deaths == [(pid, 6 << 8)]


@isolated
def test_s8_2_fork_replacement_is_called_instead_of_fork() -> None:
    pids: list[int] = []

    def fork() -> int:
        pid = os.fork()
        pids.append(pid)
        return pid

    context = Context(Hooks(fork_replacement=fork))
    started = [context.start() for _ in range(3)]
    context.run_until_idle()
    assert pids == started
    assert sorted(pid for pid, _ in context.deaths) == sorted(pids)


@isolated
def test_s8_2_a_failed_fork_is_a_host_failure_and_drops_the_handler() -> None:
    context = Context(Hooks(fork_replacement=refused))
    with pytest.raises(HostFailure, match="fork: Resource temporarily unavailable"):
        context.start()
    assert disposition() is signal.SIG_DFL
    assert len(context.children) == 0
    context.children.set_mode(None)
    context.start()
    context.run_until_idle()


@isolated
def test_s8_2_fork_replacement_may_not_call_the_context() -> None:
    def fork() -> int:
        context.start()
        return -1

    context = Context(Hooks(fork_replacement=fork))
    with pytest.raises(RuntimeError, match="may not call the context"):
        context.start()
    assert disposition() is signal.SIG_DFL
    context.children.set_mode(None)


@isolated
def test_s8_2_the_child_may_not_call_the_context() -> None:
    context = Context()

    def run() -> int:
        try:
            context.start()
        except RuntimeError:
            return 0
        return 1

    pid = context.start(run)
    context.run_until_idle()
    assert context.deaths == [(pid, 0)]


@isolated
def test_a_child_that_raises_exits_with_255_and_never_returns_into_the_parents_code() -> None:
    context = Context()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    pid = context.start(lambda: 1 // 0)
    context.run_until_idle()
    assert context.deaths == [(pid, 255 << 8)]


@isolated
def test_the_childs_end_runs_nothing_of_the_parents() -> None:
    reader, writer = os.pipe()
    atexit.register(os.write, writer, b"x")
    context = Context()
    context.start()
    context.run_until_idle()
    assert not readable(reader)


@pytest.mark.parametrize("before", [signal.SIG_DFL, signal.SIG_IGN])
@isolated
def test_the_child_has_the_dispositions_that_the_application_had(before: signal.Handlers) -> None:
    signal.signal(signal.SIGCHLD, before)
    context = Context()
    pid = context.start(lambda: 0 if disposition() is before else 1)
    context.run_until_idle()
    assert context.deaths == [(pid, 0)]


@isolated
def test_seed_without_a_callback_the_child_is_reaped_all_the_same() -> None:
    context = Context()
    child = context.children.start(lambda: 3)
    context.run_until_idle()
    assert not child.in_use
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert context.warnings == context.disasters == []


@isolated
def test_seed_the_parent_may_signal_the_child() -> None:
    context = Context()
    pid = context.start(signal.pause)
    os.kill(pid, signal.SIGUSR1)
    context.run_until_idle()
    assert context.deaths == [(pid, signal.SIGUSR1)]


@isolated
def test_s8_2_an_abandoned_child_is_killed_and_reaped_but_its_callback_never_runs() -> None:
    context = Context()
    child = context.children.start(signal.pause, context.died)
    child.abandon(signal.SIGKILL)
    assert child.in_use
    context.run_until_idle()
    assert context.deaths == []
    child.abandon(signal.SIGKILL)


@isolated
def test_s8_4_after_postfork_in_a_child_the_disposition_is_restored_once_for_all() -> None:
    contexts = [Context(Owner.LIBXL_ALWAYS_SELECTIVE_REAP) for _ in range(2)]

    def child() -> None:
        contexts[0].children.postfork_child_noexec()
        assert disposition() is signal.SIG_DFL
        for one in contexts:
            with pytest.raises(RuntimeError, match="belongs to the process that made it"):
                one.start()
        fresh = Context()
        fresh.start()
        fresh.run_until_idle()
        assert len(fresh.deaths) == 1

    assert os.waitpid(stranger(run=child), 0)[1] == 0
    assert isinstance(disposition(), SigchldHandler)
    for one in contexts:
        one.start()
        one.run_until_idle()
        assert len(one.deaths) == 1


@pytest.mark.parametrize("postfork", [False, True])
@isolated
def test_s8_5_a_forked_copy_makes_the_parent_look_in_vain_until_postfork(postfork: bool) -> None:
    context = Context(Owner.LIBXL_ALWAYS_SELECTIVE_REAP)
    ready, done = os.pipe(), os.pipe()

    def child() -> None:
        if postfork:
            context.children.postfork_child_noexec()
        os.waitpid(stranger(), 0)
        os.write(ready[1], b"x")
        os.read(done[0], 1)

    pid = stranger(run=child)
    os.read(ready[0], 1)
    assert context.loop.step(0) == (not postfork)
    os.write(done[1], b"x")
    os.waitpid(pid, 0)
    assert context.warnings == context.disasters == []


@isolated
def test_a_signal_of_a_childs_own_does_not_wake_the_parent() -> None:
    signal.signal(signal.SIGUSR1, lambda number, frame: None)
    ready, done = os.pipe(), os.pipe()
    context = Context()

    def run() -> int:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.write(ready[1], b"x")
        return len(os.read(done[0], 1)) - 1

    context.start(run)
    os.read(ready[0], 1)
    assert context.loop.step(0) == 0
    os.write(done[1], b"x")
    context.run_until_idle()


@isolated
def test_a_context_made_in_a_forked_child_replaces_the_copy_of_the_handler() -> None:
    Context(Owner.LIBXL_ALWAYS)

    def child() -> None:
        own = Context()
        own.start()
        own.run_until_idle()
        if disposition() is not signal.SIG_DFL:
            os._exit(1)

    assert os.waitpid(stranger(run=child), 0)[1] == 0


@isolated
def test_seed_children_that_outlive_their_context_are_the_applications() -> None:
    context = Context()
    pid = context.start(lambda: 2)
    context.children.close()
    assert disposition() is signal.SIG_DFL
    assert os.waitpid(pid, 0) == (pid, 2 << 8)
    assert context.deaths == []


@isolated
def test_close_leaves_no_descriptor() -> None:
    loop_only = len(os.listdir("/proc/self/fd"))
    context = Context()
    context.loop.close()
    for owner in Owner:
        context = Context(owner)
        pid = context.start()
        if owner is Owner.MAINLOOP:
            assert context.children.reaped(*os.waitpid(pid, 0)) is Answer.KNOWN
        context.run_until_idle()
        context.children.close()
        context.loop.close()
    assert len(os.listdir("/proc/self/fd")) == loop_only


@isolated
def test_seed_a_child_that_dies_before_it_is_registered_is_told_of_like_any_other() -> None:
    def fork() -> int:
        pid = os.fork()
        if pid:
            await_zombie(pid)
        return pid

    context = Context(Hooks(fork_replacement=fork))
    pid = context.start(lambda: 8)
    context.run_until_idle()
    assert context.deaths == [(pid, 8 << 8)]
