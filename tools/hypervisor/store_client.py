"""Who speaks xenstore's wire protocol: requests and answers, and what a guest is allowed.

Permissions are not kept: dom0 may do everything; a guest may read what is below its home, its part
of /vm and the back ends' nodes for it, and write below its home, but not what says who it is. A
transaction is only a number, whose writes take effect at once and whose end always commits. Facts:
docs/misc/xenstore.txt.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from protocol import layouts

from .store import SPECIAL, Store, StoreError

__all__ = ["StoreClient"]

HEADER = struct.Struct(layouts.XS_MESSAGE_FORMAT)
TRANSACTION_LIMIT = 64
IDENTITY = ("vm", "name", "domid")
"""Nodes below a guest's home that are the toolstack's (libxl_create.c: libxl__domain_make)."""
TOKEN_LIMIT = 256


class StoreClient:
    """Somebody who speaks the wire protocol. ``send`` takes a whole message, unasked ones too.

    ``introduced`` says whether a domain of that id exists; ``guest``: of which domain this is, 0:
    of dom0.
    """

    def __init__(
        self,
        store: Store,
        send: Callable[[bytes], object],
        introduced: Callable[[int], bool],
        guest: int = 0,
    ) -> None:
        self._store = store
        self._guest = guest
        self._home = f"/local/domain/{guest}"
        self._send = send
        self._introduced = introduced
        self._transactions: set[int] = set()
        self._last_transaction = 0
        self._requests: dict[int, Callable[[bytes], bytes]] = {
            layouts.XS_MESSAGE_TYPE_READ: lambda data: store.read_bytes(self._readable(data)),
            layouts.XS_MESSAGE_TYPE_DIRECTORY: self._directory,
            layouts.XS_MESSAGE_TYPE_DIRECTORY_PART: self._directory_part,
            layouts.XS_MESSAGE_TYPE_GET_PERMS: self._permissions,
            layouts.XS_MESSAGE_TYPE_SET_PERMS: self._set_permissions,
            layouts.XS_MESSAGE_TYPE_WRITE: self._write,
            layouts.XS_MESSAGE_TYPE_MKDIR: self._done(lambda path: store.make(path, guest)),
            layouts.XS_MESSAGE_TYPE_RM: self._done(store.remove),
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
        return "".join(f"{name}\0" for name in self._store.directory(self._readable(data))).encode()

    def _directory_part(self, data: bytes) -> bytes:
        path, offset = _strings(data, 2)
        if not offset.isdecimal() or len(offset) > 9:
            raise StoreError("EINVAL")
        names = self._store.directory(self._allowed(path))
        rest = "".join(f"{name}\0" for name in names).encode()[int(offset) :]
        room = layouts.XENSTORE_PAYLOAD_MAX - 2
        if len(rest) >= room:
            # Whole names only; the caller asks again with the offset behind them.
            return b"1\0" + rest[: rest.rfind(b"\0", 0, room) + 1]
        return b"1\0" + rest + b"\0"

    def _permissions(self, data: bytes) -> bytes:
        self._store.read_bytes(self._readable(data))
        return f"n{self._guest}\0".encode()

    def _set_permissions(self, data: bytes) -> bytes:
        path, end, _ = data.partition(b"\0")
        self._store.read_bytes(self._writable(path + end))
        return b"OK\0"

    def _write(self, data: bytes) -> bytes:
        path, end, value = data.partition(b"\0")
        self._store.write(self._writable(path + end), value, self._guest)
        return b"OK\0"

    def _watch(self, data: bytes) -> bytes:
        path, token = _strings(data, 2)
        whole = path if path in SPECIAL else self._allowed(path)
        if len(token) > TOKEN_LIMIT:
            raise StoreError("E2BIG")
        # A client that watches a relative path is told relative ones.
        cut = 0 if path == whole else len(self._home) + 1

        def tell(changed: str) -> None:
            event = f"{changed[cut:]}\0{token}\0".encode()
            self._send(HEADER.pack(layouts.XS_MESSAGE_TYPE_WATCH_EVENT, 0, 0, len(event)) + event)

        self._store.watch(whole, tell, token, self)
        return b"OK\0"

    def _unwatch(self, data: bytes) -> bytes:
        path, token = _strings(data, 2)
        self._store.unwatch(path if path in SPECIAL else self._absolute(path), token, self)
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

    def _done(self, perform: Callable[[str], None]) -> Callable[[bytes], bytes]:
        """A request that has a path to change and no answer."""

        def request(data: bytes) -> bytes:
            perform(self._writable(data))
            return b"OK\0"

        return request

    def _absolute(self, path: str) -> str:
        if path.startswith("/"):
            return path
        if len(path) > layouts.XENSTORE_REL_PATH_MAX:
            raise StoreError("EINVAL")
        return f"{self._home}/{path}"

    def _allowed(self, path: str) -> str:
        """The absolute path, when the client may read there. StoreError: EINVAL, EACCES."""
        whole = self._absolute(path)
        if self._guest and not self._is_home(whole):
            parts = whole.split("/")
            own = self._store.read(f"{self._home}/vm")
            of_vm = own is not None and own.startswith("/vm/") and _is_in(whole, own)
            backend = parts[1:5] == ["local", "domain", "0", "backend"]
            if not of_vm and not (backend and parts[6:7] == [str(self._guest)]):
                raise StoreError("EACCES")
        return whole

    def _is_home(self, path: str) -> bool:
        return _is_in(path, self._home)

    def _readable(self, data: bytes) -> str:
        return self._allowed(_strings(data, 1)[0])

    def _writable(self, data: bytes) -> str:
        whole = self._absolute(_strings(data, 1)[0])
        if self._guest:
            below = whole.removeprefix(f"{self._home}/")
            if below == whole or below.split("/")[0] in IDENTITY:
                raise StoreError("EACCES")
        return whole

    def _is_introduced(self, data: bytes) -> bytes:
        return b"T\0" if self._introduced(_domid(data)) else b"F\0"


def _is_in(path: str, top: str) -> bool:
    return path == top or path.startswith(f"{top}/")


def _strings(data: bytes, count: int) -> list[str]:
    """The ``count`` strings of a payload. StoreError EINVAL: it has not so many."""
    parts = data.split(b"\0")
    if len(parts) != count + 1 or parts[-1]:
        raise StoreError("EINVAL")
    try:
        return [part.decode("ascii") for part in parts[:-1]]
    except UnicodeDecodeError:
        raise StoreError("EINVAL") from None


def _domid(data: bytes) -> int:
    (text,) = _strings(data, 1)
    if not text.isdecimal() or len(text) > 5:
        raise StoreError("EINVAL")
    return int(text)
