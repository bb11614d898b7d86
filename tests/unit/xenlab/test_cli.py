from __future__ import annotations

import argparse
import subprocess
import sys
from types import ModuleType
from typing import NoReturn

import pytest

from dm.errors import ConfigError, HostError
from tools.cli import doctor, lab, main


def _parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    lab.configure(parser)
    return parser.parse_args(words)


def test_lab_run_takes_options_before_and_a_command_after_two_dashes() -> None:
    arguments = _parse(
        *("run", "--xen", "4.20", "--share", "/s", "--cpus", "2", "--dom0-vcpus", "2"),
        *("--memory", "2048", "--timeout", "9.5", "--install", "a.whl", "--install", "b.whl"),
        *("--", "xl", "list", "-l", "--verbose"),
    )
    assert (arguments.xen, str(arguments.share), arguments.cpus) == ("4.20", "/s", 2)
    assert (arguments.dom0_vcpus, arguments.memory, arguments.timeout) == (2, 2048, 9.5)
    assert [str(path) for path in arguments.install] == ["a.whl", "b.whl"]
    assert arguments.command == ["xl", "list", "-l", "--verbose"]


def test_lab_run_has_the_defaults_of_the_laboratory() -> None:
    arguments = _parse("run", "true")
    assert (arguments.xen, arguments.share, arguments.cpus) == (None, None, 1)
    assert (arguments.dom0_vcpus, arguments.memory, arguments.install) == (1, 1536, [])
    assert not arguments.verbose


@pytest.mark.parametrize("words", [[], ["run"], ["build", "--xen", "3.4"], ["fly"]])
def test_a_wrong_command_line_ends_with_status_2(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        _parse(*words)
    assert raised.value.code == 2
    assert "usage" in capsys.readouterr().err


class FakeCommand(ModuleType):
    """A sub-command that does as it is told."""

    HELP = "a command for tests"
    raises: BaseException | None = None

    @staticmethod
    def configure(parser: argparse.ArgumentParser) -> None:
        """Add nothing."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Raise what it is told, else give 5."""
        if self.raises is not None:
            raise self.raises
        return 5


@pytest.fixture
def fake_command(monkeypatch: pytest.MonkeyPatch) -> FakeCommand:
    module = FakeCommand("fake_command")
    monkeypatch.setitem(sys.modules, "tools.cli.fake", module)
    monkeypatch.setattr(main, "COMMANDS", {"fake": "tools.cli.fake"})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    return module


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (None, 5, ""),
        (ConfigError("no such thing"), 2, "ioreqd: no such thing\n"),
        (HostError("open: gone", 2), 1, "ioreqd: open: gone\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_become_one_line_and_a_status(
    fake_command: FakeCommand,
    capsys: pytest.CaptureFixture[str],
    error: BaseException | None,
    status: int,
    line: str,
) -> None:
    fake_command.raises = error
    assert main.main(["fake"]) == status
    assert capsys.readouterr().err == line


def test_a_bug_is_not_hidden(fake_command: FakeCommand) -> None:
    fake_command.raises = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        main.main(["fake"])


def test_a_sub_command_imports_no_other() -> None:
    program = (
        "import sys; from tools.cli import main\n"
        "try: main.main(['doctor', '--help'])\n"
        "finally: sys.exit('tools.cli.lab' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert doctor.HELP in done.stdout


def test_doctor_reports_what_is_missing_with_its_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_library(soname: str) -> NoReturn:
        raise OSError(soname)

    monkeypatch.setattr("ctypes.CDLL", no_library)
    assert main.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "libxenevtchn.so.1:          missing (package libxenevtchn1)\n" in out
    assert "Xen 4.17 in the laboratory:" in out
