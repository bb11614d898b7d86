"""The distribution: a wheel that is built from the tree and installed elsewhere works there."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tools.xenlab.tree import build_wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def test_a_wheel_works_in_an_environment_of_its_own(wheel: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    python = tmp_path / "env/bin/python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], check=True)
    version = subprocess.run(
        [tmp_path / "env/bin/ioreqd-dm", "-version"], capture_output=True, text=True, check=True
    )
    assert version.stdout.startswith("ioreqd-dm version 0.")
    imported = "import dm, devices.xenfv, protocol.layouts, tools.cli.main; print(dm.__file__)"
    where = subprocess.run(
        [python, "-I", "-c", imported], capture_output=True, text=True, check=True
    )
    assert where.stdout.startswith(str(tmp_path))


def test_the_wheel_holds_the_four_packages_and_no_tests(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.startswith("ioreqd-")} == {
        "devices",
        "dm",
        "protocol",
        "tools",
    }
    assert "tools/xenlab/data/dom0-init" in zipfile.ZipFile(wheel).namelist()


def test_equal_sources_give_equal_bytes(wheel: Path, tmp_path: Path) -> None:
    assert build_wheel(tmp_path).read_bytes() == wheel.read_bytes()
