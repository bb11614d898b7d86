"""The device model of one guest as a whole, against a fake Xen: orders, run states, its end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dm.control.argv import parse
from dm.control.machine_monitor import MachineMonitor
from dm.control.process import DeviceModel
from dm.errors import ConfigError, HostError
from dm.server.loop import Loop
from tests.unit.server.fake_xen import READ, Domain, FakeServer, FakeStore, FakeXen

CMOS_INDEX, CMOS_DATA, SCRATCH = 0x70, 0x71, 0x40

USER_DEVICE = """
from dm import Bank, Device, Option, PortWindow, Register

class Ports(Bank, size=4):
    value = Register.at(0)

class Mine(Device):
    start = Option(int, 7, "initial value")
    ports = PortWindow(Ports, at=0x5000)

    def on_reset(self):
        self.ports.value.value = self.start
"""


class Xen(FakeXen):
    """A fake Xen with a run-time directory and a xenstore that the test can look into."""

    def __init__(self, domain: Domain, folder: Path) -> None:
        super().__init__(domain)
        self.folder: Path = folder
        self.nodes = FakeStore()

    def run_file(self, suffix: str) -> str | None:
        return str(self.folder / f"ioreqd-{self.domid}.{suffix}")

    def store(self) -> FakeStore:
        self.domain.journal.append("store")
        return self.nodes


class World:
    """A domain and the device models that serve it one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.domain = Domain(vcpus=2)
        self.models: list[DeviceModel] = []

    def start(self, *arguments: str, opened: bool = True) -> DeviceModel:
        """A device model with libxl's usual options and ``arguments``."""
        options = parse(["-xen-domid", "5", "-machine", "xenfv", "-m", "32", *arguments])
        model = DeviceModel(options, Loop(), Xen(self.domain, self.folder))
        self.models.append(model)
        if opened:
            model.open()
        return model

    @property
    def server(self) -> FakeServer:
        """The domain's only ioreq server."""
        (server,) = self.domain.servers.values()
        return server

    def ask(self, model: DeviceModel, address: int, *, data: int = 0, flags: int = 0) -> int | None:
        """A byte-wide port access; the answer, or None if there is none after one turn."""
        self.domain.send(self.server, address=address, data=data, flags=flags)
        xen(model).pump()
        model.service.turn()
        return self.domain.answer(self.server)

    def poke(self, model: DeviceModel, value: int) -> None:
        """Store ``value`` in a CMOS byte."""
        self.ask(model, CMOS_INDEX, data=SCRATCH)
        self.ask(model, CMOS_DATA, data=value)

    def peek(self, model: DeviceModel) -> int | None:
        """The CMOS byte, as the guest reads it without writing the index again."""
        answer = self.ask(model, CMOS_DATA, flags=READ)
        return None if answer is None else answer & 0xFF


def xen(model: DeviceModel) -> Xen:
    assert isinstance(model.hypervisor, Xen)
    return model.hypervisor


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    for model in made.models:
        try:
            model.close()
        except OSError:
            continue


def test_it_says_that_it_runs_when_it_can_serve(world: World) -> None:
    model = world.start()
    journal = world.domain.journal
    assert xen(model).nodes.nodes == {"device-model/5/state": "running"}
    assert journal.index("map 0") < journal.index("enable 0") < journal.index("store")
    assert world.domain.punishments == []
    world.poke(model, 0x5A)
    assert world.peek(model) == 0x5A


def test_with_s_it_waits_for_cont_and_says_nothing(world: World) -> None:
    model = world.start("-S")
    assert model.run_state == "prelaunch"
    assert xen(model).nodes.nodes == {}
    assert world.ask(model, CMOS_INDEX, flags=READ) is None
    model.cont()
    assert world.domain.answer(world.server) == 0xFF


def test_stopped_it_holds_requests_until_cont(world: World) -> None:
    model = world.start()
    model.stop()
    model.stop()
    before = model.machine.clock.now()
    assert world.ask(model, CMOS_INDEX, flags=READ) is None
    assert model.machine.clock.now() == before
    model.cont()
    assert world.domain.answer(world.server) == 0xFF
    assert world.domain.punishments == []


def test_what_was_saved_is_what_comes_in(world: World, tmp_path: Path) -> None:
    model = world.start()
    world.poke(model, 0x77)
    model.stop()
    file = tmp_path / "state"
    with file.open("wb") as out:
        MachineMonitor(model).save(out.fileno(), live=False)
    model.close()
    fd = os.open(file, os.O_RDONLY)
    successor = world.start("-incoming", f"fd:{fd}")
    assert successor.run_state == "running"
    assert world.peek(successor) == 0x77


def test_restricted_it_is_paused_after_it_has_read_its_state(world: World, tmp_path: Path) -> None:
    model = world.start()
    (tmp_path / "state").write_bytes(model.save())
    model.close()
    fd = os.open(tmp_path / "state", os.O_RDONLY)
    assert world.start("-S", "-incoming", f"fd:{fd}").run_state == "paused"


def test_damaged_state_ends_it_and_leaves_no_server(world: World, tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b"IOREQDST and then nothing of the kind")
    fd = os.open(tmp_path / "state", os.O_RDONLY)
    model = world.start("-incoming", f"fd:{fd}", opened=False)
    with pytest.raises(ConfigError):
        model.open()
    model.close()
    assert world.domain.servers == {}


def test_state_is_not_replaced_while_it_runs(world: World) -> None:
    model = world.start()
    with pytest.raises(HostError, match="running"):
        model.load(b"")


def test_the_end_answers_everything_and_destroys_the_server(world: World) -> None:
    model = world.start()
    world.domain.send(world.server, vcpu=1, address=CMOS_INDEX, flags=READ)
    server = world.server
    model.close()
    assert world.domain.answer(server, 1) == 0xFF
    assert world.domain.servers == {}
    assert world.domain.punishments == []
    assert list(world.folder.iterdir()) == []


def test_a_killed_ones_successor_finds_every_register(world: World) -> None:
    model = world.start()
    world.poke(model, 0x42)
    world.domain.kill(xen(model))
    successor = world.start()
    assert successor.server.adopted
    assert world.peek(successor) == 0x42
    assert world.domain.punishments == []
    successor.close()
    assert list(world.folder.iterdir()) == []


def test_a_successor_answers_what_was_under_way(world: World) -> None:
    model = world.start()
    world.poke(model, 0x42)
    server = world.server
    world.domain.send(server, address=CMOS_DATA, flags=READ)
    world.domain.kill(xen(model))
    world.start()
    answer = world.domain.answer(server)
    assert answer is not None
    assert answer & 0xFF == 0x42


def test_a_file_of_another_layout_is_not_used(world: World, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(USER_DEVICE)
    model = world.start()
    world.poke(model, 0x42)
    world.domain.kill(xen(model))
    successor = world.start("-device", f"{tmp_path}/mine.py:Mine")
    world.ask(successor, CMOS_INDEX, data=SCRATCH)
    assert world.peek(successor) == 0


def test_a_file_without_a_server_is_an_earlier_domains(world: World) -> None:
    model = world.start()
    world.poke(model, 0x42)
    world.domain.kill(xen(model))
    world.domain.servers.clear()
    successor = world.start()
    assert not successor.server.adopted
    world.ask(successor, CMOS_INDEX, data=SCRATCH)
    assert world.peek(successor) == 0


def test_the_old_one_does_not_remove_the_new_ones_file(world: World) -> None:
    old, new = world.start(), world.start()
    old.close()
    assert [path.name for path in world.folder.iterdir()] == ["ioreqd-5.state"]
    new.close()
    assert list(world.folder.iterdir()) == []


def test_a_device_comes_from_a_users_file(world: World, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(USER_DEVICE)
    model = world.start("-device", f"{tmp_path}/mine.py:Mine,start=0x21,id=it")
    assert world.ask(model, 0x5000, flags=READ) == 0x21
    assert "it" in [device.name for device in model.machine.devices]


@pytest.mark.parametrize(
    ("text", "device", "reason"),
    [
        ("class Mine(", "Mine", "SyntaxError"),
        ("x = 1 / 0", "Mine", "ZeroDivisionError"),
        (USER_DEVICE, "Other", "Other"),
        ("Mine = 3", "Mine", "not a subclass"),
        (USER_DEVICE, "Mine,start=seven", "seven"),
        (USER_DEVICE, "Mine,pace=2", "no option 'pace'"),
        (USER_DEVICE.replace("0x5000", "0x70"), "Mine", "both want"),
    ],
)
def test_a_device_file_that_does_not_do_is_one_line(
    world: World, tmp_path: Path, text: str, device: str, reason: str
) -> None:
    (tmp_path / "mine.py").write_text(text)
    model = world.start("-device", f"{tmp_path}/mine.py:{device}", opened=False)
    with pytest.raises(ConfigError, match=reason) as caught:
        model.open()
    assert "\n" not in str(caught.value)


def test_what_is_not_modelled_is_a_warning(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.start("-device", "rtl8139,id=nic0", "-vnc", "127.0.0.1:0")
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "rtl8139" in caplog.text


def test_strict_makes_it_an_error(world: World) -> None:
    model = world.start("-machine", "xenfv,strict=on", "-device", "rtl8139", opened=False)
    with pytest.raises(ConfigError, match="rtl8139"):
        model.open()


def test_serial_ports_are_what_was_asked_for(world: World, tmp_path: Path) -> None:
    out = tmp_path / "serial"
    model = world.start("-serial", "none", "-serial", f"file:{out}")
    assert world.ask(model, 0x3F8 + 7, flags=READ) == 0xFF
    for byte in b"hi":
        world.ask(model, 0x2F8, data=byte)
    assert out.read_bytes() == b"hi"


def test_a_chardev_that_a_device_cannot_take_is_an_error(world: World, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(USER_DEVICE)
    device = f"{tmp_path}/mine.py:Mine,chardev=c0"
    model = world.start("-chardev", "null,id=c0", "-device", device, opened=False)
    with pytest.raises(ConfigError, match="takes no chardev"):
        model.open()


def test_a_plugged_vcpu_is_online(world: World) -> None:
    model = world.start("-smp", "1,maxcpus=2")
    monitor = MachineMonitor(model)
    assert monitor.online_vcpus() == [0]
    monitor.plug_vcpu(1)
    assert monitor.online_vcpus() == [0, 1]
    assert world.ask(model, 0xAF00, flags=READ) == 0b11


def test_every_function_has_an_identifier_for_libxl(world: World) -> None:
    functions = MachineMonitor(world.start()).pci_functions()
    places = [(function.slot, function.function) for function in functions]
    assert places[:3] == [(0, 0), (1, 0), (1, 3)]
    assert all(function.qdev_id for function in functions)


def test_a_guest_that_sleeps_can_be_woken(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    model = world.start()
    with pytest.raises(HostError, match="not in suspended state"):
        model.wake_up()
    woken: list[bool] = []
    monkeypatch.setattr(xen(model), "wake", lambda: woken.append(True), raising=False)
    model.hypervisor.suspended = True
    world.poke(model, 0x42)
    model.wake_up()
    world.ask(model, CMOS_INDEX, data=0x0F)
    assert (woken, world.peek(model)) == ([True], 0xFE)
