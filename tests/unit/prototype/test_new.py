"""What `ioreqd new` writes runs, is tested, formatted, linted and typed as it stands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dm.errors import ConfigError
from tests.unit.testing.plugin_runs import run_pytest
from tools.cli import main as command
from tools.prototype.new import KINDS, class_name, new_device

ROOT = Path(__file__).parents[3]
TOOLS = Path(sys.executable).parent


def run(*arguments: str, folder: Path) -> None:
    """Run a tool of the environment; its output is the failure's message."""
    done = subprocess.run(
        [str(TOOLS / arguments[0]), *arguments[1:]],
        cwd=folder,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_the_tests_of_a_new_device_pass(tmp_path: Path, kind: str) -> None:
    new_device(tmp_path / "red_led2.py", kind)
    done = run_pytest(tmp_path, "red_led2.py")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "23 passed" in done.stdout


def test_new_devices_satisfy_formatter_linter_and_type_checker(tmp_path: Path) -> None:
    names = []
    for kind in KINDS:
        names.append(f"{kind}_led.py")
        new_device(tmp_path / names[-1], kind)
    run("ruff", "format", "--check", "--isolated", *names, folder=tmp_path)
    run("ruff", "format", "--check", "--config", str(ROOT / "pyproject.toml"), folder=tmp_path)
    run("ruff", "check", "--config", str(ROOT / "pyproject.toml"), *names, folder=tmp_path)
    run("mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), *names, folder=tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_device_loads_no_test_tool_outside_pytest(tmp_path: Path, kind: str) -> None:
    new_device(tmp_path / "led.py", kind)
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import led; led.Led;"
        "assert not {'dm.testing', 'pytest', 'typing'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("file", "name"),
    [("my_device.py", "MyDevice"), ("led.py", "Led"), ("a/tpm2_crb.py", "Tpm2Crb")],
)
def test_the_class_has_the_files_name(file: str, name: str) -> None:
    assert class_name(Path(file)) == name


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("my-device.py", "named like my_device.py"),
        ("my_device", "named like my_device.py"),
        ("class.py", "named like my_device.py"),
        ("random.py", "there is a module named random"),
        ("dm.py", "there is a module named dm"),
        ("true.py", "makes no name"),
        ("__.py", "makes no name"),
        ("test_led.py", "makes no name"),
        ("register.py", "would be called Register"),
        ("status.py", "would be called Status"),
        ("exception.py", "would be called Exception"),
        ("no/such/folder.py", "No such file or directory"),
    ],
)
def test_a_name_that_would_not_do_is_refused(tmp_path: Path, file: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        new_device(tmp_path / file, "pci")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("precious")
    with pytest.raises(ConfigError, match="there already"):
        new_device(file, "pci")
    assert file.read_text() == "precious"


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_says_how_to_go_on(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    monkeypatch.setitem(command.COMMANDS, "new", "tools.cli.new")
    file = tmp_path / "led.py"
    assert command.main(["new", str(file), f"--{kind}"]) == 0
    assert f"ioreqd run --device {file}:Led" in capsys.readouterr().out
    assert {"pci": "PciDevice", "mmio": "MmioWindow", "ports": "PortWindow"}[
        kind
    ] in file.read_text()
    assert command.main(["new", str(file)]) == 2
    assert "left as it is" in capsys.readouterr().err
