"""What an application and its child-process contexts agree upon: who owns SIGCHLD, who reaps.

The names are libxl's (libxl_event.h: libxl_sigchld_owner, libxl_childproc_hooks), as contract §8.1
has them. The mailings of 2012 had no `Owner.LIBXL_ALWAYS_SELECTIVE_REAP`, and their
`Owner.LIBXL_ALWAYS` never reaped anything; both are today's here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, IntEnum

__all__ = ["Answer", "Hooks", "Owner"]


class Owner(Enum):
    """Who has a SIGCHLD handler, and who reaps whom."""

    LIBXL = "libxl"
    """The context, but only while it has children; it then reaps every child of the process."""

    MAINLOOP = "mainloop"
    """The application, which calls `reaped` or `sigchld_occurred`; never from a handler."""

    LIBXL_ALWAYS = "libxl_always"
    """The context, all the time; it reaps every child of the process, with or without its own."""

    LIBXL_ALWAYS_SELECTIVE_REAP = "libxl_always_selective_reap"
    """The context has the handler all the time, and reaps its own children only."""

    @property
    def reaps_strangers(self) -> bool:
        """Whether the context waits for any child of the process."""
        return self in (Owner.LIBXL, Owner.LIBXL_ALWAYS)

    @property
    def always(self) -> bool:
        """Whether the handler stays without children."""
        return self in (Owner.LIBXL_ALWAYS, Owner.LIBXL_ALWAYS_SELECTIVE_REAP)


class Answer(IntEnum):
    """Whose child it was. The numbers are libxl's."""

    KNOWN = 0
    UNKNOWN_CHILD = -14
    """ERROR_UNKNOWN_CHILD."""


@dataclass(frozen=True)
class Hooks:
    """What the application brings along; ValueError: a combination that cannot work.

    ``fork_replacement`` is called instead of os.fork and behaves exactly like it: the child's pid
    in the parent, 0 in the child, OSError when there is no child. It may not call the context.

    ``reaped_callback`` is called with the pid and the wait status of a child that is not the
    context's. It answers `Answer.KNOWN` (the child is the application's, or it keeps no records),
    `Answer.UNKNOWN_CHILD` (it is not: the exit status is logged), or an error of its own, any
    other number, which is reported as a disaster. It may call the context. Without it the
    application is taken to have no children. With `Owner.MAINLOOP` it has no meaning, so it is
    refused.
    """

    owner: Owner = Owner.LIBXL
    fork_replacement: Callable[[], int] | None = None
    reaped_callback: Callable[[int, int], int] | None = None

    def __post_init__(self) -> None:
        if self.owner is Owner.MAINLOOP and self.reaped_callback is not None:
            raise ValueError("an application that reaps by itself has no use for reaped_callback")
