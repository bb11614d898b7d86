"""`ioreqd run`: ends by force, deaths that are survived, words without effect."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dm.hypervisor.interface import SHUTDOWN_REASONS
from tools.prototype.child import DeviceModelProcess
from tools.prototype.guest_build import build_guest
from tools.prototype.plan import Plan
from tools.prototype.run import Run

from .programs import ANSWERS, POLLS, guest, write
from .running import Running

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing")
pytest.importorskip("unicorn")

Launch = Callable[..., Running]

HANGS = ANSWERS.replace("        return 1\n", "        while True:\n            pass\n")
BOTH = pytest.mark.parametrize("where", [(), ("--in-process",)], ids=["two-processes", "one"])
MOST = 12.0
"""Seconds for an end by force, on a machine with much else to do."""
RESETS = "in32(0x5000); shutdown(SHUTDOWN_SOFT_RESET); out8(0xf4, in32(0x5004)); stay();"


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    """A device that answers, one that never returns, and a guest that asks it."""
    begins = 'say("begins"); in32(0x5000); stay();'
    write(tmp_path, answers_py=ANSWERS, hangs_py=HANGS, guest_c=guest(begins))


class TestHanging:
    @pytest.fixture
    def start(self, launch: Launch) -> Launch:
        """A guest whose device has been asked and never answers."""

        def begin(*words: str) -> Running:
            running = launch("run", "--kernel", "guest.c", "--device", "hangs.py:Answers", *words)
            running.wait_for("begins")
            return running

        return begin

    @BOTH
    def test_a_signal_ends_it_within_seconds(self, start: Launch, where: tuple[str, ...]) -> None:
        running = start(*where)
        before = time.monotonic()
        running.signal(signal.SIGINT)
        assert running.wait() == 130
        assert time.monotonic() - before < MOST
        assert running.leftovers() == []

    @BOTH
    def test_a_second_signal_ends_it_at_once(self, start: Launch, where: tuple[str, ...]) -> None:
        running = start(*where)
        if not where:
            os.kill(running.device_model(), signal.SIGSTOP)
        running.signal(signal.SIGTERM)
        while running.process.poll() is None:
            running.signal(signal.SIGTERM)
        assert running.wait() == 143
        assert running.leftovers() == []


class TestSupervised:
    def test_a_polite_end_is_followed_by_another_one(self, launch: Launch, tmp_path: Path) -> None:
        write(tmp_path, guest_c=guest(POLLS))
        words = ("--kernel", "guest.c", "--device", "answers.py:Answers")
        running = launch("run", "--supervise", *words)
        running.wait_for("answer 1 count")
        os.kill(running.device_model(), signal.SIGTERM)
        running.wait_for("ended with status 0; another one follows")
        write(tmp_path, answers_py=ANSWERS.replace("return 1", "return 0x99"))
        assert running.wait() == 11

    @pytest.mark.parametrize("supervise", [True, False])
    def test_a_death_at_a_soft_reset(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, supervise: bool
    ) -> None:
        save = DeviceModelProcess.save
        deaths: list[int] = []

        def die_first(child: DeviceModelProcess, path: Path) -> None:
            if not deaths:
                deaths.append(child.pid)
                os.kill(child.pid, signal.SIGKILL)
                assert child.poll(MOST) is not None
            save(child, path)

        monkeypatch.setattr(DeviceModelProcess, "save", die_first)
        write(tmp_path, resets_c=guest(RESETS))
        plan = Plan(
            devices=(f"{tmp_path}/answers.py:Answers",),
            kernel=build_guest(tmp_path / "resets.c", tmp_path / "resets.elf"),
            engine="unicorn",
            serial="null",
            supervise=supervise,
        )
        lines: list[str] = []
        with Run(plan, lines.append) as run:
            run.start()
            # The register counted one access before, which outlived both.
            assert run.wait() == (3 if supervise else 1)
        follows = "; another one follows" if supervise else ""
        assert lines == [f"the device model ended with signal 9{follows}"]


def test_every_reason_for_a_shutdown_has_its_number() -> None:
    assert sorted(SHUTDOWN_REASONS) == ["crash", "poweroff", "reboot", "suspend", "watchdog"]


def test_a_folder_that_is_too_deep_is_one_line(launch: Launch, tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 110)
    deep.mkdir()
    words = ("--kernel", "guest.c", "--device", "answers.py:Answers")
    running = launch("run", *words, environment={"TMPDIR": str(deep)})
    assert running.wait() == 2
    assert running.stderr.startswith(f"ioreqd: {deep}")
    assert running.stderr.endswith("AF_UNIX path too long (TMPDIR chooses another folder)\n")
    assert running.stderr.count("\n") == 1
    assert list(deep.iterdir()) == []


WORDS = {
    "a guest too many": (("--script", "s.py", "extra.elf"), "extra.elf"),
    "a word too many": (("--kernel", "guest.c", "extra"), "extra"),
    "a script's command line": (("--script", "s.py", "--append", "x"), "--append"),
    "a flat image's command line": (("--kernel", "flat", "--append", "x"), "flat"),
}


@pytest.mark.parametrize("what", WORDS)
def test_words_that_would_have_no_effect_are_refused(
    launch: Launch, tmp_path: Path, what: str
) -> None:
    write(tmp_path, s_py="pass\n", flat_="no ELF file")
    (tmp_path / "flat.").rename(tmp_path / "flat")
    words, named = WORDS[what]
    running = launch("run", *words)
    assert running.wait() == 2
    assert running.stderr.count("\n") == 1
    assert named in running.stderr


def test_a_device_that_is_a_symbolic_link_is_reloaded(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    real = (tmp_path / "answers.py").rename(tmp_path / "src" / "real.py")
    (tmp_path / "answers.py").symlink_to(real)
    write(tmp_path, guest_c=guest(POLLS))
    running = launch("run", "--kernel", "guest.c", "--device", "answers.py:Answers")
    running.wait_for("answer 1 count")
    real.write_text(ANSWERS.replace("return 1", "return 0x99"))
    assert running.wait() == 11
