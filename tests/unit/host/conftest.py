from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from dm.control.argv_chardev import from_chardev, from_short
from dm.host.chardev import Chardev, ChardevSet
from tests.unit.loop import MiniLoop


@pytest.fixture
def loop() -> Iterator[MiniLoop]:
    one = MiniLoop()
    yield one
    one.close()


class Device:
    """The guest's side of a back end: collects what comes, within its room."""

    def __init__(self, chardev: Chardev, room: int = 1 << 20) -> None:
        self.got = bytearray()
        self.room = room
        self.events: list[bool] = []
        self.largest = 0
        self.writable = 0
        chardev.connect(self._receive, lambda: self.room, self.events.append, self._writable)

    def _receive(self, data: bytes) -> None:
        assert 0 < len(data) <= self.room
        self.largest = max(self.largest, len(data))
        self.room -= len(data)
        self.got += data

    def _writable(self) -> None:
        self.writable += 1


@pytest.fixture
def chardevs(loop: MiniLoop) -> Iterator[ChardevSet]:
    opened = ChardevSet(loop)
    yield opened
    opened.close()


@pytest.fixture
def serial(chardevs: ChardevSet) -> Callable[[str], Chardev]:
    """Opens what `-serial TEXT` names."""

    def open_serial(text: str) -> Chardev:
        spec = from_short("-serial", f"serial{len(chardevs.entries())}", text, [])
        assert spec is not None
        return chardevs.open(spec)

    return open_serial


@pytest.fixture
def named(chardevs: ChardevSet) -> Callable[[str], Chardev]:
    """Opens what `-chardev TEXT` names."""
    return lambda text: chardevs.open(from_chardev(text, []))
