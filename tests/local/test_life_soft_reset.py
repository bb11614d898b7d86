"""Soft reset of real guests: what was under way comes to its end, and failures leave no halves."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.toolstack.life.soft_reset import STEPS

from .life_host import LIMIT, LifeHost

HERE = Path(__file__).parent
EDU = ["-device", "edu"]
SINK = ["-device", f"{HERE / 'ring_device.py'}:RingSink"]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[LifeHost]:
    host = LifeHost(tmp_path)
    yield host
    host.close()


def test_ten_soft_resets_in_a_row_in_the_midst_of_things(host: LifeHost) -> None:
    kernel = host.guest("resets", RESETS=10)
    settings = {"device_model_args_hvm": [*EDU, *SINK], "on_poweroff": "preserve"}
    domid = host.create(host.config("resets", kernel, **settings))
    host.wait("it does not end", lambda: host.info("resets")["reason"] == "poweroff")
    lines = host.lines(domid)
    assert lines[-1] == "GUEST PASS", lines[-20:]
    assert [line for line in lines if line.startswith("RESET")] == [
        f"RESET {number}" for number in range(1, 11)
    ]
    assert host.info("resets")["domid"] == domid
    host.ioreqd("destroy", "resets")
    host.wait_nothing_left()


def test_a_kexec_like_guest_sets_its_xen_interfaces_up_again(host: LifeHost) -> None:
    domid = host.create(host.config("kexec", host.guest("kexec"), on_poweroff="preserve"))
    host.wait("it does not end", lambda: host.info("kexec")["reason"] == "poweroff")
    lines = host.lines(domid)
    assert lines[-1] == "GUEST PASS", lines
    assert "first kernel speaks" in lines
    assert "second kernel speaks" in lines


def test_a_new_device_model_and_new_channels_serve_the_same_domain(host: LifeHost) -> None:
    kernel = host.guest("counts")
    domid = host.create(host.config("again", kernel, serial="pty"))
    host.wait_line(domid, "COUNT 500")
    before = host.info("again")
    host.ioreqd("soft-reset", "again")
    after = host.info("again")
    assert after["device_model"] != before["device_model"]
    assert {**after, "device_model": 0, "seconds": 0} == {**before, "device_model": 0, "seconds": 0}
    assert host.ask("again", "console")["tty"].startswith("/dev/pts/")
    count = len(host.lines(domid))
    host.wait("it does not go on", lambda: len(host.lines(domid)) > count + 1)
    assert not [line for line in host.lines(domid) if "FAIL" in line]


def failing(host: LifeHost, config: Path, step: int) -> subprocess.Popen[bytes]:
    """A keeper whose soft resets fail at one step."""
    return host.start(HERE / "life_failing.py", host.run_dir, config, str(step))


@pytest.mark.parametrize("step", range(len(STEPS)), ids=[step.name for step in STEPS])
def test_a_guests_own_reset_that_fails_destroys_it_with_a_report(host: LifeHost, step: int) -> None:
    config = host.config("own", host.guest("ends", REASON=5))
    keeper = failing(host, config, step)
    assert keeper.wait(LIMIT) == 0
    journal = host.journal("own")
    assert f"soft reset, {STEPS[step].name}: told to fail; domain 1 is destroyed" in journal
    host.wait_nothing_left()


@pytest.mark.parametrize("step", range(len(STEPS)), ids=[step.name for step in STEPS])
def test_a_reset_that_was_asked_for_and_fails_leaves_no_half(host: LifeHost, step: int) -> None:
    config = host.config("asked", host.guest("counts"))
    keeper = failing(host, config, step)
    host.wait_line(1, "COUNT 500")
    done = host.ioreqd("soft-reset", "asked", status=1)
    message = f"ioreqd: soft reset, {STEPS[step].name}: told to fail; domain 1 "
    if all(one.undo is not None for one in STEPS[: step + 1]):
        assert done.stderr == f"{message}runs on as before\n"
        count = len(host.lines(1))
        host.wait("it does not go on", lambda: len(host.lines(1)) > count + 1)
        assert not [line for line in host.lines(1) if "FAIL" in line]
        host.ioreqd("destroy", "asked")
    else:
        assert done.stderr == f"{message}is destroyed\n"
    assert keeper.wait(LIMIT) == 0
    host.wait_nothing_left()


def test_a_device_model_that_dies_ends_the_guest_as_a_crash(host: LifeHost) -> None:
    config = host.config("orphan", host.guest("counts"), on_crash="preserve")
    host.create(config)
    pid = host.info("orphan")["device_model"]
    subprocess.run(["kill", "-KILL", str(pid)], check=True)
    why = "its device model was killed by SIGKILL"
    host.wait("it goes on", lambda: why in host.journal("orphan"))
    assert host.info("orphan")["state"] == "---sc-"
