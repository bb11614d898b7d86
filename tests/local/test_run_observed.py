"""`ioreqd run`: traces, recordings and their replay, suggestions, the debugger at a failure."""

from __future__ import annotations

import json
import os
import select
import shutil
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .programs import ANSWERS, guest, write
from .running import LIMIT, Running

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing")
pytest.importorskip("unicorn")

Launch = Callable[..., Running]

BODY = """
    in32(0x5000);
    out32(0x5008, 0x80000001);
    in32(0x5004);
    guest_end();
"""
DEVICE = ("--device", "answers.py:Answers")
RUN = ("run", "--kernel", "guest.c", "--serial", "null", *DEVICE)
LINES = [
    "answers0 ports.answer read32 0x00000001",
    "answers0 ports.control write32 0x80000001 ready=1",
    "answers0 ports.count read32 0x00000001",
]
BOTH = pytest.mark.parametrize("where", [(), ("--in-process",)], ids=["two-processes", "one"])
FAILING = ANSWERS.replace("return 1", "return 1 // (self.ports.count.value - 2)")
FAILS = "in32(0x5000); in32(0x5000); in32(0x5000); guest_end();"
ERROR = "ZeroDivisionError: integer division or modulo by zero"


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    """The device and a guest that makes three accesses to it."""
    write(tmp_path, guest_c=guest(BODY), answers_py=ANSWERS)


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Both ends of a pseudo terminal: the user's and the command's."""
    user, command = os.openpty()
    yield user, command
    os.close(user)
    os.close(command)


def run(launch: Launch, *words: str) -> Running:
    """Run to a good end."""
    running = launch(*words)
    assert running.wait() == 0, running.stderr
    return running


class TestTrace:
    def lines(self, running: Running) -> list[str]:
        """The lines of a trace on standard error, without their times."""
        traced = [line for line in running.stderr.splitlines() if not line.startswith("(d1)")]
        return [line.partition(" ")[2] for line in traced]

    @BOTH
    def test_it_names_device_register_and_fields(
        self, launch: Launch, where: tuple[str, ...]
    ) -> None:
        running = run(launch, *RUN, *where, "--trace", "--trace-device", "answers0")
        assert self.lines(running) == LINES

    def test_it_shows_all_devices_unless_one_is_chosen(self, launch: Launch) -> None:
        words = {line.partition(" ")[0] for line in self.lines(run(launch, *RUN, "--trace"))}
        assert "answers0" in words

    @pytest.mark.parametrize(
        ("words", "chosen"),
        [
            (("--trace-register", "count"), [2]),
            (("--trace-register", "ports.control"), [1]),
            (("--trace-direction", "read"), [0, 2]),
            (("--trace-direction", "write"), [1]),
            (("--trace-register", "answer", "--trace-direction", "write"), []),
        ],
    )
    def test_it_is_filtered(
        self, launch: Launch, words: tuple[str, ...], chosen: list[int]
    ) -> None:
        running = run(launch, *RUN, "--trace", "--trace-device", "answers0", *words)
        assert self.lines(running) == [LINES[index] for index in chosen]

    def test_it_goes_to_a_file(self, launch: Launch, tmp_path: Path) -> None:
        running = run(launch, *RUN, "--trace", "trace.txt", "--trace-device", "answers0")
        assert self.lines(running) == []
        traced = (tmp_path / "trace.txt").read_text().splitlines()
        assert [line.partition(" ")[2] for line in traced] == LINES

    @BOTH
    def test_for_perfetto_it_is_json_with_each_access(
        self, launch: Launch, tmp_path: Path, where: tuple[str, ...]
    ) -> None:
        run(launch, *RUN, *where, "--trace", "trace.json", "--trace-device", "answers0")
        found = json.loads((tmp_path / "trace.json").read_text())
        events = found["traceEvents"] if isinstance(found, dict) else found
        names = [event["name"] for event in events if event["ph"] == "X"]
        assert [name for name in names if "answer" in name]
        assert len(names) == len(LINES)


class TestReplay:
    def test_the_same_device_answers_the_same(self, launch: Launch) -> None:
        run(launch, *RUN, "--record", "run.ioreq")
        running = run(launch, "replay", "run.ioreq", *DEVICE)
        assert "all as recorded" in running.stdout

    def test_the_first_answer_of_a_changed_device_that_differs_is_shown(
        self, launch: Launch, tmp_path: Path
    ) -> None:
        run(launch, *RUN, "--record", "run.ioreq")
        write(tmp_path, answers_py=ANSWERS.replace("count.value + 1", "count.value + 2"))
        running = launch("replay", "run.ioreq", *DEVICE)
        assert running.wait() == 1
        assert "ports.count read32" in running.stdout
        assert "0x00000001" in running.stdout
        assert "0x00000002" in running.stdout
        assert LINES[0] in running.stdout

    @BOTH
    def test_whatever_ends_the_run_the_recording_is_whole(
        self, launch: Launch, where: tuple[str, ...], tmp_path: Path
    ) -> None:
        write(tmp_path, guest_c=guest('for (;;) { in32(0x5000); say("on"); }'))
        running = launch(*RUN, *where, "--record", "run.ioreq")
        running.wait_for("on")
        running.signal(15)
        assert running.wait() == 143
        assert "all as recorded" in run(launch, "replay", "run.ioreq", *DEVICE).stdout

    @pytest.mark.parametrize("content", [b"", b"no recording at all", b"\0" * 4096])
    def test_a_file_that_is_none_is_one_line(
        self, launch: Launch, tmp_path: Path, content: bytes
    ) -> None:
        (tmp_path / "run.ioreq").write_bytes(content)
        running = launch("replay", "run.ioreq", *DEVICE)
        assert running.wait() == 2
        assert len(running.stderr.splitlines()) == 1
        assert "run.ioreq" in running.stderr


class TestSuggestion:
    @BOTH
    def test_it_is_a_device_that_takes_what_was_asked_in_vain(
        self, launch: Launch, tmp_path: Path, where: tuple[str, ...]
    ) -> None:
        write(
            tmp_path,
            guest_c=guest("out32(0x5010, 7); in32(0x500c); in8(0x510); in16(0x512); guest_end();"),
        )
        run(launch, *RUN, *where, "--suggest", "missing.py")
        text = (tmp_path / "missing.py").read_text()
        compile(text, "missing.py", "exec")
        assert "0x500c" in text.lower() or "0xc" in text.lower()
        assert "0x510" in text.lower()


class TestDebugger:
    @BOTH
    def test_without_a_terminal_the_error_is_shown_with_its_request(
        self, launch: Launch, tmp_path: Path, where: tuple[str, ...]
    ) -> None:
        write(tmp_path, answers_py=FAILING, guest_c=guest(FAILS))
        running = run(launch, *RUN, *where, "--stop-on-error")
        assert ERROR in running.stderr
        assert 'answers.py", line 20, in reply' in running.stderr
        assert "request: <answers0 ports.answer, read32 at port 0x5000>" in running.stderr
        assert running.stderr.count(ERROR) == 1

    @BOTH
    def test_at_a_terminal_a_debugger_stands_at_the_failing_line(
        self,
        launch: Launch,
        tmp_path: Path,
        terminal: tuple[int, int],
        where: tuple[str, ...],
    ) -> None:
        write(tmp_path, answers_py=FAILING, guest_c=guest(FAILS))
        user = Terminal(terminal[0])
        words = [word for word in RUN if word not in ("--serial", "null")]
        running = launch(*words, *where, "--stop-on-error", terminal=terminal[1])
        user.wait_for("(Pdb) ")
        assert "-> return 1 // (self.ports.count.value - 2)" in user.text
        user.type("p request\n", "<answers0 ports.answer, read32 at port 0x5000>")
        user.type("p self.ports.count.value * 1111\n", "2222")
        user.type("c\n", "GUEST PASS")
        assert running.wait() == 0

    @BOTH
    @pytest.mark.parametrize(("key", "status"), [("\x03", 130), ("q\n", 0)])
    def test_it_can_be_left_at_the_debugger(
        self,
        launch: Launch,
        tmp_path: Path,
        terminal: tuple[int, int],
        where: tuple[str, ...],
        key: str,
        status: int,
    ) -> None:
        write(tmp_path, answers_py=FAILING, guest_c=guest(FAILS))
        user = Terminal(terminal[0])
        running = launch(*RUN, *where, "--stop-on-error", terminal=terminal[1])
        user.wait_for("(Pdb) ")
        os.write(terminal[0], key.encode())
        assert running.wait() == status

    @BOTH
    def test_a_signal_ends_it_at_the_debugger(
        self,
        launch: Launch,
        tmp_path: Path,
        terminal: tuple[int, int],
        where: tuple[str, ...],
    ) -> None:
        write(tmp_path, answers_py=FAILING, guest_c=guest(FAILS))
        user = Terminal(terminal[0])
        running = launch(*RUN, *where, "--stop-on-error", terminal=terminal[1])
        user.wait_for("(Pdb) ")
        running.signal(15)
        assert running.wait() == 143


@BOTH
def test_ctrl_c_typed_at_the_guests_console_ends_everything(
    launch: Launch, tmp_path: Path, terminal: tuple[int, int], where: tuple[str, ...]
) -> None:
    text = '#define SAY_ON_SERIAL\n#include "guest.h"\n'
    text += 'static void guest_main(void) { say("here"); for (;;) in32(0x5000); }\n'
    write(tmp_path, guest_c=text)
    user = Terminal(terminal[0])
    before = termios.tcgetattr(terminal[1])
    running = launch("run", "--kernel", "guest.c", *DEVICE, *where, terminal=terminal[1])
    user.wait_for("here")
    os.write(terminal[0], b"\x03")
    assert running.wait() == 130
    assert termios.tcgetattr(terminal[1]) == before


class Terminal:
    """The user at a pseudo terminal."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.text = ""

    def wait_for(self, wanted: str) -> None:
        """Read until ``wanted`` is there that was not there before this call."""
        seen = ""
        while wanted not in seen:
            ready, _, _ = select.select([self._fd], [], [], LIMIT)
            assert ready, f"no {wanted!r} in {self.text}"
            seen += os.read(self._fd, 65536).decode(errors="replace").replace("\r", "")
            self.text += seen

    def type(self, line: str, wanted: str) -> None:
        """Type and wait for what comes then."""
        os.write(self._fd, line.encode())
        self.wait_for(wanted)
