"""`-observe` as a whole: the process with it, and the process without it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dm import ConfigError
from dm.control.argv import parse
from dm.control.argv_report import unmodelled
from dm.control.observation import Observation
from dm.machine.address_space import AddressSpaces
from dm.machine.bus import Bus
from dm.machine.fakes import FakeMemory, FakePlatform
from dm.machine.machine import Machine
from protocol.recording import RECORDING
from tests.unit.control.test_process import USER_DEVICE, World, xen
from tests.unit.server.fake_xen import READ


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    for model in made.models:
        try:
            model.close()
        except OSError:
            continue


def test_without_the_option_nothing_of_it_is_imported_and_nothing_is_in_the_way() -> None:
    program = (
        "import sys, dm.control.main, dm.control.process, dm.machine.machine, devices.xenfv;"
        "print(*[m for m in sys.modules if m.startswith('dm.observe.')],"
        " *[m for m in sys.modules if m in ('dm.control.observation', 'dm.control.reloading',"
        " 'dm.machine.reload', 'dm.host.inotify')])"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True, cwd="."
    )
    assert done.stdout.split() == ["dm.observe.log"]


def test_without_the_option_the_machine_is_a_plain_one(world: World) -> None:
    model = world.start()
    machine = model.machine
    assert (type(machine), type(machine.bus)) == (Machine, Bus)
    assert type(machine.spaces) is AddressSpaces
    assert not machine.slack


def test_a_trace_a_recording_and_suggestions_of_one_process(world: World, tmp_path: Path) -> None:
    trace, js, run, text = (tmp_path / name for name in ("t", "t.json", "run", "s.py"))
    model = world.start(
        "-observe",
        f"trace={trace},format=plain,device=cmos,record={run}",
        "-observe",
        f"trace={js}",
        "-observe",
        f"suggest={text}",
    )
    world.poke(model, 0x42)
    assert world.peek(model) == 0x42
    world.ask(model, 0x1234, flags=READ)
    model.close()
    world.models.clear()
    lines = trace.read_text().splitlines()
    assert [line.split()[:3] for line in lines[-3:]] == [
        ["cmos", "ports.index", "write8"],
        ["cmos", "ports.data", "write8"],
        ["cmos", "ports.data", "read8"],
    ]
    assert lines[-1].endswith("0x42")
    assert any(event["ph"] == "X" for event in json.loads(js.read_text()))
    recorded = RECORDING.parse(run.read_bytes())
    assert recorded.records[-1].data == b"\xff"
    assert "Ports1230" in text.read_text()


def test_standard_error_is_a_dash(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    model = world.start("-observe", "trace=-,format=plain,device=cmos,direction=read")
    world.peek(model)
    assert capfd.readouterr().err.startswith("cmos ports.data read8")


def test_time_and_text_are_the_default_and_json_is_perfettos(tmp_path: Path) -> None:
    records = [{"trace": str(tmp_path / "a")}, {"trace": str(tmp_path / "b.json")}]
    kinds = [type(sink).__name__ for sink in Observation(records)._sinks]
    assert kinds == ["TextTrace", "PerfettoTrace"]


def test_a_saved_device_file_is_reloaded_by_the_running_process(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(USER_DEVICE)
    model = world.start("-device", f"{path}:Mine,start=9", "-observe", "reload=on", "-S")
    model.cont()
    assert type(model.machine) is Machine
    assert world.ask(model, 0x5000, flags=READ) == 9
    world.ask(model, 0x5000, data=0x21)
    path.write_text(
        USER_DEVICE + "\n    @Ports.value.on_read\n    def double(self):\n"
        "        return 2 * self.ports.value.value\n"
    )
    model.service.turn()
    assert world.ask(model, 0x5000, flags=READ) == 0x42
    assert "goes on as the new Mine" in caplog.text
    path.write_text("class Mine(")
    model.service.turn()
    assert world.ask(model, 0x5000, flags=READ) == 0x42
    assert "mine.py:1: mine0 is as before: SyntaxError: '(' was never closed" in caplog.text


def test_a_successor_goes_on_with_the_reloaded_state(world: World, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(USER_DEVICE)
    words = ("-device", f"{path}:Mine", "-observe", "reload=on")
    first = world.start(*words)
    world.ask(first, 0x5000, data=0x21)
    path.write_text(
        USER_DEVICE.replace("size=4", "size=8").replace(
            "    value =", "    fresh = Register.at(4)\n    value ="
        )
    )
    first.service.turn()
    world.ask(first, 0x5004, data=0x33)
    world.domain.kill(xen(first))
    world.models.clear()
    second = world.start(*words)
    assert world.ask(second, 0x5000, flags=READ) == 0x21
    assert world.ask(second, 0x5004, flags=READ) == 0x33


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tarce=-", "there is no 'tarce'"),
        ("format=plain", "trace= is missing"),
        ("trace=-,format=svg", "it is text, plain or perfetto"),
        ("trace=-,direction=up", "it is read or write"),
        ("trace=/no/where", "-observe trace=/no/where: No such file"),
        ("reload=perhaps", "'reload' expects 'on' or 'off'"),
    ],
)
def test_a_mistake_is_one_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Observation(parse(["-observe", text]).observe)


def test_the_option_is_modelled() -> None:
    assert not unmodelled(parse(["-observe", "reload=on"]), ())


def test_several_options_add_up() -> None:
    observation = Observation(
        parse(["-observe", "reload=on", "-observe", "stop-on-error=on"]).observe
    )
    machine = observation.machine("m", FakePlatform(), FakeMemory(), lambda: 0)
    assert type(machine).__name__ == "ObservedMachine"
    assert machine.slack


def test_an_exception_of_a_device_is_shown_with_its_request(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(USER_DEVICE + "\n    @Ports.value.on_read\n    def fail(self): return 1 // 0\n")
    model = world.start("-device", f"{path}:Mine", "-observe", "stop-on-error=on")
    assert world.ask(model, 0x5000, flags=READ) == 0xFF
    shown = capsys.readouterr().err
    assert "ZeroDivisionError" in shown
    assert "request: <mine0 ports.value, read8 at port 0x5000>" in shown
    assert model.machine.errors == 1
