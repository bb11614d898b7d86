"""Stream sockets as back ends: a server with one client at a time, or a client.

Source of the file names: QEMU 7.2, chardev/char-socket.c, as query-chardev reports them.
"""

from __future__ import annotations

import os
from select import EPOLLIN

from dm.errors import ConfigError
from dm.host.listen import Listener, listen, place_text
from dm.host.stream import StreamChardev

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from dm.host.chardev import Cancellable, ChardevSpec, Loop

__all__ = ["SocketChardev", "connect"]

_CONNECT_SECONDS = 5.0
# Output that a connected client has not read; beyond it the device is told to wait.
_PENDING_BYTES = 64 << 10
_SECOND_NS = 1_000_000_000


class SocketChardev(StreamChardev):
    """The socket that a spec describes; raises OSError or ConfigError when it cannot be had.

    While no client is connected the newest output is kept for the next one. A client that does not
    read makes :meth:`write` accept less; it cannot make it wait.
    """

    kind = "socket"

    def __init__(self, spec: ChardevSpec, loop: Loop) -> None:
        super().__init__(spec.label, loop)
        self._spec = spec
        self._sock: _socket.socket | None = None
        self._listener: Listener | None = None
        self._timer: Cancellable | None = None
        self._server = spec.on("server")
        if self._server:
            self._listener = listen(spec)
            self._await_client()
        else:
            self._connect_first()

    @property
    def backend_open(self) -> bool:
        """True while a peer is connected."""
        return self._sock is not None

    @property
    def filename(self) -> str:
        """The address as QEMU writes it; ``disconnected:`` comes first while there is no peer."""
        mode = ",server=on" if self._server else ""
        if self._sock is None:
            where = self._listener.address if self._listener else _target(self._spec)
            return f"disconnected:{where}{mode}"
        name = self._sock.getsockname()
        if not isinstance(name, tuple):
            return f"unix:{os.fsdecode(name)}{mode}"
        try:
            peer = place_text(self._sock.getpeername())
        except OSError:
            peer = "?"
        return f"tcp:{place_text(name)}{mode} <-> {peer}"

    def _await_client(self) -> None:
        if self._listener is not None:
            self._loop.add(self._listener.fileno(), EPOLLIN, self._incoming)

    def _incoming(self, events: int) -> None:
        """A client is waiting; the next one waits in the backlog until this one is gone."""
        if self._listener is None:
            return
        fd = self._listener.accept()
        if fd >= 0:
            import _socket

            self._loop.remove(self._listener.fileno())
            self._begin(_socket.socket(fileno=fd))

    def _begin(self, sock: _socket.socket) -> None:
        self._sock = sock
        sock.setblocking(False)
        if self._spec.on("nodelay") and isinstance(sock.getsockname(), tuple):
            import _socket

            sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        self._attach(sock.fileno(), sock.fileno())
        if self._opened is not None and self._sock is not None:
            self._opened(True)

    def _connect_first(self) -> None:
        """Connects at start: without ``reconnect`` a failure is the user's to know."""
        try:
            self._begin(connect(self._spec))
        except OSError:
            if not self._retry():
                raise

    def _retry(self) -> bool:
        """Asks for another attempt later, if ``reconnect=SECONDS`` was given."""
        seconds = self._spec.values.get("reconnect", "0")
        if not seconds.isdigit() or int(seconds) == 0:
            return False
        deadline = self._loop.now() + int(seconds) * _SECOND_NS
        self._timer = self._loop.call_at(deadline, self._reconnect)
        return True

    def _reconnect(self) -> None:
        self._timer = None
        try:
            self._begin(connect(self._spec))
        except OSError:
            self._retry()

    def _lost(self) -> None:
        """The peer is gone; what it did not read is kept for the next one."""
        sock, self._sock = self._sock, None
        self._detach()
        if sock is None:
            return
        sock.close()
        if self._server:
            self._await_client()
        else:
            self._retry()
        if self._opened is not None:
            self._opened(False)

    def write(self, data: bytes) -> int:
        """Takes what a connected client leaves room for; everything while there is none."""
        if self._sock is not None and self._queue:
            data = data[: max(0, _PENDING_BYTES - len(self._queue))]
        return super().write(data) if data else 0

    def close(self) -> None:
        """Closes the connection and the listening socket, and removes its path if it is ours."""
        self._detach()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._listener is not None:
            if self._sock is None:
                self._loop.remove(self._listener.fileno())
            self._listener.close()
            self._listener = None
        if self._sock is not None:
            self._sock.close()
            self._sock = None


def connect(spec: ChardevSpec) -> _socket.socket:
    """A connected socket; raises OSError, after five seconds at the latest."""
    import _socket

    values = spec.values
    if "fd" in values:
        try:
            return _socket.socket(fileno=int(values["fd"], 0))
        except OSError as error:
            raise ConfigError(
                f"{spec.origin}: descriptor {values['fd']} is not a socket"
            ) from error
    place: str | tuple[object, ...]
    if "path" in values:
        family, place = int(_socket.AF_UNIX), values["path"]
        if spec.on("abstract"):
            place = "\0" + values["path"]
    else:
        found = _socket.getaddrinfo(
            values.get("host") or "localhost", values["port"], 0, _socket.SOCK_STREAM
        )
        family, _, _, _, place = found[0]
    sock = _socket.socket(family, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        sock.settimeout(_CONNECT_SECONDS)
        sock.connect(place)
    except OSError:
        sock.close()
        raise
    return sock


def _target(spec: ChardevSpec) -> str:
    values = spec.values
    if "path" in values:
        return "unix:" + values["path"]
    return f"tcp:{values.get('host', '')}:{values.get('port', '')}"
