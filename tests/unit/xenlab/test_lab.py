from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from dm.errors import ConfigError, HostError
from tests.unit.xenlab.conftest import AgentProcess
from tools.xenlab import command
from tools.xenlab.command import LabError
from tools.xenlab.emulator import Machine, _arguments
from tools.xenlab.lab import Lab


def test_a_result_tells_status_and_output(fake_lab: Lab) -> None:
    result = fake_lab.run("echo out; echo err >&2; exit 4")
    assert (result.status, result.stdout, result.stderr) == (4, "out\n", "err\n")
    assert sorted(result.output.split()) == ["err", "out"]
    assert not result.timed_out
    assert result.share == fake_lab.share
    with pytest.raises(HostError, match="status 4"):
        result.check()


def test_a_sequence_is_one_program_with_its_arguments(fake_lab: Lab) -> None:
    assert fake_lab.run(["printf", "%s|", "a b", "$HOME", "'"]).stdout == "a b|$HOME|'|"


def test_many_commands_run_in_one_boot(fake_lab: Lab) -> None:
    assert [fake_lab.run(f"exit {number}").status for number in range(5)] == [0, 1, 2, 3, 4]


def test_a_time_out_kills_and_gives_124_with_what_was_written(fake_lab: Lab) -> None:
    started = fake_lab.start("echo begun; sleep 1000")
    started.wait_for("begun", 60)
    result = started.wait(0)
    assert (result.status, result.timed_out, result.output) == (124, True, "begun\n")


def test_a_signal_gives_a_shells_status(fake_lab: Lab) -> None:
    started = fake_lab.start("echo begun; sleep 1000")
    assert started.running
    started.wait_for("begun", 60)
    started.kill(signal.SIGTERM)
    assert started.wait(60).status == 128 + signal.SIGTERM
    assert not started.running


def test_waiting_for_output_that_will_not_come_is_an_error(fake_lab: Lab) -> None:
    with pytest.raises(TimeoutError, match="only this"):
        fake_lab.start("echo only this").wait_for("that", 60)


def test_output_is_handed_on_as_it_comes(fake_lab: Lab) -> None:
    pieces: list[tuple[bool, bytes]] = []
    fake_lab.run("echo out; echo err >&2", on_output=lambda *piece: pieces.append(piece))
    assert sorted(pieces) == [(False, b"out\n"), (True, b"err\n")]


def test_kept_output_is_bounded(fake_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_KEPT", 100_000)
    result = fake_lab.run("head -c 1000000 /dev/zero")
    assert result.truncated
    assert 0 < len(result.stdout) <= 100_000


def test_output_passed_on_is_complete_whatever_is_kept(
    fake_lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_KEPT", 100_000)
    passed = bytearray()
    fake_lab.run("head -c 1000000 /dev/zero", on_output=lambda _, data: passed.extend(data))
    assert len(passed) == 1_000_000


def test_the_end_of_the_machine_ends_its_commands_with_the_logs(
    fake_lab: Lab, agent_process: AgentProcess
) -> None:
    (fake_lab.logs / "xen.log").write_bytes(b"(XEN) Panic on CPU 0\r\n\r\n")
    started = fake_lab.start("echo begun $$; sleep 1000")
    group = int(started.wait_for(r"begun (\d+)", 60)[1])
    agent_process.process.kill()
    os.killpg(group, signal.SIGKILL)
    with pytest.raises(LabError, match=r"emulator ended\nxen\.log: \(XEN\) Panic on CPU 0$"):
        started.wait(60)
    with pytest.raises(LabError):
        fake_lab.run("true")


def test_the_log_is_searched_from_where_one_says(fake_lab: Lab) -> None:
    (fake_lab.logs / "xen.log").write_bytes(b"one 1\r\none 2\r\n")
    assert fake_lab.xen_log() == "one 1\none 2\n"
    assert fake_lab.wait_log(r"one (\d)", 60)[1] == "1"
    assert fake_lab.wait_log(r"one (\d)", 60, start=5)[1] == "2"
    with pytest.raises(TimeoutError):
        fake_lab.wait_log("two", 0)


def test_a_laboratory_that_is_not_booted_says_so() -> None:
    with pytest.raises(LabError, match="not booted"):
        Lab().run("true")


@pytest.mark.parametrize(
    ("machine", "option"),
    [
        (Machine(cpus=0), "--cpus"),
        (Machine(cpus=17), "--cpus"),
        (Machine(dom0_vcpus=0), "--dom0-vcpus"),
        (Machine(memory=64), "--memory"),
        (Machine(memory=1 << 20), "--memory"),
    ],
)
def test_an_impossible_machine_is_a_config_error(machine: Machine, option: str) -> None:
    with pytest.raises(ConfigError, match=option):
        machine.check()


def test_an_unknown_release_and_a_missing_share_are_config_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape("it has 4.17, 4.20")):
        Lab(xen="4.99")
    with pytest.raises(ConfigError, match="not a folder"):
        Lab(share=tmp_path / "none")


def test_commas_in_paths_are_doubled_for_qemu() -> None:
    arguments = _arguments(Machine(2, 1), Path("/a,b"), Path("/a,b/.lab"), 5, Path("/c,d/local"))
    assert any(word.startswith("local,path=/a,,b,mount_tag") for word in arguments)
    assert any("file=/c,,d/local,format" in word for word in arguments)
    assert arguments[arguments.index("-smp") + 1] == "2"
    assert "dom0_max_vcpus=1" in arguments[arguments.index("-append") + 1]
    assert arguments[arguments.index("-serial") + 1] == "file:/a,b/.lab/xen.log"
