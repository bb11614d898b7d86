"""What it costs to reap children through the event source, against a bare os.waitpid loop.

Both sides find the same number of children that have died already; both take turns, and the
fastest turn counts. Children are spawned, not forked, so that preparing them is quick.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from time import perf_counter_ns

from tools.bench.figures import Figure, Table
from tools.toolstack.children import ChildProcesses, Hooks, Loop, Owner

__all__ = ["measure"]

ROUNDS = 8
CHILDREN = 200
LIMIT = 2.0
PROGRAM = "/bin/true"

Turn = Callable[[], float]


def measure(rounds: int = ROUNDS) -> Table:
    """Measure for some seconds, on the main thread of a process without other children."""
    turns: dict[str, Turn] = {"": _bare} | {one.value: _turn(one) for one in Owner}
    best = dict.fromkeys(turns, float("inf"))
    for _ in range(rounds):
        for name, turn in turns.items():
            best[name] = min(best[name], turn())
    bare = best.pop("")
    figures = [
        Figure(f"one child, owner {name}", "µs", [bare], [value], LIMIT)
        for name, value in best.items()
    ]
    notes = [f"The fastest of {rounds} turns of {CHILDREN} children that have died already."]
    return Table("Reaping of children", "os.waitpid", "ioreqd", figures, notes)


def _bare() -> float:
    """Microseconds for one child in a loop of os.waitpid."""
    statuses: dict[int, int] = {}
    _await_all([_spawn() for _ in range(CHILDREN)])
    start = perf_counter_ns()
    while len(statuses) < CHILDREN:
        pid, status = os.waitpid(-1, os.WNOHANG)
        statuses[pid] = status
    return _each(start)


def _turn(owner: Owner) -> Turn:
    return lambda: _ours(owner)


def _ours(owner: Owner) -> float:
    """Microseconds for one child, from the wake-up of the loop to the last callback."""
    statuses: dict[int, int] = {}
    trouble: list[str] = []
    loop = Loop()
    children = ChildProcesses(
        loop,
        warn=trouble.append,
        disaster=trouble.append,
        hooks=Hooks(owner, fork_replacement=_spawn),
    )
    try:
        _await_all([children.start(_never, statuses.__setitem__).pid for _ in range(CHILDREN)])
        start = perf_counter_ns()
        if owner is Owner.MAINLOOP:
            while len(children):
                children.reaped(*os.waitpid(-1, os.WNOHANG))
        else:
            loop.run_until(lambda: not len(children))
        time = _each(start)
    finally:
        children.close()
        loop.close()
    if trouble or len(statuses) != CHILDREN:
        raise AssertionError(f"{len(statuses)} callbacks for {CHILDREN} children: {trouble}")
    return time


def _spawn() -> int:
    """As os.fork in the parent; the child becomes another program before it could return."""
    return os.posix_spawn(PROGRAM, [PROGRAM], {}, setsigdef=[signal.SIGCHLD])


def _never() -> int:
    raise AssertionError("the child is another program")


def _await_all(pids: list[int]) -> None:
    """Wait until all have died, leaving them to be reaped."""
    for pid in pids:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def _each(start: int) -> float:
    return (perf_counter_ns() - start) / CHILDREN / 1000
