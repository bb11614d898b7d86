"""How virtual time moves: the hypervisor's timers and the emulators' deadlines, each when due."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .clock import VirtualClock

if TYPE_CHECKING:
    from .domain import Domain

__all__ = ["step"]

STEPS_AT_ONE_TIME = 10_000
"""A deadline that is past again and again is an emulator's error."""


def step(domain: Domain, length: int | None) -> int:
    """Let ``length`` nanoseconds pass for a domain, or as many as until the next deadline.

    Called without the domain's lock: emulators may make calls of their own meanwhile. Gives the
    time afterwards, which is the time before if nothing waits for any. TypeError: the domain's
    clock is not virtual. An emulator whose deadline does not move on crashes the domain.
    """
    clock = domain.clock
    if not isinstance(clock, VirtualClock):
        raise TypeError("only a virtual clock can be stepped")
    target = None if length is None else clock.now() + length
    deadlines = _ask(domain, clock.now())
    repeats = 0
    while True:
        with domain.lock:
            own = clock.next_deadline()
        soonest = min([*deadlines, *([] if own is None else [own])], default=None)
        if target is None:
            if soonest is None:
                return clock.now()
            target = max(soonest, clock.now())
        if soonest is None or soonest > target:
            break
        repeats = repeats + 1 if soonest <= clock.now() else 0
        if repeats > STEPS_AT_ONE_TIME:
            domain.crash(f"a deadline at {soonest} ns does not move on")
            break
        deadlines = _advance(domain, clock, soonest)
    if target > clock.now():
        _advance(domain, clock, target)
    return clock.now()


def _advance(domain: Domain, clock: VirtualClock, target: int) -> list[int]:
    with domain.lock, domain.announcing_later():
        clock.advance_to(target)
    domain.announce()
    return _ask(domain, clock.now())


def _ask(domain: Domain, now: int) -> list[int]:
    """The deadlines of the domain's emulators, after they did what is due at ``now``."""
    with domain.lock:
        connections = list(domain.connections)
    asked = [connection.ask_clock(now) for connection in connections]
    return [deadline for deadline in asked if deadline is not None]
