"""A device's file becomes a module of its own, as an import would make it one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dm import Device
from dm.control.device_file import class_in, load_device_file
from dm.control.devices import make_device
from dm.control.reloading import Reloader
from dm.machine.fakes import TestBench
from tools.prototype.device_class import find_device_class

DATACLASS = """
from __future__ import annotations
from dataclasses import dataclass
from dm import Bank, Device, PortWindow, Register

@dataclass
class Packet:
    length: int

class Ports(Bank, size=16, width=32):
    value = Register.at(0)

class Mine(Device):
    ports = PortWindow(Ports, at=0x5000)
    packet = Packet(1500)
"""


@pytest.fixture(autouse=True)
def modules() -> Iterator[None]:
    """What a test loads is gone afterwards."""
    before = dict(sys.modules)
    yield
    for name in set(sys.modules) - set(before):
        del sys.modules[name]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file whose classes look their own module up."""
    path = tmp_path / "mine.py"
    path.write_text(DATACLASS)
    return path


LOADERS: dict[str, Callable[[Path], object]] = {
    "-device": lambda path: make_device(f"{path}:Mine", {}, 0),
    "a tool": lambda path: find_device_class(f"{path}:Mine"),
}


@pytest.mark.parametrize("how", LOADERS)
def test_a_dataclass_in_the_file_finds_its_module(file: Path, how: str) -> None:
    found = LOADERS[how](file)
    device = found if isinstance(found, type) else type(found)
    assert issubclass(device, Device)
    assert sys.modules[device.__module__].__dict__["Mine"] is device


def test_a_dataclass_finds_its_module_after_an_edit(file: Path) -> None:
    made = make_device(f"{file}:Mine", {"id": "mine"}, 0)
    assert made is not None
    bench = TestBench(made)
    said: list[str] = []
    reloader = Reloader(bench.machine, lambda device: None, said.append)
    reloader.add(made, str(file))
    file.write_text(DATACLASS.replace("1500", "9000"))
    reloader.changed(str(file))
    assert said == [f"{file}: mine goes on as the new Mine"]
    assert bench.machine.devices[0].__class__.__dict__["packet"].length == 9000


def test_files_of_one_name_are_different_modules_and_one_file_stays_one(tmp_path: Path) -> None:
    names = []
    for folder in ("a", "b", "a"):
        path = tmp_path / folder / "led.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"folder = {folder!r}\n")
        module = load_device_file(str(path))
        assert sys.modules[module.__name__].__dict__["folder"] == folder
        names.append(module.__name__)
    assert names == ["ioreqd_user_led", "ioreqd_user_led_2", "ioreqd_user_led"]


def test_a_file_that_fails_leaves_no_module_and_the_one_before(file: Path) -> None:
    before = load_device_file(str(file))
    file.write_text("1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        load_device_file(str(file))
    assert sys.modules[before.__name__] is before
    other = file.with_name("other.py")
    other.write_text("nowhere\n")
    with pytest.raises(NameError):
        load_device_file(str(other))
    assert "ioreqd_user_other" not in sys.modules


def test_a_class_in_a_class_is_found(tmp_path: Path) -> None:
    path = tmp_path / "inner.py"
    path.write_text("from dm import Device\nclass A:\n    class B(Device):\n        pass\n")
    assert class_in(load_device_file(str(path)), "A.B").__qualname__ == "A.B"
