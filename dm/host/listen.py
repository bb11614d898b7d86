"""Listening sockets on the host: made or inherited, and removed only if they are still ours.

``_socket`` is used below ``socket``: the latter's import costs ten times as much and brings nothing
that is needed here; it is on the start-up path because a toolstack always asks for monitors.
"""

from __future__ import annotations

import errno
import os
import stat

from dm.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from dm.host.chardev import ChardevSpec

__all__ = ["Listener", "inherit", "listen", "listen_tcp", "listen_unix", "place_text"]

# libxl connects without blocking, and a full backlog is a hard failure there.
_BACKLOG = 16


class Listener:
    """A listening stream socket.

    - ``address``: in QEMU's notation without prefix words: ``unix:/path`` or ``tcp:host:port``
    - ``unix``: whether it is of the AF_UNIX family
    """

    def __init__(
        self, sock: _socket.socket, address: str, unix: bool, path: str | None = None
    ) -> None:
        self._sock = sock
        self.address = address
        self.unix = unix
        self._path = path
        self._identity = _identity(path) if path else None
        # Given up for a moment to turn a client away when no descriptor is left.
        self._spare = os.dup(sock.fileno())
        sock.setblocking(False)

    def fileno(self) -> int:
        """The descriptor, for the event loop."""
        return self._sock.fileno()

    def accept(self) -> int:
        """The descriptor of the next connection, non-blocking and closed on exec; -1 for none."""
        try:
            fd = self._accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE) and self._spare >= 0:
                self._turn_away()
            return -1
        os.set_blocking(fd, False)
        return fd

    def _accept(self) -> int:
        return int(self._sock._accept()[0])  # type: ignore[attr-defined]

    def _turn_away(self) -> None:
        """Closes the waiting connection: left in the backlog it would wake the loop for ever."""
        os.close(self._spare)
        self._spare = -1
        try:
            os.close(self._accept())
            self._spare = os.dup(self.fileno())
        except OSError:
            pass

    def close(self) -> None:
        """Closes it, and removes its path if nobody has put another socket there."""
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1
        self._sock.close()
        if self._path and self._identity and _identity(self._path) == self._identity:
            try:
                os.unlink(self._path)
            except OSError:
                pass
        self._path = None


def _identity(path: str) -> tuple[int, int] | None:
    """What tells one file from another at the same path: device and inode number."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def listen(spec: ChardevSpec) -> Listener:
    """The listening socket that a socket chardev describes; raises OSError or ConfigError."""
    values = spec.values
    if "fd" in values:
        return inherit(spec.origin, int(values["fd"], 0))
    if "path" in values:
        return listen_unix(values["path"], spec.on("abstract"))
    return listen_tcp(values.get("host", ""), values["port"])


def listen_unix(path: str, abstract: bool = False) -> Listener:
    """Listens at ``path``, in place of a stale socket there; raises OSError."""
    import _socket

    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        if abstract:
            sock.bind("\0" + path)
        else:
            try:
                if stat.S_ISSOCK(os.lstat(path).st_mode):
                    os.unlink(path)
            except FileNotFoundError:
                pass
            sock.bind(path)
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    address = f"unix:{path},abstract=on" if abstract else f"unix:{path}"
    return Listener(sock, address, True, None if abstract else path)


def listen_tcp(host: str, port: str) -> Listener:
    """Listens at a TCP address; an empty host is every IPv4 one, port 0 a free one.

    Raises OSError.
    """
    import _socket

    found = _socket.getaddrinfo(
        host or "0.0.0.0", port, 0, _socket.SOCK_STREAM, 0, _socket.AI_PASSIVE
    )
    family, kind, protocol, _, place = found[0]
    sock = _socket.socket(family, kind | _socket.SOCK_CLOEXEC, protocol)
    try:
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        sock.bind(place)
        sock.listen(_BACKLOG)
        bound = sock.getsockname()
    except OSError:
        sock.close()
        raise
    return Listener(sock, "tcp:" + place_text(bound), False)


def inherit(origin: str, fd: int) -> Listener:
    """Takes a listening socket that a parent process opened; its path is never removed.

    Raises ConfigError naming ``origin`` when the descriptor is something else.
    """
    import _socket

    try:
        sock = _socket.socket(fileno=fd)
        listening = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ConfigError(f"{origin}: descriptor {fd} is not a socket") from error
    if not listening:
        sock.detach()
        raise ConfigError(f"{origin}: descriptor {fd} is not a listening socket")
    os.set_inheritable(fd, False)
    name = sock.getsockname()
    if sock.family == _socket.AF_UNIX:
        return Listener(sock, "unix:" + _path_text(name), True)
    return Listener(sock, "tcp:" + place_text(name), False)


def _path_text(name: str | bytes) -> str:
    return os.fsdecode(name).replace("\0", "@")


def place_text(place: tuple[str, int]) -> str:
    """``host:port``, or ``[host]:port`` for IPv6."""
    host = f"[{place[0]}]" if ":" in place[0] else place[0]
    return f"{host}:{place[1]}"
