"""Where QMP clients come in. Cheap: the server itself is loaded when the first one does."""

from __future__ import annotations

from select import EPOLLIN

from dm.errors import ConfigError
from dm.host.listen import Listener, listen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from dm.control.monitor import Monitor
    from dm.control.qmp import QmpServer
    from dm.host.chardev import ChardevSpec, Loop

__all__ = ["Qmp", "QmpEntrance"]


class Qmp:
    """All QMP of the process: its entrances, and the server behind them."""

    def __init__(self, loop: Loop, monitor: Monitor) -> None:
        self._loop = loop
        self._monitor = monitor
        self._entrances: list[QmpEntrance] = []
        self._server: QmpServer | None = None

    def open(self, spec: ChardevSpec) -> QmpEntrance:
        """Serves QMP at the socket of a chardev; raises ConfigError naming its option."""
        if spec.backend != "socket":
            raise ConfigError(f"{spec.origin}: QMP needs a socket")
        try:
            entrance = QmpEntrance(self._loop, spec, self)
        except OSError as error:
            raise ConfigError(f"{spec.origin}: {error.strerror or error}") from error
        self._entrances.append(entrance)
        return entrance

    def server(self) -> QmpServer:
        """The server, loaded now if it was not."""
        if self._server is None:
            from dm.control.qmp import QmpServer

            self._server = QmpServer(self._loop, self._monitor)
        return self._server

    def emit(self, event: str, data: dict[str, Any] | None = None) -> None:
        """Announces an event (STOP, RESUME, RESET, SHUTDOWN, …) to the clients there are."""
        if self._server is not None:
            self._server.emit(event, data)

    def close(self) -> None:
        """Ends everything; a socket's path goes only if it is still our socket."""
        for entrance in self._entrances:
            entrance.close()
        if self._server is not None:
            self._server.close()


class QmpEntrance:
    """One socket of a monitor; an entry of query-chardev.

    A server socket takes any number of clients. One that connects itself (``server=off``) has one.
    """

    def __init__(self, loop: Loop, spec: ChardevSpec, qmp: Qmp) -> None:
        self.label = spec.label
        self._loop = loop
        self._qmp = qmp
        self._clients = 0
        self._listener: Listener | None = None
        if spec.on("server"):
            self._listener = listen(spec)
            self._address = self._listener.address + ",server=on"
            loop.add(self._listener.fileno(), EPOLLIN, self._incoming)
        else:
            from dm.host.sockets import connect

            self._address = "unix:" if "path" in spec.values else "tcp:"
            self._serve(connect(spec).detach())

    @property
    def filename(self) -> str:
        """The address as QEMU writes it; ``disconnected:`` comes first while nobody is there."""
        return self._address if self._clients else f"disconnected:{self._address}"

    @property
    def frontend_open(self) -> bool:
        """True: a monitor always uses its connection."""
        return True

    def _incoming(self, events: int) -> None:
        if self._listener is not None:
            fd = self._listener.accept()
            if fd >= 0:
                self._serve(fd)

    def _serve(self, fd: int) -> None:
        self._clients += 1
        self._qmp.server().adopt(fd, self._left)

    def _left(self) -> None:
        self._clients -= 1

    def close(self) -> None:
        """Lets no more clients in; may be called twice."""
        if self._listener is not None:
            self._loop.remove(self._listener.fileno())
            self._listener.close()
            self._listener = None
