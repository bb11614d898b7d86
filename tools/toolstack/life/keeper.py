"""The background process of a guest: it makes the domain, serves requests, and deals with its end.

As xl's own background process it stays with the guest over restarts and soft resets, and ends when
there is no domain left. One thread does all of it, one thing at a time, in its event loop; while a
step waits, what comes is put in a queue, so that no request sees a domain in the midst of a change.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from tools.toolstack.children import ChildProcesses, Hooks, Loop, Owner
from tools.toolstack.errors import HostFailure, ToolstackError
from tools.toolstack.xlcfg import GuestConfig

from .actions import REASONS, Follow, decide
from .control import ControlServer, Request
from .guest import Guest, Surroundings
from .journal import Journal
from .places import Place, Places
from .plan import Plan
from .requests import REQUESTS
from .soft_reset import soft_reset

__all__ = ["Keeper"]


LEAST_LIFE_NS = 10**9
"""From a domain's creation to its restart at least, so that one that ends at once for ever leaves
the host some time; xl always waits for two seconds."""


class Held:
    """A domain that is kept: the guest, and what says in the run directory that it is."""

    def __init__(self, guest: Guest, place: Place, alive: int) -> None:
        self.guest, self.place, self.alive = guest, place, alive
        self.made = 0
        """When it was made, by the loop's clock."""
        self.server: ControlServer | None = None
        self.death_seen = False


class Keeper:
    """Keeps what began as the guest of ``plan``. ``claimed``: its place, and the descriptor of it.

    Raises what `Guest.make` raises, after all is taken down again.
    """

    def __init__(self, places: Places, plan: Plan) -> None:
        self._places, self._plan = places, plan
        self._loop = Loop()
        self.journal = Journal(plan.logs, plan.config.name)
        self._children = ChildProcesses(
            self._loop,
            warn=self.journal.write,
            disaster=self.journal.write,
            hooks=Hooks(Owner.LIBXL_ALWAYS),
        )
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._loop.add(self._wake, select.EPOLLIN, lambda _: os.eventfd_read(self._wake))
        self._queue: deque[Callable[[], object]] = deque()
        self._held: list[Held] = []
        self._around = Surroundings(
            self._loop,
            self._children,
            plan.logs,
            plan.text,
            plan.engine,
            self.journal.write,
            self._changed,
        )

    def start(self) -> int:
        """Make the guest, as the plan has it; its domid. ToolstackError, HostFailure."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._signalled)
        held = self._make(self._plan.config, self._plan.uuid or uuid4())
        if not self._plan.paused:
            self._unpause(held)
        return held.place.domid

    def run(self) -> None:
        """Serve until no domain is left."""
        try:
            while self._held:
                self._turn()
        except Exception as error:
            self.journal.write(f"the keeper failed: {error!r}")
            raise

    def _turn(self) -> None:
        while self._queue:
            self._queue.popleft()()
        for held in list(self._held):
            self._look_at(held)
        if self._held and not self._queue:
            self._loop.step()

    def close(self) -> None:
        """End everything."""
        for held in list(self._held):
            self.drop(held)
        self._children.close()
        self._loop.remove(self._wake)
        os.close(self._wake)
        self._loop.close()
        self.journal.close()

    def _make(self, config: GuestConfig, uuid: UUID) -> Held:
        """A domain, paused, of the configuration."""
        place, alive = self._places.claim(config.name)
        try:
            guest = Guest(self._around, place, config, uuid)
        except BaseException:
            self._places.release(place, alive)
            raise
        held = Held(guest, place, alive)
        held.made = self._loop.now()
        self._held.append(held)
        try:
            guest.make(self._plan.take_saved())
            held.server = ControlServer(
                self._loop, place.control, lambda request: self._request(held, request)
            )
        except BaseException:
            self.drop(held)
            raise
        self.journal.write(f"domain {place.domid} is made")
        return held

    def _unpause(self, held: Held) -> None:
        try:
            held.guest.unpause()
        except BaseException:
            self.drop(held)
            raise

    def drop(self, held: Held) -> None:
        """Destroy a domain, and keep it no more."""
        if held in self._held:
            self._held.remove(held)
            if held.server is not None:
                held.server.close()
            held.guest.destroy()
            self._places.release(held.place, held.alive)
            self.journal.write(f"domain {held.place.domid} is destroyed")

    def _changed(self) -> None:
        """Some domain has ended; from any thread."""
        try:
            os.eventfd_write(self._wake, 1)
        except OSError:
            pass

    def _signalled(self, number: int, frame: object) -> None:
        self._queue.append(self._end_all)
        self._changed()

    def _end_all(self) -> None:
        for held in list(self._held):
            self.drop(held)

    def _request(self, held: Held, request: Request) -> None:
        if request.command == "info":
            request.done(self.info(held))
            return
        self._queue.append(lambda: self._perform(held, request))

    def _perform(self, held: Held, request: Request) -> None:
        perform = REQUESTS.get(request.command)
        try:
            if perform is None:
                raise ToolstackError(f"there is no request {request.command!r}")
            if held not in self._held:
                raise ToolstackError(f"domain {held.place.domid} is gone")
            request.done(perform(self, held, request))
        except (ToolstackError, HostFailure) as error:
            request.failed(error)
        if held.guest.ended:
            # After the answer, which goes through a socket that this closes.
            self.drop(held)

    def info(self, held: Held) -> dict[str, Any]:
        """What `ioreqd list` shows of a domain."""
        guest = held.guest
        reason = guest.domain.shutdown_reason
        return {
            "domid": guest.domid,
            "name": guest.config.name,
            "uuid": str(guest.uuid),
            "memory": guest.config.memory,
            "vcpus": len(guest.domain.vcpus),
            "state": guest.state(),
            "reason": None if reason is None else REASONS.get(reason, str(reason)),
            "seconds": guest.domain.clock.now() / 1e9,
            "pid": os.getpid(),
            "device_model": guest.emulator.pid,
            "engine": guest.engine.name if guest.engine is not None else "",
        }

    def _look_at(self, held: Held) -> None:
        """Deal with the end of a domain, if it has ended."""
        domain = held.guest.domain
        if domain.state not in ("shutdown", "crashed"):
            held.death_seen = False
            return
        if held.death_seen:
            return
        held.death_seen = True
        reason = domain.shutdown_reason or 0
        decision = decide(held.guest.config, reason)
        name = REASONS.get(reason, "unknown")
        self.journal.write(
            f"domain {domain.domid} has shut down, reason {reason} ({name})"
            + (f": {domain.crash_message}" if domain.crash_message else "")
        )
        self.journal.write(f"action: {decision.action}")
        if decision.core:
            self._dump(held)
        due = held.made + LEAST_LIFE_NS
        if decision.follow in RESTARTS and self._loop.now() < due:
            later = partial(self._queue.append, partial(self._follow, held, decision.follow))
            self._loop.call_at(due, later)
        else:
            self._follow(held, decision.follow)

    def _follow(self, held: Held, follow: Follow) -> None:
        if held not in self._held:
            return
        try:
            FOLLOWS[follow](self, held)
        except (ToolstackError, HostFailure) as error:
            self.journal.write(f"failed: {error}")

    def _dump(self, held: Held) -> None:
        from .core_file import write_core

        stamp = time.strftime("%Y-%m%d-%H%M%S")
        path = self._plan.dumps / f"{held.guest.config.name}-{stamp}-{held.place.domid}.core"
        try:
            write_core(path, held.guest)
        except HostFailure as error:
            # As with xl: a core that cannot be written does not hold up what follows.
            self.journal.write(f"no core: {error}")
        else:
            self.journal.write(f"core: {path}")

    def _follow_nothing(self, held: Held) -> None:
        pass

    def _restart(self, held: Held) -> None:
        guest = held.guest
        self.drop_and_make(held, guest.config, guest.uuid)

    def drop_and_make(self, held: Held, config: GuestConfig, uuid: UUID) -> None:
        """Another domain in the place of one. HostFailure, ToolstackError: there is none then."""
        self.drop(held)
        self._unpause(self._make(config, uuid))

    def _rename_restart(self, held: Held) -> None:
        guest = held.guest
        config, uuid = guest.config, guest.uuid
        name = f"{config.name}-{time.strftime('%Y%m%dT%H%MZ', time.gmtime())}"
        self._places.rename(held.place, name)
        guest.rename(name)
        self._unpause(self._make(config, uuid))

    def _soft_reset(self, held: Held) -> None:
        try:
            soft_reset(held.guest, asked=False)
        except (ToolstackError, HostFailure):
            self.drop(held)
            raise
        held.death_seen = False

    def shut_down(self, held: Held, reason: int) -> None:
        """Have the hypervisor shut a domain down."""
        held.guest.domain.shutdown(reason)


RESTARTS = (Follow.RESTART, Follow.RENAME_RESTART)
FOLLOWS: dict[Follow, Callable[[Keeper, Held], None]] = {
    Follow.NOTHING: Keeper._follow_nothing,
    Follow.DESTROY: Keeper.drop,
    Follow.RESTART: Keeper._restart,
    Follow.RENAME_RESTART: Keeper._rename_restart,
    Follow.SOFT_RESET: Keeper._soft_reset,
}
