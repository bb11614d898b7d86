"""How a guest is created: a process of its own for the keeper, which outlives the caller.

As xl does, the process is forked, which shares all that is loaded already. Whoever creates a guest
waits until it runs, or is told why it does not.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from tools.toolstack.errors import HostFailure, ToolstackError

from .keeper import Keeper
from .places import Places
from .plan import Plan

__all__ = ["create", "create_here"]


def create(places: Places, plan: Plan) -> int:
    """Create a guest in a process of its own; gives its domid when it runs.

    The caller may have no threads. ToolstackError, HostFailure: there is no guest.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        pid = os.fork()
    except OSError as error:
        os.close(reader)
        os.close(writer)
        raise HostFailure(f"fork: {error.strerror}") from None
    if pid == 0:
        os.close(reader)
        _keep(places, plan, writer)
    os.close(writer)
    try:
        with open(reader, encoding="utf-8") as stream:
            for line in stream:
                message = json.loads(line)
                if "error" in message:
                    raise (ToolstackError if message["status"] == 2 else HostFailure)(
                        message["error"]
                    )
                return int(message["result"])
    finally:
        # The first of two forks has ended by now, or is about to.
        os.waitpid(pid, 0)
    raise HostFailure(f"the keeper of {plan.config.name} ended before the guest ran")


def create_here(places: Places, plan: Plan, started: Callable[[int], object]) -> None:
    """Create a guest in this process, and return when it is gone; ``started`` gets its domid."""
    keeper = Keeper(places, plan)
    try:
        started(keeper.start())
        keeper.run()
    finally:
        keeper.close()


def _keep(places: Places, plan: Plan, writer: int) -> None:
    """In the child: become nobody's child, and keep the guest to its end."""
    status = 1
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            os.dup2(null, fd)
        if null > 2:
            os.close(null)
        with open(writer, "w", encoding="utf-8") as stream:
            _run(places, plan, stream)
        status = 0
    finally:
        os._exit(status)


def _run(places: Places, plan: Plan, stream: Any) -> None:
    def tell(message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError, ValueError):
            stream.write(json.dumps(message) + "\n")
            stream.flush()

    def started(domid: int) -> None:
        tell({"result": domid})
        stream.close()

    try:
        create_here(places, plan, started)
    except ToolstackError as error:
        tell({"error": str(error), "status": 2})
    except HostFailure as error:
        tell({"error": str(error), "status": 1})
    except BaseException as error:
        line = "".join(traceback.format_exception_only(error)).strip()
        tell({"error": f"the keeper failed: {line}", "status": 1})
        raise
