"""Child processes as an event source, with the semantics of libxl__ev_child_fork.

Facts: contract §8 and the two mailings of 2012 that proposed it. What differs from libxl of today:

- `ChildProcesses.set_mode` and `ChildProcesses.start` report a handler that cannot be installed;
  libxl ignores that and waits for ever.
- A mode that a callback changes counts from the next look on. libxl goes on reaping any child even
  after a change to selective reaping.
- There is no lock: a context belongs to the thread of its event loop, as all state in this project
  belongs to one thread.
- A context that was forked refuses every call; libxl leaves it locked, or undefined.
- `ChildProcesses.close` with children lets the application inherit them, as the mailings have it;
  today that is not allowed.

Why SIGCHLD and not pidfds: the modes are promises about SIGCHLD, a descriptor for each child
would bound their number, and whoever reaps any child learns of strangers by no pidfd. Where a pidfd
is better is in signalling a child that the application may have reaped already: see device_model.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from typing import NoReturn

from tools.toolstack.errors import HostFailure

from .loop import EventLoop
from .modes import Answer, Hooks, Owner
from .self_pipe import SelfPipe
from .sigchld import User, restore_in_child
from .status import STOLEN, describe_end

__all__ = ["Child", "ChildProcesses", "Died"]

Died = Callable[[int, int], object]
"""Called with the pid and the wait status, as os.waitpid gives it."""

FAILED_IN_CHILD = 255
"""The exit status of a child whose function raised."""
IDLE = -1
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Child:
    """One child. ``pid``: its process id until its death has been told, then -1."""

    __slots__ = ("died", "pid")

    def __init__(self, pid: int, died: Died | None) -> None:
        self.pid = pid
        self.died = died

    @property
    def in_use(self) -> bool:
        """Whether its death is still to come, as far as the context knows."""
        return self.pid != IDLE

    def abandon(self, number: int) -> None:
        """Send a signal and never call back; it is reaped all the same (kill_deregister).

        The other way of losing interest does not exist: a child cannot be taken out of its
        context. With `Owner.MAINLOOP` the application may have reaped the pid, which then may be
        anybody's: only call this if it has not.
        """
        self.died = None
        if self.in_use:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass


class ChildProcesses:
    """A context: the children that it has started, and how their deaths are learnt of.

    ``warn`` takes a line about a child that nobody knows; ``disaster`` a line about what cannot
    happen unless the application breaks its promises, after which operations may never end. Both
    are called from the event loop, and all methods from its thread. A new context is in the mode of
    the default `Hooks`. Several contexts in one process: see sigchld.
    """

    def __init__(
        self,
        loop: EventLoop,
        *,
        warn: Callable[[str], object],
        disaster: Callable[[str], object],
        hooks: Hooks | None = None,
    ) -> None:
        self._loop = loop
        self._warn = warn
        self._disaster = disaster
        self._hooks = Hooks()
        self._children: dict[int, Child] = {}
        self._user: User | None = None
        self._creating = False
        self._pid = os.getpid()
        self.set_mode(hooks)

    def __len__(self) -> int:
        """The number of children whose death has not been told."""
        return len(self._children)

    @property
    def hooks(self) -> Hooks:
        """What the application brought along."""
        return self._hooks

    def set_mode(self, hooks: Hooks | None = None) -> None:
        """libxl_childproc_setmode; None means the default.

        RuntimeError: there are children, or the handler that the new mode wants cannot be had; the
        mode is then as it was.
        """
        self._check_usable()
        if self._children:
            raise RuntimeError(f"the mode cannot change while {len(self)} children are running")
        before, self._hooks = self._hooks, hooks or Hooks()
        try:
            if self._hooks.owner.always:
                self._need_handler()
            else:
                self._spare_handler()
        except (RuntimeError, HostFailure):
            self._hooks = before
            raise

    def start(self, run: Callable[[], int | None], died: Died | None = None) -> Child:
        """Fork a child that calls ``run`` and exits with its result, unless it does exec or _exit.

        ``run`` may not use the context. ``died`` is called exactly once, from the event loop, after
        the child has been reaped; without it the child is reaped and nobody told. The caller may
        signal the child, but may not reap it but with `Owner.MAINLOOP`.

        HostFailure: there is no child. RuntimeError: the SIGCHLD handler cannot be had.
        """
        self._check_usable()
        if self._hooks.owner is not Owner.MAINLOOP:
            self._need_handler()
        self._creating = True
        # A signal that ends a process must not be taken by the application's handler in a child
        # that is about to become another program, which would never hear of it.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        pid = -1
        try:
            pid = (self._hooks.fork_replacement or os.fork)()
        except OSError as error:
            self._creating = False
            self._perhaps_spare_handler()
            raise HostFailure(f"fork: {error.strerror}") from None
        except BaseException:
            self._creating = False
            self._perhaps_spare_handler()
            raise
        finally:
            if pid == 0:
                _forget_handlers()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if pid == 0:
            _run_in_child(run)
        self._creating = False
        child = Child(pid, died)
        self._children[pid] = child
        return child

    def reaped(self, pid: int, status: int) -> Answer:
        """libxl_childproc_reaped: the application has reaped ``pid``, with ``status`` of waitpid.

        Nothing happens if the child is not of this context, and the answer says so. RuntimeError:
        the mode is not `Owner.MAINLOOP`. May not be called from a signal handler.
        """
        self._check_mainloop()
        return self._told(pid, status)

    def sigchld_occurred(self) -> None:
        """libxl_childproc_sigchld_occurred: for an application that knows of SIGCHLD but only that.

        Reaps the children of this context that have died, and no others. RuntimeError: the mode is
        not `Owner.MAINLOOP`. May not be called from a signal handler.
        """
        self._check_mainloop()
        self._reap_own()

    def postfork_child_noexec(self) -> None:
        """In a child that was forked by somebody else and does not exec: let go of the parent.

        Restores the disposition of SIGCHLD. One call serves for all contexts, which are of no use
        in this process: any other call of theirs raises RuntimeError.
        """
        restore_in_child()
        self._children.clear()
        if self._user is not None:
            self._user.pipe.close()
            self._user = None

    def close(self) -> None:
        """libxl_ctx_free: give back handler and descriptors. Children become the application's."""
        self._check_usable()
        self._children.clear()
        self._hooks = Hooks()
        user, self._user = self._user, None
        if user is not None:
            self._loop.remove(user.pipe.reader)
            try:
                user.leave()
            finally:
                user.pipe.close()

    # The SIGCHLD handler.

    def _need_handler(self) -> None:
        if self._user is None:
            self._user = User(SelfPipe())
            # For good: an application's loop should not see it come and go with each child.
            self._loop.add(self._user.pipe.reader, select.EPOLLIN, self._woken)
        self._user.join(self._hooks.owner)

    def _spare_handler(self) -> None:
        if self._user is not None:
            self._user.leave()

    def _perhaps_spare_handler(self) -> None:
        if self._children or self._hooks.owner.always:
            return
        try:
            self._spare_handler()
        except RuntimeError as error:
            self._disaster(str(error))

    # Reaping, from the event loop.

    def _woken(self, events: int) -> None:
        if events & ~select.EPOLLIN:
            self._disaster(f"events {events:#x} on the pipe that tells of SIGCHLD")
        if self._user is None or os.getpid() != self._pid:
            return
        try:
            self._user.drain()
        except HostFailure as error:
            self._disaster(str(error))
        if self._hooks.owner is Owner.LIBXL_ALWAYS_SELECTIVE_REAP:
            self._reap_own()
        else:
            self._reap_any()

    def _reap_any(self) -> None:
        """Reap whoever has died, as long as the mode, which a callback may change, is for it."""
        while self._hooks.owner is Owner.LIBXL_ALWAYS or (
            self._children and self._hooks.owner is Owner.LIBXL
        ):
            pid, status = self._waitpid(-1)
            if pid <= 0:
                return
            if self._told(pid, status) is Answer.KNOWN:
                continue
            if not self._tell_application(pid, status):
                return

    def _reap_own(self) -> None:
        """Look at each child that there was at the beginning; later ones bring a later signal."""
        for child in list(self._children.values()):
            pid = child.pid
            if self._children.get(pid) is not child:
                continue
            result, status = self._waitpid(pid)
            if result < 0:
                self._disaster(f"somebody else has reaped child {pid}: its exit status is lost")
                status = STOLEN
            if result:
                self._told(pid, status)

    def _waitpid(self, pid: int) -> tuple[int, int]:
        """os.waitpid without waiting; pid 0: nobody has died, -1: there is no such child."""
        try:
            return os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            return -1, 0
        except OSError as error:
            self._disaster(f"waitpid {pid}: {error.strerror}")
            return 0, 0

    def _told(self, pid: int, status: int) -> Answer:
        child = self._children.pop(pid, None)
        if child is None:
            return Answer.UNKNOWN_CHILD
        child.pid = IDLE
        died, child.died = child.died, None
        if died is not None:
            try:
                died(pid, status)
            except Exception as error:
                self._disaster(f"the callback for the death of {pid} raised {error!r}")
        self._perhaps_spare_handler()
        return Answer.KNOWN

    def _tell_application(self, pid: int, status: int) -> bool:
        """Offer a stranger to the application; False: a disaster, after which reaping stops."""
        answer: int = Answer.UNKNOWN_CHILD
        if self._hooks.reaped_callback is not None:
            try:
                answer = self._hooks.reaped_callback(pid, status)
            except Exception as error:
                self._disaster(f"reaped_callback (pid {pid}, status {status}) raised {error!r}")
                return False
        if answer == Answer.UNKNOWN_CHILD:
            self._warn(f"unknown child {pid} {describe_end(status)}")
        elif answer != Answer.KNOWN:
            self._disaster(f"reaped_callback (pid {pid}, status {status}) answered {answer}")
            return False
        return True

    def _check_usable(self) -> None:
        if self._creating:
            raise RuntimeError("fork_replacement, and a child, may not call the context")
        if os.getpid() != self._pid:
            raise RuntimeError("the context belongs to the process that made it, not to its child")

    def _check_mainloop(self) -> None:
        self._check_usable()
        if self._hooks.owner is not Owner.MAINLOOP:
            raise RuntimeError(f"the application does not reap in mode {self._hooks.owner.value}")


def _run_in_child(run: Callable[[], int | None]) -> NoReturn:
    """What happens between fork and the end; nothing of the parent's, such as exit handlers."""
    status = FAILED_IN_CHILD
    try:
        restore_in_child()
        status = run() or 0
    except BaseException as error:
        os.write(2, f"ioreqd: child {os.getpid()}: {error!r}\n".encode(errors="replace"))
    finally:
        os._exit(status)


def _forget_handlers() -> None:
    """In the child: what the application does with these signals is not the child's business."""
    for number in ENDING:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
