"""Reaping and its callbacks (contract §8.3; seeds: selfpipe_woken, childproc_reaped)."""

from __future__ import annotations

import os
import signal

import pytest

from tools.toolstack.children import Answer, Hooks, Owner
from tools.toolstack.children.status import describe_end

from .isolated import Context, await_zombie, exists, isolated, stranger

WILDCARDS = [Owner.LIBXL, Owner.LIBXL_ALWAYS]
REAPERS = [one for one in Owner if one is not Owner.MAINLOOP]
LOST = 255 << 8


def reaped_by(context: Context, pid: int) -> None:
    """Serves until the stranger ``pid`` has been reaped."""
    context.loop.run_until(lambda: not exists(pid))


@pytest.mark.parametrize("owner", REAPERS)
@isolated
def test_s8_3_the_callback_runs_from_the_event_loop_never_from_the_handler(owner: Owner) -> None:
    context = Context(owner)
    pid = context.start()
    await_zombie(pid)
    for _ in range(1000):
        assert context.deaths == []
    assert exists(pid)
    context.loop.step()
    assert context.deaths == [(pid, 0)]


@pytest.mark.parametrize("owner", REAPERS)
@isolated
def test_s8_3_each_callback_runs_exactly_once(owner: Owner) -> None:
    context = Context(owner)
    pids = [context.start(lambda number=number: number) for number in range(40)]  # type: ignore[misc]
    context.run_until_idle()
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGCHLD) if owner.always else None
        context.loop.step(0)
    assert sorted(context.deaths) == sorted(zip(pids, [n << 8 for n in range(40)], strict=True))


@isolated
def test_s8_3_known_is_handled_and_reaping_goes_on() -> None:
    told: list[int] = []

    def reaped(pid: int, status: int) -> int:
        told.append(pid)
        return Answer.KNOWN

    context = Context(Hooks(Owner.LIBXL_ALWAYS, reaped_callback=reaped))
    pids = [stranger() for _ in range(5)]
    context.loop.run_until(lambda: len(told) == 5)
    assert sorted(told) == sorted(pids)
    assert context.warnings == context.disasters == []


@pytest.mark.parametrize("has_callback", [True, False])
@isolated
def test_s8_3_unknown_or_no_callback_logs_the_exit_status_and_goes_on(has_callback: bool) -> None:
    callback = (lambda pid, status: Answer.UNKNOWN_CHILD) if has_callback else None
    context = Context(Hooks(Owner.LIBXL_ALWAYS, reaped_callback=callback))
    pids = [stranger(3) for _ in range(4)]
    for pid in pids:
        await_zombie(pid)
    context.loop.step()
    assert sorted(context.warnings) == sorted(
        f"unknown child {pid} exited with status 3" for pid in pids
    )
    assert context.disasters == []


@pytest.mark.parametrize("answer", [-1, 1, -13])
@isolated
def test_s8_3_any_other_answer_is_a_disaster_and_ends_this_round(answer: int) -> None:
    """The remaining zombies wait for the next SIGCHLD."""
    context = Context(Hooks(Owner.LIBXL_ALWAYS, reaped_callback=lambda pid, status: answer))
    pids = [stranger() for _ in range(3)]
    for pid in pids:
        await_zombie(pid)
    context.loop.step()
    assert len(context.disasters) == 1
    assert f"answered {answer}" in context.disasters[0]
    assert sum(exists(pid) for pid in pids) == 2
    os.kill(os.getpid(), signal.SIGCHLD)
    context.loop.step()
    assert sum(exists(pid) for pid in pids) == 1
    assert context.warnings == []


@isolated
def test_a_reaped_callback_that_raises_is_a_disaster() -> None:
    context = Context(Hooks(Owner.LIBXL_ALWAYS, reaped_callback=lambda pid, status: 1 // 0))
    reaped_by(context, stranger())
    assert "ZeroDivisionError" in context.disasters[0]


@isolated
def test_a_death_callback_that_raises_is_a_disaster_and_the_others_run() -> None:
    context = Context()
    for _ in range(3):
        context.children.start(lambda: 0, lambda pid, status: 1 // 0)
    context.start()
    context.run_until_idle()
    assert len(context.disasters) == 3
    assert len(context.deaths) == 1


@isolated
def test_s8_3_a_own_children_go_to_their_callback_and_not_to_reaped_callback() -> None:
    context = Context(Hooks(reaped_callback=lambda pid, status: 1 // 0))
    context.start()
    context.run_until_idle()
    assert len(context.deaths) == 1
    assert context.disasters == []


@isolated
def test_s8_3_a_reaping_ends_with_the_last_own_child() -> None:
    """So that a stranger's zombie may remain, in the default mode."""
    context = Context()
    own = context.start()
    await_zombie(own)
    theirs = stranger()
    await_zombie(theirs)
    context.run_until_idle()
    assert os.waitpid(theirs, 0) == (theirs, 0)
    assert context.warnings == []


@isolated
def test_s8_3_b_a_callback_may_change_the_mode_and_it_counts_at_once() -> None:
    context: Context

    def reaped(pid: int, status: int) -> int:
        context.children.set_mode(Hooks(Owner.MAINLOOP))
        return Answer.KNOWN

    context = Context(Hooks(Owner.LIBXL_ALWAYS, reaped_callback=reaped))
    pids = [stranger() for _ in range(2)]
    for pid in pids:
        await_zombie(pid)
    context.loop.step()
    assert sum(exists(pid) for pid in pids) == 1


@isolated
def test_a_change_to_selective_reaping_by_a_callback_saves_the_other_strangers() -> None:
    """libxl goes on with waitpid(-1)."""
    context: Context

    def reaped(pid: int, status: int) -> int:
        context.children.set_mode(Hooks(Owner.LIBXL_ALWAYS_SELECTIVE_REAP))
        return Answer.KNOWN

    context = Context(Hooks(Owner.LIBXL_ALWAYS, reaped_callback=reaped))
    pids = [stranger() for _ in range(2)]
    for pid in pids:
        await_zombie(pid)
    context.loop.step()
    assert sum(exists(pid) for pid in pids) == 1


@isolated
def test_s8_3_d_a_stolen_status_is_a_disaster_and_the_operation_still_ends() -> None:
    context = Context(Owner.LIBXL_ALWAYS_SELECTIVE_REAP)
    pid = context.start(lambda: 5)
    os.waitpid(pid, 0)
    context.loop.step()
    assert context.deaths == [(pid, LOST)]
    assert context.disasters == [f"somebody else has reaped child {pid}: its exit status is lost"]


@isolated
def test_s8_3_c_another_error_of_waitpid_is_a_disaster_and_counts_as_none() -> None:
    context = Context(Owner.LIBXL_ALWAYS_SELECTIVE_REAP)
    pid = context.start()
    await_zombie(pid)
    real = os.waitpid
    os.waitpid = _invalid
    context.loop.step()
    os.waitpid = real
    assert context.deaths == []
    assert context.disasters == [f"waitpid {pid}: Invalid argument"]
    os.kill(os.getpid(), signal.SIGCHLD)
    context.loop.step()
    assert context.deaths == [(pid, 0)]


def _invalid(pid: int, options: int) -> tuple[int, int]:
    raise OSError(22, "Invalid argument")


@isolated
def test_s8_3_e_unexpected_poll_events_are_a_disaster() -> None:
    context = Context(Owner.LIBXL_ALWAYS)
    user = context.children._user
    assert user is not None
    os.close(user.pipe.writer)
    context.loop.step()
    assert "events 0x10" in context.disasters[0]


@pytest.mark.parametrize("owner", REAPERS)
@isolated
def test_s8_3_f_a_death_callback_may_start_children(owner: Owner) -> None:
    context = Context(owner)
    generations = 20

    def again(pid: int, status: int) -> None:
        context.died(pid, status)
        if len(context.deaths) < generations:
            context.children.start(lambda: 0, again)

    context.children.start(lambda: 0, again)
    context.run_until_idle()
    assert len(context.deaths) == generations
    assert context.disasters == []


@isolated
def test_seed_reaped_callback_may_call_the_context() -> None:
    context: Context

    def reaped(pid: int, status: int) -> int:
        context.start()
        return Answer.KNOWN

    context = Context(Hooks(Owner.LIBXL_ALWAYS, reaped_callback=reaped))
    stranger()
    context.loop.run_until(lambda: bool(context.deaths))
    assert context.disasters == []


@isolated
def test_s8_5_the_callback_gets_the_pid_and_the_child_is_idle_by_then() -> None:
    context = Context()
    seen: list[tuple[int, int, bool, int]] = []
    child = context.children.start(
        lambda: 0,
        lambda pid, status: seen.append((pid, child.pid, child.in_use, len(context.children))),
    )
    pid = child.pid
    context.run_until_idle()
    assert seen == [(pid, -1, False, 0)]


@isolated
def test_s8_3_reaped_answers_unknown_for_a_stranger_and_does_nothing() -> None:
    context = Context(Owner.MAINLOOP)
    own, theirs = context.start(signal.pause), stranger()
    assert context.children.reaped(*os.waitpid(theirs, 0)) is Answer.UNKNOWN_CHILD
    assert int(Answer.UNKNOWN_CHILD) == -14
    assert len(context.children) == 1
    assert context.deaths == []
    assert context.warnings == context.disasters == []
    os.kill(own, signal.SIGKILL)
    status = os.waitpid(own, 0)[1]
    assert context.children.reaped(own, status) is Answer.KNOWN
    assert context.children.reaped(own, status) is Answer.UNKNOWN_CHILD
    assert context.deaths == [(own, signal.SIGKILL)]


@isolated
def test_s8_3_sigchld_occurred_reaps_the_contexts_own_children_only() -> None:
    context = Context(Owner.MAINLOOP)
    theirs, alive = stranger(), context.start(signal.pause)
    own = [context.start() for _ in range(3)]
    for pid in [theirs, *own]:
        await_zombie(pid)
    context.children.sigchld_occurred()
    assert sorted(pid for pid, _ in context.deaths) == sorted(own)
    assert os.waitpid(theirs, 0) == (theirs, 0)
    os.kill(alive, signal.SIGKILL)
    await_zombie(alive)
    context.children.sigchld_occurred()
    assert len(context.deaths) == 4


@isolated
def test_s8_3_sigchld_occurred_survives_callbacks_that_change_the_children() -> None:
    context = Context(Owner.MAINLOOP)
    pids: list[int] = []

    def tell_of_all(pid: int, status: int) -> None:
        context.died(pid, status)
        for other in pids:
            if other not in [one for one, _ in context.deaths]:
                context.children.reaped(*os.waitpid(other, 0))
        pids.append(context.children.start(lambda: 0, context.died).pid)

    theirs = stranger(5)
    pids += [context.children.start(lambda: 0, tell_of_all).pid for _ in range(2)]
    for pid in [theirs, *pids]:
        await_zombie(pid)
    context.children.sigchld_occurred()
    assert os.waitpid(theirs, 0) == (theirs, 5 << 8)
    assert len(context.deaths) == len({pid for pid, _ in context.deaths})
    assert context.disasters == []


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "exited with status 0"),
        (7 << 8, "exited with status 7"),
        (signal.SIGKILL, "was killed by SIGKILL"),
        (signal.SIGSEGV | 0x80, "was killed by SIGSEGV (core dumped)"),
        (40, "was killed by signal 40"),
        (0x137F, "ended in an unknown way (wait status 0x137f)"),
    ],
)
def test_a_wait_status_in_words(status: int, words: str) -> None:
    assert describe_end(status) == words
