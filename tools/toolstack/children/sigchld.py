"""The process's one SIGCHLD handler, and how several contexts share it.

The handler object is itself the disposition of the signal, so that what is one per process (who
uses the handler, what stood there before) lies where the process keeps it, and two contexts find
each other without a global of ours.

Facts: contract §8.1 and §8.4. What differs from libxl of today:

- libxl blocks the handler out while its list of users changes. Here that list is a tuple that is
  replaced as a whole, and a Python handler runs between two bytecodes of the main thread.
- libxl has SA_NOCLDSTOP and SA_RESTART. Python sets neither: a stopped child costs an idle look,
  and interrupted calls are taken up again by the interpreter after the handler has run (PEP 475).
- A signal may arrive on a thread that Python does not run handlers on, while the main thread is
  asleep. Therefore the interpreter's own C handler also writes to a user's pipe
  (signal.set_wakeup_fd); the user who finds SIGCHLD's mark there wakes the others. Where the
  application has such a descriptor of its own, it stays.
- libxl lets contexts that reap any child run beside others, and a status that the wrong one takes
  is lost, its operation waiting for ever. Here the second one is refused.
- libxl aborts the process on a failed write in the handler; here it raises HostFailure.

As with libxl, a forked child that neither execs nor calls postfork_child_noexec still has the
handler, and when children of its own die it makes its parent look in vain.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

from .modes import Owner
from .self_pipe import SelfPipe

__all__ = ["SigchldHandler", "User", "install", "restore_in_child"]

MARK = bytes([signal.SIGCHLD])
"""What the interpreter's C handler writes."""


class User:
    """A context's part in the handler: the pipe to wake, and the mode that others must suit."""

    __slots__ = ("handler", "owner", "pipe")

    def __init__(self, pipe: SelfPipe) -> None:
        self.pipe = pipe
        self.owner = Owner.LIBXL
        self.handler: SigchldHandler | None = None

    def join(self, owner: Owner) -> None:
        """Use the handler, installing it if need be. RuntimeError: it cannot be shared or had."""
        handler = self.handler or install()
        handler.add(self, owner)
        self.handler = handler

    def leave(self) -> None:
        """Use it no longer; the last user restores what was there before.

        RuntimeError: somebody has replaced the handler meanwhile. What they installed stays.
        """
        handler, self.handler = self.handler, None
        if handler is not None:
            handler.remove(self)

    def drain(self) -> None:
        """Take the pipe's wake-ups; HostFailure as `SelfPipe.drain`."""
        if MARK in self.pipe.drain() and self.handler is not None:
            self.handler.wake(but=self)


class SigchldHandler:
    """The disposition of SIGCHLD while there are users. ``saved``: what it replaced."""

    def __init__(self, saved: signal.Handlers) -> None:
        self.saved = saved
        self.pid = os.getpid()
        self._users: tuple[User, ...] = ()
        self._wakeup_fd = -1

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Wake every user's event loop, and nothing more."""
        self.wake()

    def wake(self, but: User | None = None) -> None:
        """Wake the users' event loops."""
        for user in self._users:
            if user is not but:
                user.pipe.wake()

    def add(self, user: User, owner: Owner) -> None:
        """Take in a user, or its new mode. RuntimeError: the users' ways exclude each other."""
        others = tuple(one for one in self._users if one is not user)
        for other in others:
            if owner.reaps_strangers or other.owner.reaps_strangers:
                raise RuntimeError(
                    f"a context that owns SIGCHLD as {owner.value} cannot have children beside one "
                    f"that owns it as {other.owner.value}: one would reap the other's children"
                )
        user.owner = owner
        self._users = (*others, user)
        self._aim_wakeup_fd()

    def remove(self, user: User) -> None:
        """Let a user go. RuntimeError: the last one, and the handler has been replaced."""
        self._users = tuple(one for one in self._users if one is not user)
        self._aim_wakeup_fd()
        if self._users:
            return
        if _standing() is not self:
            raise RuntimeError("somebody replaced the SIGCHLD handler while children were running")
        signal.signal(signal.SIGCHLD, self.saved)

    def _aim_wakeup_fd(self) -> None:
        """Have the C handler write to the first user's pipe, or stop it from doing so."""
        wanted = self._users[0].pipe.writer if self._users else -1
        if wanted == self._wakeup_fd:
            return
        before = signal.set_wakeup_fd(wanted, warn_on_full_buffer=False)
        if before != self._wakeup_fd:
            # The application's. Whether it wants to be warned of a full buffer cannot be asked.
            signal.set_wakeup_fd(before, warn_on_full_buffer=False)
            wanted = -1
        self._wakeup_fd = wanted


def install() -> SigchldHandler:
    """The handler that stands, or a new one in the place of the default or of SIG_IGN.

    RuntimeError: the application has a handler of its own and has not said so by its mode, or this
    is not the main thread, where alone Python can set one.
    """
    current = _standing()
    if isinstance(current, SigchldHandler) and current.pid == os.getpid():
        return current
    # One that came here by a fork serves nobody here.
    saved = current.saved if isinstance(current, SigchldHandler) else current
    if saved is None:
        raise RuntimeError(
            "the application has a SIGCHLD handler of its own: it must agree upon a mode "
            "(Owner.MAINLOOP) before children are started"
        )
    handler = SigchldHandler(saved)
    try:
        signal.signal(signal.SIGCHLD, handler)
    except ValueError:
        raise RuntimeError(
            "a SIGCHLD handler can be installed by the main thread only: elsewhere, the "
            "application reaps (Owner.MAINLOOP)"
        ) from None
    return handler


def restore_in_child() -> None:
    """In a forked child: put back what stood before the handler, and leave the parent alone."""
    current = _standing()
    if isinstance(current, SigchldHandler):
        signal.signal(signal.SIGCHLD, current.saved)
        signal.set_wakeup_fd(-1)


def _standing() -> SigchldHandler | signal.Handlers | None:
    """The disposition of SIGCHLD; None: a handler of the application's, in Python or not."""
    current = signal.getsignal(signal.SIGCHLD)
    return current if isinstance(current, SigchldHandler | signal.Handlers) else None
