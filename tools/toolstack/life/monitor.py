"""The monitor of a device model, asked as libxl asks it: a connection per operation, then closed.

Facts: contract §2.3, §3.1, §3.2: messages end in CR LF, the answer repeats the request's id, events
and answers with other ids are passed over here.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from tools.toolstack.errors import HostFailure

__all__ = ["Monitor"]

PATIENCE = 10.0
"""Seconds for one answer (LIBXL_QMP_CMD_TIMEOUT; libxl's save path has no limit at all)."""
LONGEST_MESSAGE = 1 << 20
FIRST_ID = 0x786C7100


class Monitor:
    """The monitor that listens at ``path``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def ask(self, *requests: tuple[str, dict[str, Any]]) -> list[Any]:
        """Make requests over one connection, and give what each returned.

        HostFailure: no connection, no answer in time, or an error, which is in the message.
        """
        name = "qmp_capabilities"
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(PATIENCE)
                connection.connect(str(self._path))
                with connection.makefile("rb") as stream:
                    self._read(stream)
                    answers = []
                    for number, one in enumerate((("qmp_capabilities", {}), *requests)):
                        name, arguments = one
                        request = {"execute": name, "id": FIRST_ID + number}
                        if arguments:
                            request["arguments"] = arguments
                        connection.sendall(json.dumps(request).encode() + b"\r\n")
                        answers.append(self._answer(stream, FIRST_ID + number))
                    return answers[1:]
        except (OSError, ValueError) as error:
            raise HostFailure(f"device model, {name}: {error}") from None

    def _answer(self, stream: Any, number: int) -> Any:
        while True:
            message = self._read(stream)
            if message.get("id") != number:
                continue
            if "error" in message:
                raise ValueError(str(message["error"].get("desc")))
            if "return" in message:
                return message["return"]

    def _read(self, stream: Any) -> dict[str, Any]:
        line = stream.readline(LONGEST_MESSAGE)
        if not line:
            raise ValueError("the connection ended")
        message = json.loads(line)
        if not isinstance(message, dict):
            raise ValueError("the answer is no object")
        return message
