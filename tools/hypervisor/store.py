"""A small xenstore: a tree of nodes, and watches. Who may do what is `store_client`'s business.

Facts: docs/misc/xenstore.txt, tools/xenstore/xenstored_core.c (do_rm, is_valid_nodename), _watch.c.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from protocol import layouts

__all__ = ["HOME", "SPECIAL", "Store", "StoreError"]

HOME = "/local/domain/0"
"""What relative paths of a client begin at."""
PATH = re.compile(r"/|(/[A-Za-z0-9_@-]+)+", re.ASCII)
NODE_LIMIT = 50_000
GUEST_NODE_LIMIT = 1000
"""Nodes that one guest may have made, as xenstored's quota has it (ENOSPC beyond)."""
WATCH_LIMIT = 1024
SPECIAL = ("@introduceDomain", "@releaseDomain")


class StoreError(Exception):
    """A request that failed; ``name``: one of XENSTORE_ERRORS."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class _Watch(NamedTuple):
    path: str
    owner: object
    token: str
    tell: Callable[[str], object]


class Store:
    """The tree. Safe for any thread; watches are told without its lock, on the writer's thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._written = threading.Condition(self._lock)
        self._nodes: dict[str, bytes] = {"/": b""}
        self._children: dict[str, list[str]] = {"/": []}
        self._makers: dict[str, int] = {}
        self._made: Counter[int] = Counter()
        """Which nodes guests have made, and how many each."""
        self._watches: list[_Watch] = []

    def read(self, path: str) -> str | None:
        """The value at ``path``; None when there is no such node. StoreError EINVAL: no path."""
        with self._lock:
            value = self._nodes.get(_checked(path))
        return None if value is None else value.decode("utf-8", "replace")

    def read_bytes(self, path: str) -> bytes:
        """The value at ``path``. StoreError: EINVAL, ENOENT."""
        with self._lock:
            return self._node(path)

    def write(self, path: str, value: str | bytes, guest: int = 0) -> None:
        """Set a value, making the nodes on the way. StoreError: EINVAL, E2BIG, ENOSPC.

        ``guest``: the domain that makes them and is limited in it; 0: dom0, who is not.
        """
        data = value.encode() if isinstance(value, str) else value
        if len(data) > layouts.XENSTORE_PAYLOAD_MAX:
            raise StoreError("E2BIG")
        with self._lock:
            self._make(_checked(path), guest)
            self._nodes[path] = data
            self._written.notify_all()
        self.fire(path)

    def make(self, path: str, guest: int = 0) -> None:
        """XS_MKDIR: an empty node, unless it exists. ``guest`` and StoreError: see `write`."""
        with self._lock:
            if _checked(path) in self._nodes:
                return
            self._make(path, guest)
        self.fire(path)

    def remove(self, path: str) -> None:
        """Remove ``path`` and all below it. StoreError: EINVAL, ENOENT its parent is missing."""
        if _checked(path) == "/":
            raise StoreError("EINVAL")
        parent, _, name = path.rpartition("/")
        with self._lock:
            if path not in self._nodes:
                if (parent or "/") not in self._nodes:
                    raise StoreError("ENOENT")
                return
            self._children[parent or "/"].remove(name)
            gone = [path, *(one for one in self._nodes if one.startswith(f"{path}/"))]
            for one in gone:
                del self._nodes[one], self._children[one]
                maker = self._makers.pop(one, 0)
                if maker:
                    self._made[maker] -= 1
            inside = frozenset(gone[1:])
            below = [watch for watch in self._watches if watch.path in inside]
        self.fire(path)
        for watch in below:
            watch.tell(watch.path)

    def directory(self, path: str) -> list[str]:
        """The names of the nodes right below ``path``. StoreError: EINVAL, ENOENT."""
        with self._lock:
            self._node(path)
            return list(self._children[path])

    def watch(
        self, path: str, tell: Callable[[str], object], token: str = "", owner: object = None
    ) -> Callable[[], None]:
        """Have ``tell`` called with the path of each change at or below ``path``, and once now.

        ``path`` may be one of the special names. Calling the result ends it. StoreError: EINVAL,
        EEXIST the same owner has the same watch, E2BIG it has too many.
        """
        if path not in SPECIAL:
            _checked(path)
        watch = _Watch(path, owner, token, tell)
        with self._lock:
            own = [one for one in self._watches if one.owner is owner and owner is not None]
            if any(one.path == path and one.token == token for one in own):
                raise StoreError("EEXIST")
            if len(own) >= WATCH_LIMIT:
                raise StoreError("E2BIG")
            self._watches.append(watch)
        tell(path)
        return lambda: self._forget([watch])

    @property
    def watches(self) -> int:
        """How many watches there are."""
        return len(self._watches)

    def unwatch(self, path: str, token: str, owner: object) -> None:
        """End a watch. StoreError ENOENT: there is none."""
        with self._lock:
            found = [one for one in self._watches if (one.path, one.token) == (path, token)]
            found = [one for one in found if one.owner is owner]
        if not found:
            raise StoreError("ENOENT")
        self._forget(found)

    def forget(self, owner: object) -> None:
        """End all watches of ``owner``."""
        with self._lock:
            found = [one for one in self._watches if one.owner is owner]
        self._forget(found)

    def _forget(self, watches: list[_Watch]) -> None:
        with self._lock:
            self._watches = [one for one in self._watches if not any(one is w for w in watches)]

    def fire(self, path: str) -> None:
        """Tell the watches of ``path`` and of all above it; or those of a special name."""
        with self._lock:
            told = [
                watch
                for watch in self._watches
                if watch.path == path
                or (watch.path == "/" == path[0])
                or path.startswith(f"{watch.path}/")
            ]
        for watch in told:
            watch.tell(path)

    def wait(self, path: str, timeout: float, value: str | None = None) -> str | None:
        """Wait until ``path`` exists, with ``value`` if that is given; its value, None: in vain."""
        with self._written:
            self._written.wait_for(
                lambda: self.read(path) is not None and value in (None, self.read(path)), timeout
            )
            return self.read(path)

    def _node(self, path: str) -> bytes:
        value = self._nodes.get(_checked(path))
        if value is None:
            raise StoreError("ENOENT")
        return value

    def _make(self, path: str, guest: int = 0) -> None:
        missing = []
        while path not in self._nodes:
            missing.append(path)
            path = path.rpartition("/")[0] or "/"
        if len(self._nodes) + len(missing) > NODE_LIMIT:
            raise StoreError("ENOSPC")
        if guest and self._made[guest] + len(missing) > GUEST_NODE_LIMIT:
            raise StoreError("ENOSPC")
        for one in reversed(missing):
            if guest:
                self._makers[one] = guest
                self._made[guest] += 1
            parent, _, name = one.rpartition("/")
            self._children[parent or "/"].append(name)
            self._nodes[one] = b""
            self._children[one] = []


def _checked(path: str) -> str:
    """The path itself. StoreError EINVAL: it is none."""
    if len(path) > layouts.XENSTORE_ABS_PATH_MAX or not PATH.fullmatch(path):
        raise StoreError("EINVAL")
    return path
