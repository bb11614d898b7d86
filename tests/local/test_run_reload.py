"""`ioreqd run`: a device's file that is saved while the guest runs is loaded again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from .programs import ANSWERS, POLLS, guest, write
from .running import Running

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing")
pytest.importorskip("unicorn")

Launch = Callable[..., Running]
Start = Callable[..., Running]


def answering(value: str) -> str:
    """The device with another answer."""
    return ANSWERS.replace("return 1", f"return {value}")


@pytest.fixture
def start(launch: Launch, tmp_path: Path) -> Start:
    """Start a guest that polls for ever; it has had its first answer."""

    def begin(*words: str) -> Running:
        write(tmp_path, answers_py=ANSWERS, guest_c=guest(POLLS))
        command = ("run", "--kernel", "guest.c", "--serial", "null")
        running = launch(*command, "--device", "answers.py:Answers", *words)
        running.wait_for("^.d1. answer 1 count begins$")
        return running

    return begin


def finish(running: Running, tmp_path: Path) -> None:
    """Have the device give the answer that ends the guest."""
    write(tmp_path, answers_py=answering("0x99"))
    assert running.wait() == 11, running.stderr


@pytest.mark.parametrize("where", [(), ("--in-process",)], ids=["two-processes", "one"])
def test_the_new_class_answers_with_the_old_ones_registers(
    start: Start, tmp_path: Path, where: tuple[str, ...]
) -> None:
    running = start(*where)
    write(tmp_path, answers_py=answering("7"))
    running.wait_for("^answers.py: answers0 goes on as the new Answers$")
    running.wait_for("^.d1. answer 7 count goes on$")
    finish(running, tmp_path)


def test_a_file_that_an_editor_puts_in_its_place_is_loaded(start: Start, tmp_path: Path) -> None:
    running = start()
    (tmp_path / "new").write_text(answering("8"))
    os.rename(tmp_path / "new", tmp_path / "answers.py")
    running.wait_for("^.d1. answer 8 count goes on$")
    finish(running, tmp_path)


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        (ANSWERS.replace("return 1", "return (1"), 20, "SyntaxError: '(' was never closed"),
        (ANSWERS + "\n\nnowhere\n", 23, "NameError: name 'nowhere' is not defined"),
        (ANSWERS.replace("class Answers(", "class Others("), 0, "it has no device class Answers"),
        (ANSWERS.replace("at=0x5000", "at=0x70"), 0, "0x70"),
    ],
    ids=["syntax", "name", "class", "clash"],
)
def test_a_broken_edit_changes_nothing_and_says_why_in_one_line(
    start: Start, tmp_path: Path, text: str, line: int, why: str
) -> None:
    running = start()
    write(tmp_path, answers_py=text)
    said = running.wait_for("^answers.py.* is as before: .*$")[0]
    place = f"answers.py:{line}: " if line else "answers.py"
    assert said.startswith(place), said
    assert why in said
    finish(running, tmp_path)
    assert "answer ffffffff" not in running.stderr
    assert "Traceback" not in running.stderr


def test_a_class_that_fails_when_asked_can_be_mended(start: Start, tmp_path: Path) -> None:
    running = start()
    write(tmp_path, answers_py=answering("nowhere"))
    running.wait_for("^.d1. answer ffffffff count goes on$")
    assert "name 'nowhere' is not defined" in running.stderr
    finish(running, tmp_path)


def test_a_register_can_be_added(start: Start, tmp_path: Path) -> None:
    running = start()
    more = answering("9").replace(
        "    control =", "    extra = Register.at(12, reset=5)\n    control ="
    )
    write(tmp_path, answers_py=more)
    running.wait_for("^.d1. answer 9 count goes on$")
    finish(running, tmp_path)


def test_it_can_be_switched_off(start: Start, tmp_path: Path) -> None:
    running = start("--no-reload")
    write(tmp_path, answers_py=answering("0x99"))
    running.signal(15)
    assert running.wait() == 143
    assert running.stderr.splitlines() == ["(d1) answer 1 count begins"]
