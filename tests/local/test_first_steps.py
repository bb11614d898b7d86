"""`ioreqd new` and what it says to go on with; a run without a guest shows the registers."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.prototype.new import KINDS

from .programs import ANSWERS, write
from .running import IOREQD, LIMIT, Running

Launch = Callable[..., Running]

REGISTERS = """\
    control                  0x{0:0{width}x} start=0 interrupt_enable=0 mode=once
    status                   0x{0:0{width}x} expired=0
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing")
@pytest.mark.parametrize("kind", KINDS)
def test_every_line_that_new_prints_can_be_run(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("unicorn")
    path = f"{IOREQD.parent}{os.pathsep}{os.environ['PATH']}"

    def run(words: list[str]) -> str:
        done = subprocess.run(
            words,
            cwd=tmp_path,
            env={**os.environ, "PATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=2 * LIMIT,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    lines = run(["ioreqd", "new", "led.py", f"--{kind}"]).splitlines()
    commands = [shlex.split(line, comments=True) for line in lines[1:]]
    assert [words[0] for words in commands] == ["pytest", "ioreqd", "ioreqd", "ioreqd"]
    said = [run(words) for words in commands]
    assert REGISTERS.format(0, width=2 if kind == "ports" else 8) in said[1]


def test_an_option_says_where_the_registers_are(launch: Launch) -> None:
    assert launch("new", "my.py", "--mmio").wait() == 0
    running = launch("run", "--device", "my.py:My,addr=0xfe002000")
    assert running.wait() == 0, running.stderr
    assert "  registers at 0xfe002000\n    control  " in running.stdout


def test_each_device_is_found_and_shown(launch: Launch, tmp_path: Path) -> None:
    write(tmp_path, answers_py=ANSWERS)
    devices = ("--device", "edu", "--device", "answers.py:Answers", "--device", "edu,id=second")
    running = launch("run", *devices)
    assert running.wait() == 0, running.stderr
    found = [line for line in running.stdout.splitlines() if not line.startswith("    ")]
    assert [line.partition(",")[0] for line in found] == [
        *("edu0: Edu", "  PCI function 00:03.0", "  registers at 0xf0000000"),
        *("answers1: Answers", "  ports at port 0x5000"),
        *("second: Edu", "  PCI function 00:04.0", "  registers at 0xf0100000"),
    ]
    assert running.stdout.count("    identification           0x010000ed") == 2
    assert "    answer                   0x00000001\n" in running.stdout
    assert "    count                    0x00000001\n" in running.stdout


def test_a_device_that_fails_when_asked_is_shown_as_ones(launch: Launch, tmp_path: Path) -> None:
    write(tmp_path, answers_py=ANSWERS.replace("return 1", "return 1 // 0"))
    running = launch("run", "--device", "answers.py:Answers")
    assert running.wait() == 0
    assert "    answer                   0xffffffff\n" in running.stdout
    assert "ZeroDivisionError" in running.stderr
