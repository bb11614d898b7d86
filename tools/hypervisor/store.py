"""A small xenstore: a tree of nodes, watches, and the wire messages of those who speak for dom0.

There is one writer at a time and everybody is privileged: permissions are not kept, and a
transaction is only a number, whose writes take effect at once and whose end always commits. Facts:
docs/misc/xenstore.txt, tools/xenstore/xenstored_core.c (do_rm, is_valid_nodename), _watch.c.
"""

from __future__ import annotations

import re
import struct
import threading
from collections.abc import Callable
from typing import NamedTuple

from protocol import layouts

__all__ = ["HOME", "Store", "StoreClient", "StoreError"]

HOME = "/local/domain/0"
"""What relative paths of a client begin at."""
HEADER = struct.Struct(layouts.XS_MESSAGE_FORMAT)
PATH = re.compile(r"/|(/[A-Za-z0-9_@-]+)+", re.ASCII)
NODE_LIMIT = 50_000
WATCH_LIMIT = 1024
TRANSACTION_LIMIT = 64
SPECIAL = ("@introduceDomain", "@releaseDomain")
TOKEN_LIMIT = 256


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

    def write(self, path: str, value: str | bytes) -> None:
        """Set a value, making the nodes on the way. StoreError: EINVAL, E2BIG, ENOSPC."""
        data = value.encode() if isinstance(value, str) else value
        if len(data) > layouts.XENSTORE_PAYLOAD_MAX:
            raise StoreError("E2BIG")
        with self._lock:
            self._make(_checked(path))
            self._nodes[path] = data
            self._written.notify_all()
        self.fire(path)

    def make(self, path: str) -> None:
        """XS_MKDIR: an empty node, unless it exists. StoreError: EINVAL, ENOSPC."""
        with self._lock:
            if _checked(path) in self._nodes:
                return
            self._make(path)
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
            below = [watch for watch in self._watches if watch.path in gone[1:]]
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

    def _make(self, path: str) -> None:
        missing = []
        while path not in self._nodes:
            missing.append(path)
            path = path.rpartition("/")[0] or "/"
        if len(self._nodes) + len(missing) > NODE_LIMIT:
            raise StoreError("ENOSPC")
        for one in reversed(missing):
            parent, _, name = one.rpartition("/")
            self._children[parent or "/"].append(name)
            self._nodes[one] = b""
            self._children[one] = []


def _checked(path: str) -> str:
    """The path itself. StoreError EINVAL: it is none."""
    if len(path) > layouts.XENSTORE_ABS_PATH_MAX or not PATH.fullmatch(path):
        raise StoreError("EINVAL")
    return path


class StoreClient:
    """Somebody who speaks the wire protocol. ``send`` takes a whole message, unasked ones too.

    ``introduced`` says whether a domain of that id exists.
    """

    def __init__(
        self, store: Store, send: Callable[[bytes], object], introduced: Callable[[int], bool]
    ) -> None:
        self._store = store
        self._send = send
        self._introduced = introduced
        self._transactions: set[int] = set()
        self._last_transaction = 0
        self._requests: dict[int, Callable[[bytes], bytes]] = {
            layouts.XS_MESSAGE_TYPE_READ: lambda data: store.read_bytes(_path(data)),
            layouts.XS_MESSAGE_TYPE_DIRECTORY: self._directory,
            layouts.XS_MESSAGE_TYPE_DIRECTORY_PART: self._directory_part,
            layouts.XS_MESSAGE_TYPE_GET_PERMS: self._permissions,
            layouts.XS_MESSAGE_TYPE_SET_PERMS: self._set_permissions,
            layouts.XS_MESSAGE_TYPE_WRITE: self._write,
            layouts.XS_MESSAGE_TYPE_MKDIR: _done(store.make),
            layouts.XS_MESSAGE_TYPE_RM: _done(store.remove),
            layouts.XS_MESSAGE_TYPE_WATCH: self._watch,
            layouts.XS_MESSAGE_TYPE_UNWATCH: self._unwatch,
            layouts.XS_MESSAGE_TYPE_RESET_WATCHES: self._reset,
            layouts.XS_MESSAGE_TYPE_TRANSACTION_START: self._start,
            layouts.XS_MESSAGE_TYPE_GET_DOMAIN_PATH: self._domain_path,
            layouts.XS_MESSAGE_TYPE_IS_DOMAIN_INTRODUCED: self._is_introduced,
        }

    def handle(self, message: bytes) -> bytes:
        """Perform a request and give the answer, an XS_ERROR message included.

        ValueError: not a message at all.
        """
        if len(message) < HEADER.size:
            raise ValueError("shorter than a header")
        kind, serial, transaction, length = HEADER.unpack_from(message)
        data = message[HEADER.size :]
        if length != len(data):
            raise ValueError(f"{length} bytes promised, {len(data)} sent")
        try:
            answer = self._perform(kind, transaction, data)
        except StoreError as error:
            kind, answer = layouts.XS_MESSAGE_TYPE_ERROR, error.name.encode() + b"\0"
        if len(answer) > layouts.XENSTORE_PAYLOAD_MAX:
            kind, answer = layouts.XS_MESSAGE_TYPE_ERROR, b"E2BIG\0"
        return HEADER.pack(kind, serial, transaction, len(answer)) + answer

    def close(self) -> None:
        """The client is gone."""
        self._store.forget(self)

    def _perform(self, kind: int, transaction: int, data: bytes) -> bytes:
        if len(data) > layouts.XENSTORE_PAYLOAD_MAX:
            raise StoreError("E2BIG")
        if transaction and transaction not in self._transactions:
            raise StoreError("ENOENT")
        if kind == layouts.XS_MESSAGE_TYPE_TRANSACTION_END:
            if not transaction or data not in (b"T\0", b"F\0"):
                raise StoreError("EINVAL")
            self._transactions.discard(transaction)
            return b"OK\0"
        request = self._requests.get(kind)
        if request is None:
            raise StoreError("ENOSYS")
        return request(data)

    def _directory(self, data: bytes) -> bytes:
        return "".join(f"{name}\0" for name in self._store.directory(_path(data))).encode()

    def _directory_part(self, data: bytes) -> bytes:
        path, offset = _strings(data, 2)
        if not offset.isdecimal() or len(offset) > 9:
            raise StoreError("EINVAL")
        names = self._store.directory(_absolute(path))
        rest = "".join(f"{name}\0" for name in names).encode()[int(offset) :]
        room = layouts.XENSTORE_PAYLOAD_MAX - 2
        if len(rest) >= room:
            # Whole names only; the caller asks again with the offset behind them.
            return b"1\0" + rest[: rest.rfind(b"\0", 0, room) + 1]
        return b"1\0" + rest + b"\0"

    def _permissions(self, data: bytes) -> bytes:
        self._store.read_bytes(_path(data))
        return b"n0\0"

    def _set_permissions(self, data: bytes) -> bytes:
        path, end, _ = data.partition(b"\0")
        self._store.read_bytes(_path(path + end))
        return b"OK\0"

    def _write(self, data: bytes) -> bytes:
        path, end, value = data.partition(b"\0")
        self._store.write(_path(path + end), value)
        return b"OK\0"

    def _watch(self, data: bytes) -> bytes:
        path, token = _strings(data, 2)
        whole = path if path in SPECIAL else _absolute(path)
        if len(token) > TOKEN_LIMIT:
            raise StoreError("E2BIG")
        # A client that watches a relative path is told relative ones.
        cut = 0 if path == whole else len(HOME) + 1

        def tell(changed: str) -> None:
            event = f"{changed[cut:]}\0{token}\0".encode()
            self._send(HEADER.pack(layouts.XS_MESSAGE_TYPE_WATCH_EVENT, 0, 0, len(event)) + event)

        self._store.watch(whole, tell, token, self)
        return b"OK\0"

    def _unwatch(self, data: bytes) -> bytes:
        path, token = _strings(data, 2)
        self._store.unwatch(path if path in SPECIAL else _absolute(path), token, self)
        return b"OK\0"

    def _reset(self, data: bytes) -> bytes:
        self._store.forget(self)
        return b"OK\0"

    def _start(self, data: bytes) -> bytes:
        if len(self._transactions) >= TRANSACTION_LIMIT:
            raise StoreError("ENOSPC")
        self._last_transaction += 1
        self._transactions.add(self._last_transaction)
        return b"%d\0" % self._last_transaction

    def _domain_path(self, data: bytes) -> bytes:
        return f"/local/domain/{_domid(data)}\0".encode()

    def _is_introduced(self, data: bytes) -> bytes:
        return b"T\0" if self._introduced(_domid(data)) else b"F\0"


def _done(perform: Callable[[str], None]) -> Callable[[bytes], bytes]:
    """A request that has a path and no answer."""

    def request(data: bytes) -> bytes:
        perform(_path(data))
        return b"OK\0"

    return request


def _strings(data: bytes, count: int) -> list[str]:
    """The ``count`` strings of a payload. StoreError EINVAL: it has not so many."""
    parts = data.split(b"\0")
    if len(parts) != count + 1 or parts[-1]:
        raise StoreError("EINVAL")
    try:
        return [part.decode("ascii") for part in parts[:-1]]
    except UnicodeDecodeError:
        raise StoreError("EINVAL") from None


def _absolute(path: str) -> str:
    if path.startswith("/"):
        return path
    if len(path) > layouts.XENSTORE_REL_PATH_MAX:
        raise StoreError("EINVAL")
    return f"{HOME}/{path}"


def _path(data: bytes) -> str:
    return _absolute(_strings(data, 1)[0])


def _domid(data: bytes) -> int:
    (text,) = _strings(data, 1)
    if not text.isdecimal() or len(text) > 5:
        raise StoreError("EINVAL")
    return int(text)
