"""`ioreqd run`: the console is shown, the guest's end is the command's, nothing is left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.prototype.guest_build import build_guest

from .programs import ANSWERS, POLLS, guest, write
from .running import LIMIT, Running

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing")
pytest.importorskip("unicorn")

Launch = Callable[..., Running]

ENDS = {
    "poweroff": ("shutdown(SHUTDOWN_POWEROFF); stay();", 0),
    "reboot": ("shutdown(SHUTDOWN_REBOOT); stay();", 0),
    "crash": ("shutdown(SHUTDOWN_CRASH); stay();", 3),
    "halt for ever": ('asm volatile("cli; hlt");', 0),
    "ACPI": (
        "pci_write(DEVFN(1, 3), 0x40, 4, 0xb001); pci_write(DEVFN(1, 3), 0x80, 1, 1);"
        " out16(0xb004, 0x2000); stay();",
        0,
    ),
    "keyboard controller": ("out8(0x64, 0xfe); stay();", 0),
    "exit port, 0": ("out8(0xf4, 0); stay();", 1),
    "exit port, 20": ("out8(0xf4, 20); stay();", 41),
    "exit port, wide": ("out32(0xf4, 3); stay();", 7),
    "failed checks": ('check("one", 1, 2); guest_end();', 1),
    "passed checks": ('check("one", 1, 1); guest_end();', 0),
}
BOTH = pytest.mark.parametrize("where", [(), ("--in-process",)], ids=["two-processes", "one"])
HELLO = '#define SAY_ON_SERIAL\n#include "guest.h"\nstatic void guest_main(void)\n'
HELLO += '{ say("Hello, %s.", "world"); guest_end(); }\n'
# Port 0x3f8: H, i, newline; then 4 to the exit port. As 16-bit code.

REAL = bytes.fromhex("baf803b048ee b069ee b00aee baf400b004ee f4".replace(" ", ""))


@pytest.fixture(autouse=True)
def device(tmp_path: Path) -> None:
    """answers.py is there."""
    write(tmp_path, answers_py=ANSWERS)


@pytest.mark.parametrize(
    ("how", "where"),
    [*((how, ()) for how in ENDS), *((how, ("--in-process",)) for how in ("ACPI", "crash"))],
)
def test_the_guests_end_is_the_exit_status(
    launch: Launch, tmp_path: Path, how: str, where: tuple[str, ...]
) -> None:
    body, status = ENDS[how]
    write(tmp_path, guest_c=guest(body))
    running = launch("run", "--kernel", "guest.c", "--serial", "null", *where)
    assert running.wait() == status, running.stderr
    assert running.stdout == ""


@BOTH
def test_the_serial_console_is_standard_output(
    launch: Launch, tmp_path: Path, where: tuple[str, ...]
) -> None:
    write(tmp_path, guest_c=HELLO)
    running = launch("run", "--kernel", "guest.c", *where)
    assert running.wait() == 0
    assert running.stdout == "Hello, world.\nGUEST PASS\n"
    assert running.stderr == ""


def test_lines_of_port_e9_go_to_standard_error_with_the_domain(
    launch: Launch, tmp_path: Path
) -> None:
    write(tmp_path, guest_c=guest('say("one"); say("two"); guest_end();'))
    running = launch("run", "--kernel", "guest.c")
    assert running.wait() == 0
    assert running.stdout == ""
    assert running.stderr == "(d1) one\n(d1) two\n(d1) GUEST PASS\n"


def test_an_elf_file_is_a_guest(launch: Launch, tmp_path: Path) -> None:
    write(tmp_path, guest_c=HELLO)
    build_guest(tmp_path / "guest.c", tmp_path / "guest.elf")
    running = launch("run", "--kernel", "guest.elf")
    assert running.wait() == 0
    assert running.stdout.startswith("Hello")


def test_a_flat_image_is_a_guest(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "guest.bin").write_bytes(REAL)
    running = launch("run", "--kernel", "guest.bin")
    assert running.wait() == 9, running.stderr
    assert running.stdout == "Hi\n"


def test_firmware_is_entered_at_the_reset_vector(launch: Launch, tmp_path: Path) -> None:
    image = bytearray(0x10000)
    image[: len(REAL)] = REAL
    image[-16:-13] = b"\xe9" + (-(0x10000 - 16 + 3)).to_bytes(4, "little", signed=True)[:2]
    (tmp_path / "firmware.bin").write_bytes(image)
    running = launch("run", "--bios", "firmware.bin")
    assert running.wait() == 9, running.stderr
    assert running.stdout == "Hi\n"


def test_a_device_of_a_file_answers(launch: Launch, tmp_path: Path) -> None:
    write(tmp_path, guest_c=guest("out8(0xf4, in32(0x5000) + in32(0x5004) * 16); stay();"))
    words = ("run", "--kernel", "guest.c", "--device", "answers.py:Answers")
    running = launch(*words)
    assert running.wait() == 0x11 << 1 | 1, running.stderr
    running = launch(*words, "--in-process")
    assert running.wait() == 0x11 << 1 | 1, running.stderr


def test_a_triple_fault_is_a_crash_or_reset_and_ends_it(launch: Launch, tmp_path: Path) -> None:
    write(
        tmp_path,
        guest_c=guest(
            'struct table none = {0, 0};\nasm volatile("lidt %0; ud2" :: "m"(none)); stay();'
        ),
    )
    running = launch("run", "--kernel", "guest.c")
    assert running.wait() in (0, 3), running.stderr


class TestScript:
    def run(self, launch: Launch, tmp_path: Path, text: str) -> Running:
        write(tmp_path, script_py=text)
        running = launch("run", "--script", "script.py", "--device", "answers.py:Answers")
        running.wait()
        return running

    def test_it_makes_the_accesses(self, launch: Launch, tmp_path: Path) -> None:
        running = self.run(
            launch, tmp_path, "print(bus.in32(0x5000), bus.in32(0x5004), bus.in8(0x5100))\n"
        )
        assert (running.process.returncode, running.stdout) == (0, "1 1 255\n"), running.stderr

    def test_its_exit_is_the_exit_status(self, launch: Launch, tmp_path: Path) -> None:
        running = self.run(launch, tmp_path, "import sys; sys.exit(17)")
        assert running.process.returncode == 17

    def test_its_exception_is_shown_with_its_own_frames(
        self, launch: Launch, tmp_path: Path
    ) -> None:
        running = self.run(launch, tmp_path, "value = bus.in32(0x5000)\nassert value == 2\n")
        assert running.process.returncode == 1
        assert 'File "script.py", line 2' in running.stderr
        assert "AssertionError" in running.stderr
        assert "tools/" not in running.stderr

    def test_time_is_its_own(self, launch: Launch, tmp_path: Path) -> None:
        running = self.run(
            launch, tmp_path, "bus.advance(s=100)\nassert bus.now == 100_000_000_000\n"
        )
        assert running.process.returncode == 0, running.stderr

    def test_a_soft_end_of_the_machine_is_its_end(self, launch: Launch, tmp_path: Path) -> None:
        running = self.run(launch, tmp_path, "bus.out8(0xf4, 2)\nwhile True: bus.in32(0x5000)\n")
        assert running.process.returncode == 5, running.stderr


class TestEnd:
    @pytest.fixture
    def running(self, launch: Launch, tmp_path: Path) -> Running:
        """A guest that polls for ever."""
        return self.start(launch, tmp_path)

    def start(self, launch: Launch, tmp_path: Path, *words: str) -> Running:
        write(tmp_path, guest_c=guest(POLLS))
        command = ("run", "--kernel", "guest.c", "--device", "answers.py:Answers", *words)
        running = launch(*command)
        running.wait_for("answer 1 count")
        return running

    @BOTH
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_a_signal_ends_everything(
        self, launch: Launch, tmp_path: Path, number: signal.Signals, where: tuple[str, ...]
    ) -> None:
        running = self.start(launch, tmp_path, *where)
        running.signal(number)
        assert running.wait() == 128 + number
        assert running.leftovers() == []
        assert len(running.stderr.splitlines()) == 1

    def test_ctrl_c_reaches_both_processes_and_is_one_end(self, running: Running) -> None:
        os.killpg(running.process.pid, signal.SIGINT)
        assert running.wait() == 130
        assert len(running.stderr.splitlines()) == 1

    def test_a_signal_ends_a_script_that_never_asks(self, launch: Launch, tmp_path: Path) -> None:
        write(tmp_path, script_py="print('begins', flush=True)\nwhile True: pass\n")
        running = launch("run", "--script", "script.py")
        running.wait_for("begins")
        running.signal(signal.SIGTERM)
        assert running.wait() == 143

    def test_a_device_model_that_dies_is_status_1(self, running: Running) -> None:
        os.kill(running.device_model(), signal.SIGKILL)
        assert running.wait() == 1
        assert running.stderr.splitlines()[-1] == "the device model ended with signal 9"

    def test_supervised_another_one_follows_with_its_state(
        self, launch: Launch, tmp_path: Path
    ) -> None:
        write(
            tmp_path,
            guest_c=guest(
                "u32 count = 0;\n"
                "while (in32(0x5000) == 1 && in32(0x5004) == ++count)\n"
                '    if (!(count & 255)) say("count %u", count);\n'
                'say("FAIL %u %u", count, in32(0x5004)); out8(0xf4, 1); stay();'
            ),
        )
        running = launch(
            "run", "--supervise", "--kernel", "guest.c", "--device", "answers.py:Answers"
        )
        for number in range(1, 4):
            seen = running.stderr.count("(d1) count")
            running.wait_for("^.d1. count", seen + 1)
            os.kill(running.device_model(), signal.SIGKILL)
            running.wait_for("signal 9; another one follows", number)
        seen = running.stderr.count("(d1) count")
        running.wait_for("^.d1. count", seen + 1)
        running.signal(signal.SIGTERM)
        assert running.wait() == 143
        assert "FAIL" not in running.stderr

    def test_supervision_gives_up_on_one_that_never_serves(
        self, launch: Launch, tmp_path: Path
    ) -> None:
        running = self.start(launch, tmp_path, "--supervise", "--no-reload")
        write(tmp_path, answers_py=ANSWERS.replace("ports =", "raise SystemExit\n    ports ="))
        os.kill(running.device_model(), signal.SIGKILL)
        assert running.wait() == 1
        last = running.stderr.splitlines()[-1]
        assert last == "the device model ended with status 2", running.stderr

    def test_a_soft_reset_is_survived_and_the_guest_goes_on(
        self, launch: Launch, tmp_path: Path
    ) -> None:
        body = "in32(0x5000); shutdown(SHUTDOWN_SOFT_RESET); out8(0xf4, in32(0x5004)); stay();"
        write(tmp_path, guest_c=guest(body))
        for where in (), ("--in-process",):
            words = ("--kernel", "guest.c", "--device", "answers.py:Answers", *where)
            running = launch("run", *words)
            assert running.wait() == 3, running.stderr
            assert running.stderr == ""


def test_two_at_once_do_not_meet(launch: Launch, tmp_path: Path) -> None:
    write(
        tmp_path,
        guest_c=guest(
            'for (u32 n = 1; n <= 500; n++) { in32(0x5000); expect("n", in32(0x5004), n); }\n'
            "guest_end();"
        ),
    )
    words = ("run", "--kernel", "guest.c", "--device", "answers.py:Answers")
    both = [launch(*words) for _ in range(2)]
    assert [one.wait() for one in both] == [0, 0]
    assert [one.stderr for one in both] == ["(d1) GUEST PASS\n"] * 2


def test_it_runs_where_its_output_is_cut_off(tmp_path: Path) -> None:
    write(tmp_path, guest_c=HELLO)
    from .running import IOREQD

    command = f"{IOREQD} run --kernel guest.c | true"
    done = subprocess.run(
        command,
        shell=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert "Traceback" not in done.stderr
