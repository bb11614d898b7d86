"""Devices beside a domain's own device model: only their ranges, their own state, their own end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dm.control.attachment import LOOK_INTERVAL, Attachment
from dm.errors import ConfigError
from dm.server.loop import Loop
from tests.unit.server.fake_xen import READ, Domain, FakeStore, FakeXen

DEVICE = """
from dm import Bank, Device, IsaLine, PortWindow, Register

class Ports(Bank, size=4):
    value = Register.at(0)

class Mine(Device):
    ports = PortWindow(Ports, at=0x5000)
    line = IsaLine(5)

    @line.level
    def level(self):
        return self.ports.value.value & 1
"""
HOME = "/local/domain/5"


class World:
    """A domain, and what is attached to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "run"
        self.folder.mkdir()
        self.file = folder / "mine.py"
        self.file.write_text(DEVICE)
        self.domain = Domain(vcpus=1)
        self.nodes = FakeStore()
        self.nodes.write(HOME, "")
        self.now = 0
        self.attachments: list[Attachment] = []

    def attach(self) -> Attachment:
        """Another process that attaches the device."""
        xen = FakeXen(self.domain)
        xen.folder = self.folder
        xen.store = lambda: self.nodes  # type: ignore[method-assign]
        loop = Loop(now=lambda: self.now)
        made = Attachment(loop, xen, [(f"{self.file}:Mine", {})])
        self.attachments.append(made)
        made.open()
        return made

    def ask(self, attachment: Attachment, data: int = 0, flags: int = 0) -> int | None:
        """A 32-bit access to its port."""
        server = self.domain.servers[attachment.server.id]
        self.domain.send(server, address=0x5000, data=data, size=4, flags=flags)
        attachment.server.serve(0)
        return self.domain.answer(server)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    for attachment in made.attachments:
        attachment.close()


def test_it_claims_its_devices_ranges_and_no_others(world: World) -> None:
    attachment = world.attach()
    claimed = world.domain.servers[attachment.server.id].ranges.claimed
    assert claimed == {0: [(0x5000, 0x5003)], 1: [], 2: []}
    world.ask(attachment, data=0x12345678)
    assert world.ask(attachment, flags=READ) == 0x12345678


def test_its_end_lowers_its_lines_and_leaves_nothing(world: World) -> None:
    attachment = world.attach()
    world.ask(attachment, data=1)
    assert world.domain.platform.isa[5] == 1
    attachment.close()
    assert world.domain.platform.isa[5] == 0
    assert world.domain.servers == {}
    assert world.domain.punishments == []
    assert list(world.folder.iterdir()) == []


def test_a_killed_ones_successor_goes_on_where_it_was(world: World) -> None:
    first = world.attach()
    world.ask(first, data=0x42)
    hypervisor = first._hypervisor
    assert isinstance(hypervisor, FakeXen)
    world.domain.kill(hypervisor)
    world.attachments.clear()
    second = world.attach()
    assert world.ask(second, flags=READ) == 0x42
    assert list(world.domain.servers) == [second.server.id]


def test_it_ends_with_its_domain(world: World) -> None:
    attachment = world.attach()
    world.now += LOOK_INTERVAL
    attachment.service.turn()
    assert not attachment.ended
    world.nodes.remove(HOME)
    world.now += LOOK_INTERVAL
    attachment.service.turn()
    assert attachment.ended


def test_a_device_that_does_not_exist_is_named(world: World) -> None:
    with pytest.raises(ConfigError, match="no-such-device"):
        Attachment(Loop(), FakeXen(world.domain), [("no-such-device", {})])
