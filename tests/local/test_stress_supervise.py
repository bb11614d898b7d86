"""`ioreqd run --supervise`: the device model is killed again and again, the guest ends well."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
from pathlib import Path

import pytest

from tools.cli.main import main
from tools.prototype.guest_build import build_guest
from tools.prototype.plan import Plan
from tools.prototype.run import FAILED, Run

from .test_stress_kill import SEED

FOLDER = Path(__file__).parent
PASSED = 1
KILLS = 12
EARLY = 2
ROUNDS = 8000
STATE = "/local/domain/0/device-model/1/state"
LONGEST_LIFE = 0.08

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing")


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("unicorn")
    target = tmp_path_factory.mktemp("guest") / "hammered.elf"
    source = FOLDER / "guests" / "hammered.c"
    return build_guest(source, target, {"ROUNDS": ROUNDS}, warnings=True)


def plan(kernel: Path, *, supervise: bool) -> Plan:
    return Plan(
        devices=(f"{FOLDER}/stress_device.py:Hammered",),
        kernel=kernel,
        engine="unicorn",
        serial="null",
        supervise=supervise,
    )


def test_the_guests_checksum_is_the_same_with_and_without_kills(guest: Path) -> None:
    print(f"STRESS_SEED={SEED}")  # noqa: T201
    lines: list[list[str]] = [[], []]
    with Run(plan(guest, supervise=False), lines[0].append) as undisturbed:
        undisturbed.start()
        assert undisturbed.wait() == PASSED
    chance = random.Random(SEED)
    over = threading.Event()
    killed: list[int] = []
    with Run(plan(guest, supervise=True), lines[1].append) as run:
        run.start()

        def kill() -> None:
            early = 0
            while len(killed) < KILLS and not over.wait(chance.uniform(0.02, LONGEST_LIFE)):
                child = run._child
                if child is None or child.poll() is not None:
                    continue
                # Some die before they can serve, too; too many in a row, and nobody follows.
                serves = run.hypervisor.store.read(STATE) == "running"
                if serves or (early < EARLY and chance.random() < 0.3):
                    early = 0 if serves else early + 1
                    os.kill(child.pid, signal.SIGKILL)
                    killed.append(child.pid)

        killer = threading.Thread(target=kill)
        killer.start()
        assert run.wait() == PASSED
        over.set()
        killer.join()
        assert run.domain.punishments == []
    said = [line for line in lines[1] if "another one follows" in line]
    assert len(killed) >= 2
    # The guest's end may have come before the last one was noticed.
    assert len(killed) - 1 <= len(said) <= len(killed)
    assert [line for line in lines[1] if line not in said] == lines[0]
    assert lines[0][-1].startswith("(d1) checksum ")


def test_without_it_the_death_of_the_device_model_is_the_end(guest: Path) -> None:
    lines: list[str] = []
    with Run(plan(guest, supervise=False), lines.append) as run:
        run.start()
        assert run._child is not None
        os.kill(run._child.pid, signal.SIGKILL)
        assert run.wait() == FAILED
    assert lines[-1] == "the device model ended with signal 9"


def test_one_that_cannot_start_is_not_started_for_ever(
    tmp_path: Path, guest: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The device's file is gone when the second process looks for it."""
    device = tmp_path / "mine.py"
    shutil.copy(FOLDER / "stress_device.py", device)
    lines: list[str] = []
    made = Plan(
        devices=(f"{device}:Hammered",),
        kernel=guest,
        engine="unicorn",
        serial="null",
        supervise=True,
    )
    with Run(made, lines.append) as run:
        run.start()
        device.write_text("import os\nos._exit(7)\n")
        assert run._child is not None
        os.kill(run._child.pid, signal.SIGKILL)
        assert run.wait() == FAILED
    assert lines[-1] == "the device model ended with status 7"
    assert 2 <= len([line for line in lines if "follows" in line]) <= 10


def test_the_command_takes_the_option(tmp_path: Path, guest: Path) -> None:
    words = ["run", "--supervise", "--engine", "unicorn", "--serial", "null", "--no-reload"]
    words += ["--device", f"{FOLDER}/stress_device.py:Hammered", "--kernel", str(guest)]
    assert main(words) == PASSED
