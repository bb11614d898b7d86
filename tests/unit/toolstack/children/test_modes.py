"""Owner modes (contract §8.1; seeds 000 and 004, "Subprocess handling" and setmode)."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from tools.toolstack.children import Answer, Hooks, Owner
from tools.toolstack.children.sigchld import SigchldHandler

from .isolated import Context, await_zombie, disposition, exists, isolated, stranger

REAPERS = [one for one in Owner if one is not Owner.MAINLOOP]
ALWAYS = [Owner.LIBXL_ALWAYS, Owner.LIBXL_ALWAYS_SELECTIVE_REAP]
WILDCARDS = [Owner.LIBXL, Owner.LIBXL_ALWAYS]


def own_handler(number: int, frame: object) -> None:
    """An application's."""


def test_s8_1_the_modes_are_libxls() -> None:
    assert [one.value for one in Owner] == [
        "libxl",
        "mainloop",
        "libxl_always",
        "libxl_always_selective_reap",
    ]


@isolated
def test_s8_1_no_hooks_means_owner_libxl_and_nothing_else() -> None:
    context = Context()
    assert context.children.hooks == Hooks(Owner.LIBXL, None, None)
    context.children.set_mode(Hooks(Owner.MAINLOOP))
    context.children.set_mode(None)
    assert context.children.hooks == Hooks()


@pytest.mark.parametrize("before", [signal.SIG_DFL, signal.SIG_IGN])
@isolated
def test_s8_1_libxl_has_the_handler_only_while_there_are_children(before: signal.Handlers) -> None:
    signal.signal(signal.SIGCHLD, before)
    context = Context()
    assert disposition() is before
    for _ in range(3):
        context.start()
        assert isinstance(disposition(), SigchldHandler)
        context.start()
        context.run_until_idle()
        assert disposition() is before
    assert len(context.deaths) == 6


@pytest.mark.parametrize("owner", REAPERS)
@isolated
def test_s8_1_a_foreign_handler_is_refused_and_left_alone(owner: Owner) -> None:
    signal.signal(signal.SIGCHLD, own_handler)
    with pytest.raises(RuntimeError, match="must agree upon a mode"):
        Context(owner).start()
    assert disposition() is own_handler


@isolated
def test_s8_1_libxl_reaps_every_child_of_the_process() -> None:
    context = Context()
    own, theirs = context.start(signal.pause), stranger(7)
    context.loop.run_until(lambda: bool(context.warnings))
    assert not exists(theirs)
    os.kill(own, signal.SIGTERM)
    context.run_until_idle()
    assert context.deaths == [(own, signal.SIGTERM)]
    assert context.warnings == [f"unknown child {theirs} exited with status 7"]


@isolated
def test_s8_1_mainloop_never_touches_the_handler_and_never_reaps() -> None:
    signal.signal(signal.SIGCHLD, own_handler)
    context = Context(Owner.MAINLOOP)
    pid = context.start(lambda: 4)
    assert disposition() is own_handler
    await_zombie(pid)
    context.loop.step(0)
    assert context.deaths == []
    assert context.children.reaped(*os.waitpid(pid, 0)) is Answer.KNOWN
    assert context.deaths == [(pid, 4 << 8)]
    assert disposition() is own_handler


@pytest.mark.parametrize("owner", ALWAYS)
@isolated
def test_s8_1_always_has_the_handler_from_setmode_until_a_mode_change(owner: Owner) -> None:
    context = Context(owner)
    assert isinstance(disposition(), SigchldHandler)
    context.start()
    context.run_until_idle()
    assert isinstance(disposition(), SigchldHandler)
    context.children.set_mode(Hooks(Owner.MAINLOOP))
    assert disposition() is signal.SIG_DFL


@pytest.mark.parametrize("owner", ALWAYS)
@isolated
def test_s8_1_always_has_the_handler_until_the_context_is_freed(owner: Owner) -> None:
    context = Context(owner)
    context.children.close()
    assert disposition() is signal.SIG_DFL


@isolated
def test_s8_1_always_reaps_without_children_of_its_own() -> None:
    """The mailings' own `always` did not (contract §8.5)."""
    told: list[tuple[int, int]] = []

    def reaped(pid: int, status: int) -> int:
        told.append((pid, status))
        return Answer.KNOWN

    context = Context(Hooks(Owner.LIBXL_ALWAYS, reaped_callback=reaped))
    pid = stranger(9)
    context.loop.run_until(lambda: bool(told))
    assert told == [(pid, 9 << 8)]
    assert not exists(pid)
    assert context.warnings == context.disasters == []


@isolated
def test_s8_1_selective_reap_leaves_the_applications_children_to_it() -> None:
    context = Context(Owner.LIBXL_ALWAYS_SELECTIVE_REAP)
    theirs = stranger(5)
    await_zombie(theirs)
    own = context.start()
    context.run_until_idle()
    assert [pid for pid, _ in context.deaths] == [own]
    assert os.waitpid(theirs, 0) == (theirs, 5 << 8)
    assert context.warnings == context.disasters == []


@isolated
def test_s8_1_contexts_that_reap_selectively_share_the_process() -> None:
    one, two = (Context(Owner.LIBXL_ALWAYS_SELECTIVE_REAP) for _ in range(2))
    first, second = one.start(), two.start()
    two.run_until_idle()
    one.run_until_idle()
    assert [pid for pid, _ in one.deaths] == [first]
    assert [pid for pid, _ in two.deaths] == [second]
    one.children.close()
    assert isinstance(disposition(), SigchldHandler)
    two.start()
    two.run_until_idle()
    two.children.close()
    assert disposition() is signal.SIG_DFL


@isolated
def test_s8_1_any_context_may_run_beside_mainloop_ones() -> None:
    mainloops = [Context(Owner.MAINLOOP) for _ in range(3)]
    reaper = Context(Owner.LIBXL_ALWAYS_SELECTIVE_REAP)
    pids = [one.start() for one in mainloops]
    reaper.start()
    reaper.run_until_idle()
    for pid in pids:
        status = os.waitpid(pid, 0)[1]
        answers = [one.children.reaped(pid, status) for one in mainloops]
        assert sorted(answers) == [Answer.UNKNOWN_CHILD, Answer.UNKNOWN_CHILD, Answer.KNOWN]


@isolated
def test_s8_1_contexts_of_owner_libxl_may_have_children_one_after_the_other() -> None:
    contexts = [Context() for _ in range(3)]
    for context in contexts * 2:
        context.start()
        context.run_until_idle()
    assert [len(one.deaths) for one in contexts] == [2, 2, 2]


@pytest.mark.parametrize("owner", WILDCARDS)
@pytest.mark.parametrize("other", REAPERS)
@isolated
def test_seed_only_one_context_that_reaps_any_child_can_have_children(
    owner: Owner, other: Owner
) -> None:
    one = Context(owner)
    one.start(signal.pause)
    with pytest.raises(RuntimeError, match="one would reap the other's children"):
        Context(other).start()
    assert len(one.children) == 1


@isolated
def test_s8_1_always_cannot_join_selective_ones_by_a_mode_change() -> None:
    one, _two = (Context(Owner.LIBXL_ALWAYS_SELECTIVE_REAP) for _ in range(2))
    with pytest.raises(RuntimeError, match="one would reap"):
        one.children.set_mode(Hooks(Owner.LIBXL_ALWAYS))
    assert one.children.hooks.owner is Owner.LIBXL_ALWAYS_SELECTIVE_REAP
    one.start()
    one.run_until_idle()


@pytest.mark.parametrize("owner", Owner)
@isolated
def test_s8_1_setmode_is_refused_while_there_are_children(owner: Owner) -> None:
    context = Context(owner)
    pid = context.start(signal.pause)
    with pytest.raises(RuntimeError, match="while 1 children are running"):
        context.children.set_mode(None)
    assert context.children.hooks.owner is owner
    os.kill(pid, signal.SIGKILL)
    if owner is Owner.MAINLOOP:
        context.children.reaped(*os.waitpid(pid, 0))
    context.run_until_idle()
    context.children.set_mode(None)


@isolated
def test_a_mode_whose_handler_cannot_be_had_is_not_entered() -> None:
    signal.signal(signal.SIGCHLD, own_handler)
    context = Context(Owner.MAINLOOP)
    with pytest.raises(RuntimeError):
        context.children.set_mode(Hooks(Owner.LIBXL_ALWAYS))
    assert context.children.hooks.owner is Owner.MAINLOOP


@isolated
def test_a_handler_that_another_thread_wants_is_refused_in_words() -> None:
    failures: list[str] = []

    def elsewhere() -> None:
        try:
            Context().start()
        except RuntimeError as error:
            failures.append(str(error))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert len(failures) == 1
    assert "main thread only" in failures[0]


def test_seed_reaped_callback_is_not_permitted_with_mainloop() -> None:
    with pytest.raises(ValueError, match="reaped_callback"):
        Hooks(Owner.MAINLOOP, reaped_callback=lambda pid, status: 0)


@pytest.mark.parametrize("owner", REAPERS)
@isolated
def test_s8_3_only_mainloop_may_tell_of_deaths(owner: Owner) -> None:
    context = Context(owner)
    with pytest.raises(RuntimeError, match="does not reap in mode"):
        context.children.reaped(1, 0)
    with pytest.raises(RuntimeError, match="does not reap in mode"):
        context.children.sigchld_occurred()


@pytest.mark.parametrize("owner", Owner)
@isolated
def test_s8_1_the_blocking_of_sigchld_is_not_changed(owner: Owner) -> None:
    """Seeds: libxl will not modify the blocking flag for SIGCHLD."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    context = Context(owner)
    context.start()
    assert signal.SIGCHLD in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) - before == {signal.SIGCHLD}
