"""How a thread is brought out of KVM_RUN: a flag in the run page, and a signal that interrupts.

The thread has the signal blocked but while it is in KVM_RUN (KVM_SET_SIGNAL_MASK), so that no
handler is needed, nothing else is interrupted, and one that comes too early ends the next KVM_RUN.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .machine import KvmCpu

__all__ = ["forget_kicks", "interrupted_after", "kick", "kickable"]

KICK = signal.SIGRTMIN + 4


@contextlib.contextmanager
def kickable(cpu: KvmCpu) -> Iterator[int]:
    """Make the calling thread one that can be kicked out of ``cpu``; gives what `kick` takes.

    Nobody may kick it any more when this ends.
    """
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {KICK})
    try:
        cpu.block_signals(blocked - {KICK})
        yield threading.get_ident()
    finally:
        forget_kicks()
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def kick(cpu: KvmCpu, thread: int) -> None:
    """Bring ``thread`` out of KVM_RUN, or have its next one end at once.

    Whoever finds the flag set need not do more, for the thread has not seen the last kick yet; so
    signals do not pile up. Kicks of one thread are made one at a time.
    """
    if not cpu.run.immediate_exit:
        cpu.run.immediate_exit = 1
        signal.pthread_kill(thread, KICK)


def forget_kicks() -> None:
    """Take the signals that have come; each KVM_RUN would end at once for as long as one waits."""
    while signal.sigtimedwait({KICK}, 0) is not None:
        pass


@contextlib.contextmanager
def interrupted_after(seconds: float, cpu: KvmCpu) -> Iterator[None]:
    """Kick the calling thread if what follows takes longer."""
    with kickable(cpu) as thread:
        timer = threading.Timer(seconds, kick, (cpu, thread))
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()
