"""What a keeper and those who ask it say to each other: one JSON object a line, over a socket.

A request is ``{"command": NAME, …}``. Lines ``{"progress": TEXT}`` may come before the last one,
which is ``{"result": …}`` or ``{"error": TEXT, "status": N}`` with the exit status that the error
is worth: 2 for a ToolstackError, 1 for a HostFailure. One request at a time for each connection.
"""

from __future__ import annotations

import json
import os
import select
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.toolstack.children import Loop
from tools.toolstack.errors import HostFailure, ToolstackError

__all__ = ["ControlServer", "Request", "ask"]

LONGEST_REQUEST = 1 << 16
LONGEST_ANSWER = 1 << 22
MOST_CLIENTS = 64
BACKLOG = 64
USER, HOST = 2, 1


class Request:
    """One request. ``command``: its name; ``arguments``: the rest. Answered once."""

    def __init__(self, client: _Client, message: dict[str, Any]) -> None:
        self._client = client
        self.arguments = message
        self.command = str(message.get("command"))

    def progress(self, text: str) -> None:
        """Tell the asker how far it is."""
        self._client.send({"progress": text})

    def done(self, result: Any = None) -> None:
        """The request was carried out."""
        self._client.send({"result": result})

    def failed(self, error: Exception) -> None:
        """The request was not carried out."""
        status = USER if isinstance(error, ToolstackError) else HOST
        self._client.send({"error": str(error), "status": status})


class ControlServer:
    """The keeper's end: ``handle`` gets each request, on the loop's thread.

    HostFailure: the socket cannot be made at ``path``.
    """

    def __init__(self, loop: Loop, path: Path, handle: Callable[[Request], object]) -> None:
        self._loop, self._path, self._handle = loop, path, handle
        self._clients: set[_Client] = set()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.setblocking(False)
        try:
            self._listener.bind(str(path))
            self._listener.listen(BACKLOG)
        except OSError as error:
            self._listener.close()
            raise HostFailure(f"bind {path}: {error.strerror}") from None
        loop.add(self._listener.fileno(), select.EPOLLIN, self._accept)

    def _accept(self, events: int) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        if len(self._clients) >= MOST_CLIENTS:
            connection.close()
            return
        connection.setblocking(False)
        client = _Client(connection, self._close)
        self._clients.add(client)
        self._loop.add(connection.fileno(), select.EPOLLIN, lambda _: self._read(client))

    def _read(self, client: _Client) -> None:
        line = client.read()
        if line is None:
            return
        try:
            message = json.loads(line)
            if not isinstance(message, dict):
                raise ValueError("no object")
        except (ValueError, RecursionError):
            self._close(client)
            return
        self._handle(Request(client, message))

    def _close(self, client: _Client) -> None:
        if client in self._clients:
            self._clients.remove(client)
            self._loop.remove(client.connection.fileno())
            client.connection.close()

    def close(self) -> None:
        """No more requests; the socket goes."""
        for client in list(self._clients):
            self._close(client)
        self._loop.remove(self._listener.fileno())
        self._listener.close()
        self._path.unlink(missing_ok=True)


class _Client:
    """Somebody who is connected. ``gone`` is called when nothing more can be said to them."""

    def __init__(self, connection: socket.socket, gone: Callable[[_Client], object]) -> None:
        self.connection = connection
        self._gone = gone
        self._input = bytearray()

    def read(self) -> bytes | None:
        """The line that is complete now, if one is."""
        try:
            data = self.connection.recv(LONGEST_REQUEST)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        self._input += data
        if not data or len(self._input) > LONGEST_REQUEST:
            self._gone(self)
            return None
        line, end, rest = self._input.partition(b"\n")
        if not end:
            return None
        self._input = rest
        return bytes(line)

    def send(self, message: dict[str, Any]) -> None:
        """Say something; who does not listen is let go."""
        if self.connection.fileno() < 0:
            return
        data = json.dumps(message).encode() + b"\n"
        try:
            if self.connection.send(data) == len(data):
                return
        except OSError:
            pass
        self._gone(self)


def ask(
    control: Path,
    command: str,
    /,
    *,
    progress: Callable[[str], object] | None = None,
    timeout: float | None = 60.0,
    **arguments: Any,
) -> Any:
    """Ask the keeper at ``control`` and give its result; ``timeout``: seconds between two lines.

    ToolstackError, HostFailure: what the keeper says; HostFailure also when it does not answer.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(str(control))
            connection.sendall(json.dumps({"command": command, **arguments}).encode() + b"\n")
            with connection.makefile("rb") as stream:
                return _result(stream, progress)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else "no answer in time"
            raise HostFailure(f"{command}: the keeper of the domain: {reason}") from None


def _result(stream: Any, progress: Callable[[str], object] | None) -> Any:
    while True:
        line = stream.readline(LONGEST_ANSWER)
        if not line:
            raise HostFailure("the keeper of the domain has ended")
        message = json.loads(line)
        if "progress" in message:
            if progress is not None:
                progress(message["progress"])
        elif "error" in message:
            kind = ToolstackError if message["status"] == USER else HostFailure
            raise kind(message["error"])
        else:
            return message["result"]
