"""The start of device models (contract §1.2, §2.1): scripts play their part; time is virtual."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.hypervisor.clock import VirtualClock
from tools.hypervisor.store import Store
from tools.toolstack.children import (
    START_TIMEOUT_NS,
    DeviceModel,
    Hooks,
    Loop,
    Owner,
    Program,
    StoreReadiness,
    pid_path,
    state_path,
)
from tools.toolstack.errors import HostFailure, ToolstackError

from .isolated import Context, await_zombie, exists, isolated

DOMID = 7
STATE = state_path(DOMID)
RUNS_ON = "exec sleep 60"
SCRIPT = {10, 255}
"""Where shells keep the script that they read."""


class Host:
    """A store, a loop in virtual time, and a script that is started as a device model."""

    def __init__(self, folder: Path, script: str, hooks: Hooks | Owner | None = None) -> None:
        self.clock = VirtualClock()
        self.context = Context(hooks, Loop(self.clock))
        self.loop = self.context.loop
        self.store = Store()
        self.path = folder / "device-model"
        self.path.write_text(f"#!/bin/sh\n{script}\n")
        self.path.chmod(0o755)
        self.log = folder / "dm.log"
        self.outcomes: list[HostFailure | None] = []
        self.ends: list[int] = []
        self.model: DeviceModel

    def start(
        self,
        *arguments: str,
        inherited: tuple[int, ...] = (),
        environment: dict[str, str] | None = None,
        record: Callable[[int], object] | None = None,
    ) -> Host:
        program = Program(self.path, arguments, self.log, environment or {}, inherited)
        self.model = DeviceModel(
            self.context.children,
            self.loop,
            program,
            StoreReadiness(self.store, STATE),
            record_pid=record or (lambda pid: self.store.write(pid_path(DOMID), str(pid))),
            started=self.outcomes.append,
            died=self.ends.append,
        )
        return self

    def outcome(self) -> HostFailure | None:
        self.loop.run_until(lambda: bool(self.outcomes))
        return self.outcomes[0]

    def failure(self) -> str:
        outcome = self.outcome()
        assert outcome is not None
        assert not self.model.running
        return str(outcome)

    def output(self) -> str:
        """What the script has written, once it has ended by itself."""
        self.failure()
        return self.log.read_text()

    def kill(self) -> None:
        self.model.signal(signal.SIGKILL)
        self.context.run_until_idle()


@isolated
def test_s2_1_running_in_the_store_confirms(tmp_path: Path) -> None:
    host = Host(tmp_path, RUNS_ON).start()
    host.store.write(STATE, "running")
    assert host.outcome() is None
    assert host.model.running
    host.kill()
    assert host.outcomes == [None]
    assert host.ends == [signal.SIGKILL]


@isolated
def test_s2_1_the_store_may_tell_on_another_thread(tmp_path: Path) -> None:
    host = Host(tmp_path, RUNS_ON).start()
    thread = threading.Timer(0, host.store.write, (STATE, "running"))
    thread.start()
    assert host.outcome() is None
    thread.join()
    host.kill()


@pytest.mark.parametrize("value", ["", "Running", "running ", "prelaunch"])
@isolated
def test_s2_1_any_other_text_means_waiting_on(tmp_path: Path, value: str) -> None:
    host = Host(tmp_path, RUNS_ON).start()
    host.store.write(STATE, value)
    host.loop.step(0)
    assert host.outcomes == []
    host.store.write(STATE, "running")
    assert host.outcome() is None
    host.kill()


@isolated
def test_s2_1_a_stale_running_confirms_at_once(tmp_path: Path) -> None:
    host = Host(tmp_path, RUNS_ON)
    host.store.write(STATE, "running")
    host.start()
    assert host.outcomes == []
    assert host.outcome() is None
    host.kill()


@isolated
def test_s2_1_after_sixty_seconds_it_is_killed_and_the_start_has_failed(tmp_path: Path) -> None:
    host = Host(tmp_path, RUNS_ON).start()
    assert START_TIMEOUT_NS == 60 * 10**9
    host.clock.advance_to(START_TIMEOUT_NS - 1)
    host.loop.step(0)
    assert host.outcomes == []
    assert host.model.running
    host.clock.advance_to(START_TIMEOUT_NS)
    assert "it was not ready after 60 s" in host.failure()
    assert not exists(host.model.pid)
    host.store.write(STATE, "running")
    host.loop.step(0)
    assert len(host.outcomes) == 1
    assert host.ends == []


@pytest.mark.parametrize("confirmed", [True, False])
@isolated
def test_the_watch_ends_with_the_start(tmp_path: Path, confirmed: bool) -> None:
    host = Host(tmp_path, RUNS_ON).start()
    assert len(host.store._watches) == 1
    if confirmed:
        host.store.write(STATE, "running")
        host.outcome()
    else:
        host.kill()
    assert host.store._watches == []
    assert host.clock.next_deadline() is None
    host.kill()


@isolated
def test_s2_1_time_has_no_say_after_readiness(tmp_path: Path) -> None:
    host = Host(tmp_path, RUNS_ON).start()
    host.store.write(STATE, "running")
    host.outcome()
    host.clock.advance_to(2 * START_TIMEOUT_NS)
    host.loop.step(0)
    assert host.model.running
    host.kill()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exit 0", "exited with status 0"),
        ("exit 3", "exited with status 3"),
        ("kill -SEGV $$", "was killed by SIGSEGV"),
    ],
)
@isolated
def test_s1_2_any_end_before_readiness_even_status_0_is_a_failed_start(
    tmp_path: Path, script: str, words: str
) -> None:
    host = Host(tmp_path, script).start()
    assert f"it {words} before it was ready" in host.failure()
    assert host.ends == []


@isolated
def test_a_failed_start_says_the_end_of_the_log(tmp_path: Path) -> None:
    host = Host(tmp_path, "seq 1 100000; printf 'no \\033[1m such device' >&2; exit 1").start()
    lines = host.failure().splitlines()
    assert lines[0].endswith(f"the end of {host.log}:")
    assert str(host.model.pid) in lines[0]
    assert lines[1:] == [*(f"  {n}" for n in range(99992, 100001)), "  no ?[1m such device"]


@isolated
def test_a_log_of_one_endless_line_makes_no_endless_message(tmp_path: Path) -> None:
    host = Host(tmp_path, "head -c 1000000 /dev/zero; exit 1").start()
    assert len(host.failure()) < 5000


@isolated
def test_a_failed_start_without_a_log_says_so(tmp_path: Path) -> None:
    host = Host(tmp_path, "exit 1").start()
    assert host.failure().endswith(f"nothing in {host.log}")


@isolated
def test_s1_2_it_leads_a_session_of_its_own(tmp_path: Path) -> None:
    host = Host(tmp_path, "read -r line </proc/$$/stat; echo $line").start()
    fields = host.output().split()
    assert fields[4] == fields[5] == str(host.model.pid)
    assert os.getsid(0) != host.model.pid


@isolated
def test_s1_2_stdin_is_dev_null_and_both_outputs_are_the_log(tmp_path: Path) -> None:
    host = Host(tmp_path, "echo err >&2; cd /proc/$$/fd; readlink 0 1 2; wc -c").start()
    log = str(host.log)
    assert host.output().split() == ["err", "/dev/null", log, log, "0"]
    assert host.log.stat().st_mode & 0o7777 == 0o644 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@isolated
def test_s1_2_it_gets_the_chosen_descriptors_under_their_numbers_and_no_others(
    tmp_path: Path,
) -> None:
    state = tmp_path / "state"
    state.write_text("saved")
    chosen = fcntl.fcntl(os.open(state, os.O_RDONLY), fcntl.F_DUPFD_CLOEXEC, 300)
    leaked = fcntl.fcntl(chosen, fcntl.F_DUPFD, 400)
    assert os.get_inheritable(leaked)
    host = Host(tmp_path, "cat /proc/self/fd/300; echo; ls /proc/$$/fd")
    first, *descriptors = host.start(inherited=(chosen,)).output().split()
    assert first == "saved"
    assert {int(one) for one in descriptors} - SCRIPT == {0, 1, 2, 300}
    assert not os.get_inheritable(chosen)


@isolated
def test_it_starts_where_the_standard_descriptors_are_closed(tmp_path: Path) -> None:
    host = Host(tmp_path, "cd /proc/$$/fd; readlink 0 1 2")
    for fd in range(3):
        os.close(fd)
    assert host.start().output().split() == ["/dev/null", str(host.log), str(host.log)]


def test_a_standard_descriptor_cannot_be_inherited() -> None:
    with pytest.raises(ValueError, match="standard"):
        Program(Path("/bin/true"), (), Path("log"), inherited=(2,))


@isolated
def test_s1_2_sigpipe_is_as_by_default_and_the_environment_has_the_additions(
    tmp_path: Path,
) -> None:
    os.environ["KEPT"] = "kept"
    host = Host(tmp_path, "grep SigIgn /proc/$$/status; echo $0 $1 $KEPT $XEN_DOMAIN_ID")
    host.start("-xen-domid", environment={"XEN_DOMAIN_ID": "7"})
    words = host.output().split()
    ignored = int(words[1], 16)
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD):
        assert not ignored >> (number - 1) & 1
    assert words[2:] == [str(host.path), "-xen-domid", "kept", "7"]


@isolated
def test_the_log_of_an_earlier_run_moves_up_and_ten_are_kept(tmp_path: Path) -> None:
    for number in range(13):
        host = Host(tmp_path, f"echo run {number}").start()
        assert host.output() == f"run {number}\n"
    texts = {path.name: path.read_text() for path in tmp_path.glob("dm.log*")}
    expected = {"dm.log": "run 12\n"} | {f"dm.log.{n}": f"run {12 - n}\n" for n in range(1, 11)}
    assert texts == expected


@isolated
def test_s1_2_its_pid_is_recorded(tmp_path: Path) -> None:
    host = Host(tmp_path, RUNS_ON).start()
    assert host.store.read("/local/domain/7/image/device-model-pid") == str(host.model.pid)
    host.kill()


@isolated
def test_a_pid_that_cannot_be_recorded_fails_the_start_and_leaves_no_process(
    tmp_path: Path,
) -> None:
    host = Host(tmp_path, RUNS_ON).start(record=lambda pid: 1 // 0)
    assert "cannot be recorded" in host.failure()
    assert not exists(host.model.pid)


@isolated
def test_s1_1_what_is_not_executable_is_the_users_mistake(tmp_path: Path) -> None:
    host = Host(tmp_path, RUNS_ON)
    host.path.chmod(0o644)
    with pytest.raises(ToolstackError, match=f"device model {host.path} is not executable"):
        host.start()
    host.path.unlink()
    with pytest.raises(ToolstackError):
        host.start()


@isolated
def test_what_cannot_be_executed_after_all_says_why_in_the_failure(tmp_path: Path) -> None:
    host = Host(tmp_path, RUNS_ON)
    host.path.write_text("#!/nonexistent/interpreter\n")
    text = host.start().failure()
    assert "exited with status 127" in text
    assert "execve" in text
    assert "No such file or directory" in text


@isolated
def test_a_start_that_cannot_begin_leaves_nothing(tmp_path: Path) -> None:
    host = Host(tmp_path, RUNS_ON)
    host.context.start()
    host.context.run_until_idle()
    before = sorted(os.listdir("/proc/self/fd"))
    host.log = tmp_path / "missing" / "dm.log"
    with pytest.raises(HostFailure, match="log file"):
        host.start()
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert host.clock.next_deadline() is None
    host.store.write(STATE, "running")
    assert host.loop.step(0) == 0


@isolated
def test_a_whole_life_leaves_no_descriptor(tmp_path: Path) -> None:
    host = Host(tmp_path, RUNS_ON).start()
    host.kill()
    before = sorted(os.listdir("/proc/self/fd"))
    for confirmed in (True, False):
        host = Host(tmp_path, RUNS_ON, Owner.MAINLOOP).start()
        if confirmed:
            host.store.write(STATE, "running")
            host.outcome()
        host.model.signal(signal.SIGTERM)
        host.context.children.reaped(*os.waitpid(host.model.pid, 0))
        assert not host.model.signal(signal.SIGTERM)
        host.context.children.close()
        host.loop.close()
    assert sorted(os.listdir("/proc/self/fd")) == before


@isolated
def test_a_pid_that_the_application_has_reaped_gets_no_signal(tmp_path: Path) -> None:
    """Why device models are signalled by pidfd."""
    host = Host(tmp_path, RUNS_ON, Owner.MAINLOOP).start()
    os.kill(host.model.pid, signal.SIGKILL)
    await_zombie(host.model.pid)
    status = os.waitpid(host.model.pid, 0)[1]
    assert host.model.running
    assert not host.model.signal(signal.SIGTERM)
    host.context.children.reaped(host.model.pid, status)
    assert not host.model.running


@isolated
def test_a_signal_right_after_the_start_ends_it_whatever_the_application_handles(
    tmp_path: Path,
) -> None:
    """The application's handler must not swallow it between fork and exec."""
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    for _ in range(20):
        host = Host(tmp_path, RUNS_ON, Owner.MAINLOOP).start()
        host.model.signal(signal.SIGTERM)
        pid, status = os.waitpid(host.model.pid, 0)
        assert os.WTERMSIG(status) == signal.SIGTERM
        host.context.children.reaped(pid, status)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
