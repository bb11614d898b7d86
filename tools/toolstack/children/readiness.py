"""How a device model says that it can serve: the node that it writes, and who watches for it.

Facts: contract §0 (paths) and §2.1: exactly `running` confirms; everything else, and no node at
all, means waiting on. A watch fires once at the beginning, so that a stale `running` of an earlier
device model confirms at once: whoever ends one removes its folder.
"""

from __future__ import annotations

import select
import threading
from collections.abc import Callable
from typing import Protocol

from .loop import EventLoop
from .self_pipe import SelfPipe

__all__ = ["Readiness", "Store", "StoreReadiness", "pid_path", "state_path"]

RUNNING = "running"


def state_path(domid: int) -> str:
    """The node in which the device model of ``domid`` says that it is ready."""
    return f"/local/domain/0/device-model/{domid}/state"


def pid_path(domid: int) -> str:
    """The node in which its process id is recorded, in decimal."""
    return f"/local/domain/{domid}/image/device-model-pid"


class Readiness(Protocol):
    """A way to learn that a device model is ready."""

    def arm(self, loop: EventLoop, ready: Callable[[], None]) -> Callable[[], None]:
        """Have ``ready`` called from the loop, perhaps more than once. Calling the result ends it.

        It does not call ``ready`` itself, and the result may be called by ``ready``.
        """


class Store(Protocol):
    """What is needed of a xenstore: the stand-alone one, or a connection to a real one."""

    def read(self, path: str, /) -> str | None:
        """The value of a node; None when there is no such node."""

    def watch(self, path: str, tell: Callable[[str], object], /) -> Callable[[], None]:
        """Have ``tell`` called, on any thread, for each change and once now; the result ends it."""


class StoreReadiness:
    """`Readiness` by a node's value. The store may call from any thread."""

    def __init__(self, store: Store, path: str, value: str = RUNNING) -> None:
        self._store = store
        self._path = path
        self._value = value

    def arm(self, loop: EventLoop, ready: Callable[[], None]) -> Callable[[], None]:
        """See `Readiness`. HostFailure: no more descriptors."""
        return _Armed(self._store, self._path, self._value, loop, ready).end


class _Armed:
    def __init__(
        self, store: Store, path: str, value: str, loop: EventLoop, ready: Callable[[], None]
    ) -> None:
        self._store = store
        self._path = path
        self._value = value
        self._loop = loop
        self._ready = ready
        self._pipe = SelfPipe()
        self._open = True
        # A store may still be telling, on its thread, when the watch has ended.
        self._lock = threading.Lock()
        loop.add(self._pipe.reader, select.EPOLLIN, self._woken)
        try:
            self._unwatch = store.watch(path, self._told)
        except BaseException:
            self._close()
            raise

    def _told(self, path: str) -> None:
        with self._lock:
            if self._open:
                self._pipe.wake()

    def _woken(self, events: int) -> None:
        self._pipe.drain()
        if self._store.read(self._path) == self._value:
            self._ready()

    def end(self) -> None:
        if self._open:
            self._unwatch()
            self._close()

    def _close(self) -> None:
        with self._lock:
            self._open = False
            self._loop.remove(self._pipe.reader)
            self._pipe.close()
