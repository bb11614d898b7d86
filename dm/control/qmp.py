"""The QMP server: clients, negotiation, dispatch, events. Loaded when the first client comes.

Every message ends in CR LF, which libxl insists on. Source: QEMU 7.2, monitor/qmp.c,
qapi/qmp-dispatch.c, docs/interop/qmp-spec.txt.
"""

from __future__ import annotations

import array
import os
import socket
import time
from collections import deque
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT
from typing import TYPE_CHECKING, Any

from dm.control.fdsets import FdSets
from dm.control.qmp_commands import COMMANDS
from dm.control.qmp_error import QmpError
from dm.control.qmp_info import VERSION
from dm.control.qmp_json import JsonError, Reader, write
from dm.control.qmp_schema import check
from dm.errors import ConfigError, GuestError, HostError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dm.control.monitor import Monitor
    from dm.host.chardev import Loop

__all__ = ["QmpServer"]

# Bytes read in one go, so that a flood of commands does not keep the guest waiting for long.
_READ_BYTES = 4096
# Unsent answers and events; a client that lets more pile up is dropped.
_UNSENT_BYTES = 4 << 20
# Descriptors that a client may have under way before commands take them.
_PASSED_FDS = 16
_CLIENTS = 64


class QmpServer:
    """All clients of all monitors of the process; they share the machine and the descriptors."""

    def __init__(self, loop: Loop, monitor: Monitor) -> None:
        self.loop = loop
        self.monitor = monitor
        self.fdsets = FdSets()
        self._sessions: list[_Session] = []

    def adopt(self, fd: int, ended: Callable[[], None]) -> None:
        """Serves a connected stream socket, which becomes the server's.

        :param ended: called once when the connection is over.
        """
        connection = socket.socket(fileno=fd)
        if len(self._sessions) >= _CLIENTS:
            connection.close()
            ended()
            return
        session = _Session(self, connection, ended)
        self._sessions.append(session)
        session.start()

    def emit(self, event: str, data: dict[str, Any] | None) -> None:
        """Announces an event to every client that has negotiated."""
        now = time.time_ns() // 1000
        message: dict[str, Any] = {
            "timestamp": {"seconds": now // 1_000_000, "microseconds": now % 1_000_000},
            "event": event,
        }
        if data is not None:
            message["data"] = data
        for session in list(self._sessions):
            if session.negotiated:
                session.send(message)

    def forget(self, session: _Session) -> None:
        """A client has gone; with the last one go the descriptors that clients left behind."""
        self._sessions.remove(session)
        if not self._sessions:
            self.fdsets.close()

    def close(self) -> None:
        """Ends every connection."""
        for session in list(self._sessions):
            session.end()
        self.fdsets.close()


class _Session:
    """One client."""

    def __init__(
        self, server: QmpServer, connection: socket.socket, ended: Callable[[], None]
    ) -> None:
        self._server = server
        self.monitor = server.monitor
        self.fdsets = server.fdsets
        self.negotiated = False
        self._out_of_band = False
        self._connection = connection
        self._ended = ended
        self._reader = Reader()
        self._unsent = bytearray()
        self._fds: deque[int] = deque()
        self._events = EPOLLIN
        self._open = True
        connection.setblocking(False)

    def start(self) -> None:
        """Greets the client and listens to it."""
        self._server.loop.add(self._connection.fileno(), self._events, self._ready)
        self.send({"QMP": {"version": VERSION, "capabilities": ["oob"]}})

    def end(self) -> None:
        """Closes the connection and what it still held; may be called twice."""
        if not self._open:
            return
        self._open = False
        self._server.loop.remove(self._connection.fileno())
        self._connection.close()
        while self._fds:
            os.close(self._fds.popleft())
        self._server.forget(self)
        self._ended()

    def take_fd(self) -> int:
        """The oldest descriptor that the client passed and no command took; -1 for none."""
        return self._fds.popleft() if self._fds else -1

    def send(self, message: dict[str, Any]) -> None:
        """Sends a message, now or when the client reads; drops a client that never does."""
        if not self._open:
            return
        self._unsent += write(message).encode("ascii") + b"\r\n"
        self._flush()
        if len(self._unsent) > _UNSENT_BYTES:
            self.end()

    def _flush(self) -> None:
        try:
            while self._unsent:
                sent = self._connection.send(self._unsent)
                del self._unsent[:sent]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self.end()
            return
        # A client that does not read its answers is not listened to either.
        events = EPOLLOUT if self._unsent else EPOLLIN
        if events != self._events:
            self._events = events
            self._server.loop.modify(self._connection.fileno(), events)

    def _ready(self, events: int) -> None:
        if events & EPOLLOUT:
            self._flush()
        elif events & EPOLLIN:
            self._receive()
        elif events & (EPOLLHUP | EPOLLERR):
            self.end()

    def _receive(self) -> None:
        """Reads once and answers every message that this completes."""
        space = socket.CMSG_SPACE(_PASSED_FDS * array.array("i").itemsize)
        try:
            data, ancillary, _, _ = self._connection.recvmsg(
                _READ_BYTES, space, socket.MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data, ancillary = b"", []
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                self._keep(content)
        if not data:
            self.end()
            return
        for message in self._reader.feed(data):
            if not self._open:
                return
            self.send(self._answer(message))

    def _keep(self, content: bytes) -> None:
        """Keeps passed descriptors for the commands that follow; a surplus is closed."""
        passed = array.array("i")
        passed.frombytes(content[: len(content) - len(content) % passed.itemsize])
        for fd in passed:
            if len(self._fds) < _PASSED_FDS:
                self._fds.append(fd)
            else:
                os.close(fd)

    def _answer(self, message: Any) -> dict[str, Any]:
        """The answer to one message; whatever a command raises is answered, never lost."""
        answer: dict[str, Any] = {}
        identified = isinstance(message, dict) and "id" in message
        try:
            answer["return"] = self._execute(message)
        except QmpError as error:
            answer["error"] = {"class": error.error_class, "desc": str(error)}
        except (ConfigError, GuestError, HostError) as error:
            answer["error"] = {"class": "GenericError", "desc": str(error)}
        except Exception as error:
            text = f"internal error: {type(error).__name__}: {error}"
            answer["error"] = {"class": "GenericError", "desc": text}
        if identified:
            if "error" in answer:
                return {"id": message["id"], **answer}
            answer["id"] = message["id"]
        return answer

    def _execute(self, message: Any) -> Any:
        """Checks the form of a message and runs its command; raises QmpError."""
        if isinstance(message, JsonError):
            raise QmpError(str(message))
        if not isinstance(message, dict):
            raise QmpError("QMP input must be a JSON object")
        name, out_of_band = self._command_name(message)
        arguments = message.get("arguments", {})
        if not self.negotiated and name != "qmp_capabilities":
            raise QmpError(
                "Expecting capabilities negotiation with 'qmp_capabilities'", "CommandNotFound"
            )
        command = COMMANDS.get(name)
        if command is None:
            raise QmpError(f"The command {name} has not been found", "CommandNotFound")
        if out_of_band:
            raise QmpError(f"The command {name} does not support OOB")
        check(command.schema, arguments)
        if name == "qmp_capabilities":
            return self._negotiate(arguments)
        return command.handler(self, arguments)

    def _command_name(self, message: dict[str, Any]) -> tuple[str, bool]:
        """The command of a message, and whether it is to overtake others."""
        names: list[str] = []
        for member, value in message.items():
            if member == "execute" or (member == "exec-oob" and self._out_of_band):
                if not isinstance(value, str):
                    raise QmpError(f"QMP input member '{member}' must be a string")
                names.append(member)
            elif member == "arguments":
                if not isinstance(value, dict):
                    raise QmpError("QMP input member 'arguments' must be an object")
            elif member != "id":
                raise QmpError(f"QMP input member '{member}' is unexpected")
        if not names:
            raise QmpError("QMP input lacks member 'execute'")
        if len(names) > 1:
            raise QmpError("QMP input member 'execute' clashes with 'exec-oob'")
        return message[names[0]], names[0] == "exec-oob"

    def _negotiate(self, arguments: dict[str, Any]) -> Any:
        if self.negotiated:
            raise QmpError(
                "Capabilities negotiation is already complete, command ignored", "CommandNotFound"
            )
        self._out_of_band = "oob" in arguments.get("enable", [])
        self.negotiated = True
        return {}
