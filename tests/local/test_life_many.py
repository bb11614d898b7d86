"""Many guests at once on one host: each lives its life, and nothing of any is left behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .life_host import LifeHost

GUESTS = 50
AT_ONE_TIME = 4
"""Commands; what they start runs all the time."""
UNCOLLECTED = 16
"""Descriptors of device models that are gone, until the interpreter collects what held them."""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[LifeHost]:
    host = LifeHost(tmp_path)
    yield host
    host.close()


def wait_more(host: LifeHost, domid: int) -> None:
    said = len(host.lines(domid))
    host.wait(f"domain {domid} stands still", lambda: len(host.lines(domid)) > said)


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_fifty_guests_are_created_reset_and_destroyed_and_leave_nothing(host: LifeHost) -> None:
    kernel = host.guest("idles")
    names = [f"guest{number}" for number in range(GUESTS)]
    with ThreadPoolExecutor(AT_ONE_TIME) as pool:
        domids = list(pool.map(lambda name: host.create(host.config(name, kernel)), names))
        assert len(set(domids)) == GUESTS
        for domid in domids:
            host.wait_line(domid, "GUEST 1")
        rows = host.ioreqd("list").stdout.splitlines()
        assert len(rows) == GUESTS + 1
        before = {name: host.info(name) for name in names}
        files = {name: open_files(row["pid"]) for name, row in before.items()}
        list(pool.map(lambda name: host.ioreqd("soft-reset", name), names))
        for domid in domids:
            wait_more(host, domid)
        for name in names:
            row = host.info(name)
            assert row["state"] == "r-----"
            assert row["device_model"] != before[name]["device_model"]
            assert open_files(row["pid"]) <= files[name] + UNCOLLECTED
        list(pool.map(lambda name: host.ioreqd("destroy", name), names))
    assert host.ioreqd("list").stdout.splitlines() == rows[:1]
    host.wait_nothing_left()
