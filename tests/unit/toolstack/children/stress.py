"""Many children with random ends in one owner mode; a program whose output is one JSON object.

Beside the context's children there are strangers: an application's, which its own part reaps where
the mode says so.
"""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import sys
from collections import Counter

from tools.toolstack.children import Answer, ChildProcesses, Hooks, Loop, Owner

ALIVE = 64
STRANGERS_OF = 10
WARM_UP = 500
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
OTHERS = (signal.SIGTERM, signal.SIGUSR1)


def application_handler(number: int, frame: object) -> None:
    """An application's, which must stand where it stood."""


class Stress:
    def __init__(self, owner: Owner, seed: int) -> None:
        self.owner = owner
        self.random = random.Random(seed)
        self.loop = Loop()
        self.trouble: list[str] = []
        self.expected: dict[int, int] = {}
        self.calls: Counter[str] = Counter()
        self.strangers: dict[int, int] = {}
        self.waiting: list[int] = []
        mainloop = owner is Owner.MAINLOOP
        self.children = ChildProcesses(
            self.loop,
            warn=self.trouble.append,
            disaster=self.trouble.append,
            hooks=Hooks(owner, reaped_callback=None if mainloop else self.stranger_reaped),
        )

    def died(self, pid: int, status: int) -> None:
        self.calls["own"] += 1
        if self.expected.pop(pid, None) != status:
            self.trouble.append(f"{pid}: {status}")

    def stranger_reaped(self, pid: int, status: int) -> int:
        if self.strangers.pop(pid, None) != status:
            return Answer.UNKNOWN_CHILD
        self.calls["strangers"] += 1
        return Answer.KNOWN

    def start(self) -> None:
        """One more child, which exits, kills itself, or waits to be killed; at times a stranger."""
        kind, code = self.random.randrange(3), self.random.randrange(256)
        number = self.random.choice(SIGNALS)

        def run() -> int:
            if kind == 1:
                os.kill(os.getpid(), number)
            while kind == 2:
                signal.pause()
            return code

        pid = self.children.start(run, self.died).pid
        self.expected[pid] = number if kind else code << 8
        if kind == 2:
            self.waiting.append(pid)
            self.random.shuffle(self.waiting)
        if not self.random.randrange(STRANGERS_OF):
            self.start_stranger(code)
        while len(self.waiting) > ALIVE // 2:
            self.kill(self.waiting.pop())

    def start_stranger(self, code: int) -> None:
        pid = os.fork()
        if pid == 0:
            os._exit(code)
        self.strangers[pid] = code << 8

    def kill(self, pid: int) -> None:
        os.kill(pid, self.expected[pid])

    def serve(self, most: int) -> None:
        """Serves until no more than ``most`` children are there."""
        while len(self.children) > most:
            if self.owner is Owner.MAINLOOP:
                self.reap_as_application()
            else:
                self.loop.step()

    def reap_as_application(self) -> None:
        pid, status = os.waitpid(-1, 0)
        known = self.strangers.get(pid) == status
        answer = self.children.reaped(pid, status)
        if (answer is Answer.UNKNOWN_CHILD) != known:
            self.trouble.append(f"{pid}: {answer!r}")
        if known:
            self.stranger_reaped(pid, status)

    def run(self, count: int) -> None:
        for _ in range(count):
            self.start()
            self.serve(ALIVE)
        while self.waiting:
            self.kill(self.waiting.pop())
        self.serve(0)
        # What a mode leaves to the application, or leaves with the last child of its own.
        for pid in list(self.strangers):
            if self.owner is not Owner.LIBXL_ALWAYS:
                self.stranger_reaped(*os.waitpid(pid, 0))
        while self.strangers:
            self.loop.step()


def facts() -> dict[str, object]:
    """What has to be the same before and after."""
    with open("/proc/self/status") as file:
        lines = dict(line.split(":\t", 1) for line in file)
    return {
        "handler": repr(signal.getsignal(signal.SIGCHLD)),
        "others": repr([signal.getsignal(one) for one in OTHERS]),
        "signals": [lines[key].strip() for key in ("SigBlk", "SigIgn", "SigCgt")],
        "descriptors": sorted(os.listdir("/proc/self/fd")),
    }


def resident() -> int:
    """Private memory in KiB."""
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Private_"))


def blocks() -> int:
    gc.collect()
    return sys.getallocatedblocks()


def main(name: str, count: int, seed: int) -> dict[str, object]:
    owner = Owner(name)
    signal.signal(signal.SIGUSR1, application_handler)
    if owner is Owner.MAINLOOP:
        signal.signal(signal.SIGCHLD, application_handler)
    stress = Stress(owner, seed)
    stress.run(WARM_UP)
    stress.children.close()
    stress.loop.close()
    before, blocks_before, resident_before = facts(), blocks(), resident()
    stress = Stress(owner, seed + 1)
    stress.run(count)
    stress.children.close()
    stress.loop.close()
    calls, trouble, left = dict(stress.calls), stress.trouble, len(stress.expected)
    del stress
    try:
        zombies = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        zombies = None
    return {
        "calls": calls,
        "trouble": trouble[:10],
        "left": left,
        "zombies": zombies,
        "before": before,
        "after": facts(),
        "blocks": blocks() - blocks_before,
        "resident": resident() - resident_before,
    }


if __name__ == "__main__":
    json.dump(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])), sys.stdout)
