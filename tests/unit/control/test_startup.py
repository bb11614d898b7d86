"""The file that brings all modules of a start: when it is written, and that it is never stale."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
START = """
import sys
sys.path.insert(0, sys.argv[1] + "/dm/control")
from startup import Startup
del sys.path[0]
sys.path.insert(0, sys.argv[1])
startup = Startup(sys.argv[1])
startup.begin()
brought = "dm.control.main" in sys.modules
import dm.control.main, dm.control.process, dm.hypervisor.xen.hypervisor, devices.xenfv
startup.end()
import gc
from dm.errors import HostError
assert gc.isenabled() and HostError.__module__ == "dm.errors"
assert devices.xenfv.__name__ == "devices.xenfv" and devices.__path__ == [sys.argv[1] + "/devices"]
print("brought" if brought else "imported", dm.control.main.STAMP)
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the packages that a device model needs."""
    for package in ("protocol", "dm", "devices"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
    stamp(tmp_path, "first")
    return tmp_path


def stamp(tree: Path, text: str) -> None:
    """Give a module of the tree something by which its version is known."""
    source = (ROOT / "dm/control/main.py").read_text()
    (tree / "dm/control/main.py").write_text(f"{source}\nSTAMP = {text!r}\n")


def start(tree: Path, *flags: str, **environment: str) -> str:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, *flags, "-c", START, str(tree)],
        capture_output=True,
        text=True,
        check=False,
        env={**kept, **environment},
    )
    assert not done.returncode, done.stderr
    return done.stdout.strip()


def kept_file(tree: Path) -> Path:
    files = list((tree / "dm/control/__pycache__").glob("ioreqd-dm.*.start"))
    assert len(files) == 1
    return files[0]


def test_the_second_start_brings_what_the_first_one_kept(tree: Path) -> None:
    assert start(tree) == "imported first"
    assert start(tree) == "brought first"


def test_a_changed_source_is_noticed_and_kept_anew(tree: Path) -> None:
    start(tree)
    stamp(tree, "changed")
    assert start(tree) == "imported changed"
    assert start(tree) == "brought changed"


def test_a_source_of_the_same_size_is_known_by_its_time(tree: Path) -> None:
    start(tree)
    main = tree / "dm/control/main.py"
    before = main.stat()
    stamp(tree, "twice")
    assert main.stat().st_size == before.st_size
    os.utime(main, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))
    assert start(tree) == "imported twice"


def test_a_source_that_is_gone_is_noticed(tree: Path) -> None:
    start(tree)
    port92 = tree / "devices/port92.py"
    package = tree / "devices/port92"
    package.mkdir()
    port92.rename(package / "__init__.py")
    assert start(tree) == "imported first"


def test_another_place_is_noticed(tree: Path, tmp_path: Path) -> None:
    start(tree)
    moved = tmp_path / "moved"
    moved.mkdir()
    for package in ("protocol", "dm", "devices"):
        (tree / package).rename(moved / package)
    assert start(moved) == "imported first"


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 1000, -1])
def test_a_truncated_file_is_as_good_as_none(tree: Path, length: int) -> None:
    start(tree)
    kept = kept_file(tree)
    kept.write_bytes(kept.read_bytes()[:length])
    assert start(tree) == "imported first"
    assert start(tree) == "brought first"


def test_optimised_byte_code_is_another(tree: Path) -> None:
    start(tree)
    assert start(tree, "-O") == "imported first"


def test_who_writes_no_byte_code_keeps_nothing(tree: Path) -> None:
    assert start(tree, "-B") == "imported first"
    assert start(tree, PYTHONPYCACHEPREFIX=str(tree / "cache")) == "imported first"
    assert not list(tree.rglob("*.start*"))


def test_what_is_kept_is_used_by_who_writes_no_byte_code(tree: Path) -> None:
    start(tree)
    assert start(tree, "-B") == "brought first"


def test_a_start_that_was_no_guests_on_xen_keeps_nothing(tree: Path) -> None:
    code = START.replace("dm.hypervisor.xen.hypervisor, ", "")
    subprocess.run([sys.executable, "-c", code, str(tree)], check=True, capture_output=True)
    assert not list(tree.rglob("*.start*"))


def test_the_command_works_with_and_without_the_file(tree: Path) -> None:
    script = tree / "bin/ioreqd-dm"
    script.parent.mkdir()
    shutil.copy(ROOT / "dm/control/ioreqd-dm", script)
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, script, "-version"],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONPATH": str(tree)},
        )
        assert done.stdout.startswith("ioreqd-dm version 0.")
        start(tree)
