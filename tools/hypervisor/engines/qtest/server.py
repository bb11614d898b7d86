"""The stream on which a qtest client sends requests: lines in, lines out, in order."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, TextIO

from ...errors import DomainEnded
from .words import LONGEST_BLOCK

if TYPE_CHECKING:
    from .engine import QtestEngine

__all__ = ["QtestServer"]

READ_BYTES = 1 << 16
LONGEST_LINE = 2 * LONGEST_BLOCK + 256
"""Bytes of one request; a client that sends more without a line end is left."""
SEND_BYTES = 1 << 16
"""Bytes of answers that may wait while requests that have arrived are done."""


class QtestServer:
    """Serves one connected stream socket. ``log``: where the exchange is written, as QEMU does."""

    def __init__(
        self, engine: QtestEngine, connection: socket.socket, log: TextIO | None = None
    ) -> None:
        self._engine = engine
        self._connection = connection
        self._log = log

    def serve(self) -> None:
        """Answer until the client goes. DomainEnded: the domain did before."""
        pending = bytearray()
        while True:
            try:
                data = self._connection.recv(READ_BYTES)
            except ConnectionError:
                return
            if not data:
                return
            pending += data
            end = data.rfind(b"\n")
            if end < 0:
                if len(pending) > LONGEST_LINE:
                    return
                continue
            whole = len(pending) - len(data) + end
            lines = bytes(pending[:whole]).split(b"\n")
            del pending[: whole + 1]
            if not self._answer(lines):
                return

    def _answer(self, lines: list[bytes]) -> bool:
        """Do all of ``lines``; False when the client takes no answers any more."""
        out: list[str] = []
        length = 0
        answer = self._engine.answer
        for line in lines:
            if self._log is not None:
                self._log.write(f"[R] {line.decode('latin-1')}\n")
            try:
                text = answer(line)
            except DomainEnded:
                # What ended the guest was an access of the client, who waits for its answer.
                self._send([*out, "OK 0x0\n"])
                raise
            if self._log is not None:
                self._log.write(f"[S] {text}")
            out.append(text)
            length += len(text)
            if length > SEND_BYTES:
                if not self._send(out):
                    return False
                length = 0
        return self._send(out)

    def _send(self, out: list[str]) -> bool:
        try:
            self._connection.sendall("".join(out).encode())
        except ConnectionError:
            return False
        out.clear()
        return True
