"""The plugin in a pytest of its own: what fixtures give, and what a failure says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from .plugin_runs import PLUGIN, run_pytest

ROOT = Path(__file__).parents[3]
SPECIMENS = (Path(__file__).parent / "specimens.py").read_text()

PASSING = """
import pytest
from dm.testing import generic_device_tests, with_device
from specimens import Card, Echo

TestCard = generic_device_tests(lambda: Card(addr="4"), seeds=(3,))
TestEcho = generic_device_tests(Echo, seeds=(1, 2), base=0x300)

@pytest.mark.parametrize("n", [0, 1])
@with_device(Echo, base=0x300)
@pytest.mark.device(Card, name="mine", addr="7")
def test_marks(n, bus, device, chardev, guest_memory):
    assert [one.name for one in bus.devices] == ["echo", "mine"] or 1
    assert bus.memory is guest_memory
    bus.out8(0x300, 65)
    assert chardev.output == b"A"
    assert len(guest_memory) == 1 << 20

@pytest.mark.guest_ram(0x2000)
class TestClass:
    pytestmark = with_device(Card)

    def test_a_mark_of_the_class(self, bus, device):
        assert (device.name, device.devfn, len(bus.memory)) == ("card", 0x08, 0x2000)

def test_machine_of(machine_of):
    one, other = machine_of(Echo()), machine_of(Echo(base=0x300), memory=1 << 12)
    assert len(other.memory) == 1 << 12
    one.out8(0x200, 1)
    assert (one.irq(5), other.irq(5)) == (1, 0)
"""

FAILING = """
import pytest
from dm.testing import with_device
from specimens import Card

def test_no_mark(bus):
    pass

@pytest.mark.device(Card, 4)
def test_no_class(bus):
    pass

@with_device(Card)
def test_no_plug(chardev):
    pass
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "specimens.py").write_text(SPECIMENS)
    return tmp_path


def test_markers_choose_the_devices_of_the_bus(folder: Path) -> None:
    (folder / "test_it.py").write_text(PASSING.replace(" or 1", ""))
    broken = SPECIMENS.replace('raise ZeroDivisionError("thirteen")', "return")
    (folder / "specimens.py").write_text(broken.replace("self.alarm.start_in(0)", "return"))
    run = run_pytest(folder, "test_it.py", "-k", "not Card")
    assert (run.returncode, run.stderr) == (0, ""), run.stdout
    assert "18 passed" in run.stdout


def test_a_failure_names_register_and_access(folder: Path) -> None:
    raising = 'if new == 0:\n            raise IndexError("empty")\n        self.serial'
    (folder / "specimens.py").write_text(SPECIMENS.replace("self.serial.write", f"{raising}.write"))
    (folder / "test_it.py").write_text(
        "from dm.testing import generic_device_tests\nfrom specimens import Echo\n"
        "TestEcho = generic_device_tests(Echo, seeds=(1,))\n"
    )
    run = run_pytest(folder, "test_it.py", "-k", "never_raise")
    assert run.returncode == 1
    told = re.search(r"Echo, accesses never raise, seed 1: step \d+, (.*)", run.stdout)
    assert told is not None
    assert re.match(r"write.* at 0x20[0-3] \(echo\.ports\..*: IndexError\('empty'\)", told[1])
    assert '>           raise IndexError("empty")' in run.stdout
    assert "session.py" not in run.stdout


def test_a_wrong_use_is_told_in_a_line(folder: Path) -> None:
    (folder / "test_it.py").write_text(FAILING)
    run = run_pytest(folder, "test_it.py")
    assert "3 errors" in run.stdout
    assert "the fixture `bus` needs @with_device(MyDevice, option=" in run.stdout
    assert "with_device takes one device class, then options" in run.stdout
    assert "no Character plug here" in run.stdout


def test_a_test_that_its_mark_swallowed_is_told(folder: Path) -> None:
    (folder / "test_it.py").write_text(
        "import pytest\nfrom specimens import Card\n"
        "@pytest.mark.device(Card)\ndef test_gone(bus):\n    pass\n"
    )
    run = run_pytest(folder, "test_it.py")
    assert run.returncode == 2
    assert "test_gone: pytest takes @pytest.mark.device(Card) for a mark of Card" in run.stdout


def test_the_plugin_loads_nothing_until_it_is_used() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import pytest; before = set(sys.modules);"
        f"import {PLUGIN}; print(*sorted(set(sys.modules) - before))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = run.stdout.split()
    assert PLUGIN in loaded
    assert not [name for name in loaded if name.startswith(("dm.machine", "dm.testing.g"))]
