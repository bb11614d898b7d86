"""How vCPUs on KVM are held, let go and ended, from wherever they are; and what is left then."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from protocol import layouts
from tools.hypervisor.engines.kvm.engine import KvmEngine
from tools.hypervisor.engines.kvm.kick import KICK
from tools.hypervisor.errors import DomainEnded, HypercallError
from tools.hypervisor.images import CpuStart
from tools.hypervisor.images.cpu_start import RESET

from .core_emulator import PORT, Host, Running
from .kvm_support import (
    CODE,
    DATA,
    HYPERCALL_PAGE,
    LONG,
    MMIO,
    SHUTDOWN,
    KvmGuest,
    kvm_guest,
    needs,
    until,
)
from .machine import assemble

COMMAND = 0x1000
SAY = f"mov ${COMMAND}, %dx; out %al, %dx"
LOOPS = {
    "spinning": f"{SAY}; 1: pause; jmp 1b",
    "halted": f"{SAY}; sti; 1: hlt; jmp 1b",
    "halted for good": f"{SAY}; cli; 1: hlt; jmp 1b",
    "at a port": f"{SAY}; 1: out %al, %dx; jmp 1b",
    "at device memory": f"{SAY}; mov ${MMIO}, %esi; 1: mov (%rsi), %eax; jmp 1b",
}
COUNTING = f"{LONG} {SAY}; 1: incl {DATA}; jmp 1b"
PROMPT = 5.0
"""Seconds within which what is asked for happens; far below the guests' limit."""


def started(guest: KvmGuest) -> KvmGuest:
    """Start it and wait until it runs."""
    guest.engine.start()
    until(lambda: guest.writes or guest.domain.state != "running")
    return guest


def runs(guest: KvmGuest, gpa: int = DATA) -> None:
    """Wait until a counting guest counts."""
    before = guest.word(gpa)
    until(lambda: guest.word(gpa) != before)


class TestStop:
    @pytest.mark.parametrize("loop", LOOPS)
    def test_from_wherever_a_vcpu_is(self, tmp_path: Path, loop: str) -> None:
        with kvm_guest(tmp_path, f"{LONG} {LOOPS[loop]}") as guest:
            stopping = Running(started(guest).engine.stop)
            until(lambda: stopping.done)
            assert guest.engine.join(0)
            assert guest.engine.error is None
            assert guest.domain.state == "running"

    def test_vcpus_that_were_never_started_by_the_guest(self, tmp_path: Path) -> None:
        with kvm_guest(tmp_path, f"{LONG} {LOOPS['spinning']}", vcpus=3) as guest:
            stopping = Running(started(guest).engine.stop)
            until(lambda: stopping.done)
            assert guest.engine.join(0)

    def test_at_once_after_the_start(self, tmp_path: Path) -> None:
        """Before a vCPU's thread can be kicked."""
        for _ in range(20):
            with kvm_guest(tmp_path, LOOPS["spinning"]) as guest:
                guest.engine.start()
                stopping = Running(guest.engine.stop)
                until(lambda ending=stopping: ending.done)  # type: ignore[misc]

    def test_before_any_start_and_again(self, tmp_path: Path) -> None:
        with kvm_guest(tmp_path, LOOPS["spinning"]) as guest:
            guest.engine.stop()
            guest.engine.stop()

    def test_by_the_vcpus_own_thread(self, tmp_path: Path) -> None:
        """Who hears of the domain's end there may well stop its engine, in a hypercall, too."""
        source = f"{LONG} {HYPERCALL_PAGE}; movl $0, {DATA}; {SHUTDOWN}; jmp finish"
        with kvm_guest(tmp_path, source, hypercalls=True) as guest:
            guest.domain.on_shutdown.append(lambda domain: guest.engine.stop())
            guest.run()
            assert guest.domain.shutdown_reason == layouts.SHUTDOWN_REASON_POWEROFF
            assert guest.last is None

    def test_a_vcpu_that_waits_for_an_answer(self, host: Host, tmp_path: Path) -> None:
        needs("real")
        domain = host.domain()
        emulator = host.emulator(domain.domid).open()
        emulator.map(PORT, COMMAND, COMMAND)
        code = assemble(tmp_path, LOOPS["spinning"], 16)
        domain.memory.write(CODE, code)
        engine = KvmEngine(domain, CpuStart("real", ip=CODE))
        engine.start()
        emulator.wait()
        stopping = Running(engine.stop)
        until(lambda: stopping.done)
        assert engine.error is None


class Rests:
    """Watches a vCPU's thread come to `Vcpu.rest`: ``inside`` it, and ``after`` is called next."""

    def __init__(self, guest: KvmGuest) -> None:
        vcpu = guest.domain.vcpus[0]
        self._rest = vcpu.rest
        self.inside = False
        self.after: Callable[[], object] = lambda: None
        vcpu.rest = self._watch  # type: ignore[method-assign]

    def _watch(self) -> None:
        self.inside = True
        try:
            self._rest()
        finally:
            self.inside = False
        after, self.after = self.after, lambda: None
        after()


class TestPause:
    def test_a_paused_guest_does_nothing_and_goes_on(self, tmp_path: Path) -> None:
        with kvm_guest(tmp_path, COUNTING) as guest:
            rests = Rests(guest)
            started(guest)
            runs(guest)
            guest.domain.pause()
            until(lambda: rests.inside)
            settled = guest.word()
            threading.Event().wait(0.05)
            assert guest.word() == settled
            guest.domain.unpause()
            runs(guest)

    def test_no_kick_is_lost(self, tmp_path: Path) -> None:
        """A thousand times, and each time the guest must come to rest."""
        with kvm_guest(tmp_path, COUNTING) as guest:
            rests = Rests(guest)
            started(guest)
            for _ in range(1000):
                guest.domain.pause()
                until(lambda: rests.inside)
                guest.domain.unpause()
                until(lambda: not rests.inside)
            runs(guest)
            assert guest.domain.crash_message is None

    def test_not_one_that_comes_while_the_last_is_seen_to(self, tmp_path: Path) -> None:
        with kvm_guest(tmp_path, COUNTING) as guest:
            rests = Rests(guest)
            started(guest)
            runs(guest)
            rests.after = guest.domain.pause
            guest.domain.pause()
            guest.domain.unpause()
            until(lambda: rests.inside and guest.domain.held)
            guest.domain.unpause()
            runs(guest)

    def test_two_who_pause_at_once(self, tmp_path: Path) -> None:
        with kvm_guest(tmp_path, COUNTING, vcpus=2) as guest:
            started(guest)

            def hammer() -> None:
                for _ in range(500):
                    guest.domain.pause()
                    guest.domain.unpause()

            for one in [Running(hammer), Running(hammer)]:
                one.result()
            runs(guest)

    def test_signals_do_not_pile_up_for_a_vcpu_that_is_elsewhere(self, tmp_path: Path) -> None:
        """A thread that waits for an answer has them all blocked; there is room for few."""
        with kvm_guest(tmp_path, f"{LONG} {LOOPS['at a port']}") as guest:
            held, go_on = threading.Event(), threading.Event()
            pending: list[str] = []

            class Slow:
                def read(self, address: int, size: int) -> int | None:
                    return None

                def write(self, address: int, size: int, value: int) -> bool:
                    if not held.is_set():
                        for _ in range(5000):
                            guest.domain.pause()
                            guest.domain.unpause()
                        status = Path("/proc/self/status").read_text()
                        pending.extend(line for line in status.splitlines() if "SigQ" in line)
                        held.set()
                    return True

            guest.domain.intercepts.remove(guest.log)
            guest.domain.intercepts.add_ports(COMMAND, COMMAND, Slow())
            guest.engine.start()
            assert held.wait(PROMPT)
            go_on.set()
        assert int(pending[0].split()[1].split("/")[0]) < 100


class TestEnd:
    @pytest.mark.parametrize(
        ("reason", "state"),
        [
            (layouts.SHUTDOWN_REASON_REBOOT, "shutdown"),
            (layouts.SHUTDOWN_REASON_POWEROFF, "shutdown"),
            (layouts.SHUTDOWN_REASON_CRASH, "crashed"),
        ],
    )
    def test_a_triple_fault_is_what_the_parameter_says(
        self, tmp_path: Path, reason: int, state: str
    ) -> None:
        with kvm_guest(tmp_path, f"{LONG} lidt no_idt; ud2") as guest:
            guest.domain.params.set(layouts.HVM_PARAM_TRIPLE_FAULT_REASON, reason)
            guest.engine.start()
            assert guest.engine.join(20)
            assert guest.domain.shutdown_reason == reason
            assert guest.domain.state == state
            assert guest.engine.error is None

    def test_an_exit_that_kvm_does_not_survive_is_a_crash_with_a_reason(
        self, tmp_path: Path
    ) -> None:
        """Code where no memory is cannot be emulated."""
        source = f"{LONG} mov $0xc0000000, %eax; jmp *%rax"
        with kvm_guest(tmp_path, source) as guest:
            guest.engine.start()
            assert guest.engine.join(20)
            message = guest.domain.crash_message
            assert guest.engine.error is None
        assert message is not None
        assert "\n" not in message
        assert message.startswith("KVM cannot run vCPU 0 at 0xc0000000: internal error 1")

    def test_an_error_of_this_side_crashes_the_domain_and_frees_everything(
        self, tmp_path: Path
    ) -> None:
        """The error, which is kept, has the frames that looked at the run page."""
        with kvm_guest(tmp_path, f"{LONG} {SAY}") as guest:
            guest.log.error = RuntimeError("broken")
            guest.engine.start()
            assert guest.engine.join(20)
            assert guest.engine.error is guest.log.error
            assert guest.domain.state == "crashed"
            guest.engine.stop()

    def test_a_crash_from_outside_ends_it(self, tmp_path: Path) -> None:
        with kvm_guest(tmp_path, COUNTING) as guest:
            started(guest)
            guest.domain.crash("enough")
            assert guest.engine.join(20)
            assert guest.engine.error is None

    def test_a_soft_reset_lets_it_go_on_where_it_was(self, tmp_path: Path) -> None:
        source = f"""{LONG}
        {SAY}; 2: mov ${COMMAND + 1}, %dx; in %dx, %eax; incl {DATA}; cmp $7, %eax; jne 2b
        mov {DATA}, %ebx; cmp $3, %ebx; jb 2b; jmp finish"""
        with kvm_guest(tmp_path, source) as guest:
            domain = guest.domain
            resets: list[int] = []

            class Resetting:
                def read(self, address: int, size: int) -> int | None:
                    domain.shutdown(layouts.SHUTDOWN_REASON_SOFT_RESET)
                    return 7

                def write(self, address: int, size: int, value: int) -> bool:
                    return False

            domain.intercepts.remove(guest.log)
            domain.intercepts.add_ports(COMMAND + 1, COMMAND + 4, Resetting())
            over = threading.Semaphore(0)
            domain.on_shutdown.append(lambda _: over.release())
            guest.engine.start()
            for count in range(3):
                assert over.acquire(timeout=PROMPT)
                resets.append(guest.word())
                assert domain.shutdown_reason == layouts.SHUTDOWN_REASON_SOFT_RESET
                assert guest.word() == count
                domain.soft_reset()
            assert guest.engine.join(20)
        assert guest.last == 3
        assert resets == [0, 1, 2]

    def test_a_shutdown_waits_for_the_answer_that_is_under_way(
        self, host: Host, tmp_path: Path
    ) -> None:
        needs("real")
        domain = host.domain()
        emulator = host.emulator(domain.domid).open()
        emulator.map(PORT, COMMAND, COMMAND)
        domain.memory.write(CODE, assemble(tmp_path, LOOPS["at a port"], 16))
        engine = KvmEngine(domain, CpuStart("real", ip=CODE))
        engine.start()
        emulator.wait()
        states: list[str] = []
        domain.shutdown(layouts.SHUTDOWN_REASON_POWEROFF)
        states.append(domain.state)
        emulator.answer()
        assert engine.join(PROMPT)
        states.append(domain.state)
        engine.stop()
        assert states == ["shutting-down", "shutdown"]


class TestNothingIsLeft:
    def test_neither_descriptors_nor_threads_nor_mappings(self, tmp_path: Path) -> None:
        def look() -> tuple[list[str], list[str], int]:
            gc.collect()
            fds = sorted(map(os.readlink, map("/proc/self/fd/{}".format, _open_fds())))
            maps = Path("/proc/self/maps").read_text().count("kvm")
            return fds, sorted(thread.name for thread in threading.enumerate()), maps

        def run(source: str, act: Callable[[KvmGuest], object]) -> None:
            with kvm_guest(tmp_path, source, vcpus=2) as guest:
                act(guest)

        run(f"{LONG} jmp finish", KvmGuest.run)
        before = look()
        run(f"{LONG} jmp finish", KvmGuest.run)
        run(COUNTING, started)
        run(COUNTING, lambda guest: None)
        run(f"{LONG} lidt no_idt; ud2", lambda guest: guest.engine.start())
        assert look() == before
        assert before[2] == 0

    def test_nor_a_signal_handler_nor_a_mask(self, tmp_path: Path) -> None:
        handler, mask = signal.getsignal(KICK), signal.pthread_sigmask(signal.SIG_BLOCK, ())
        with kvm_guest(tmp_path, COUNTING) as guest:
            started(guest)
        assert signal.getsignal(KICK) == handler == signal.SIG_DFL
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask

    def test_lines_may_still_be_set_afterwards(self, tmp_path: Path) -> None:
        """Device models and clocks do not end in the same instant; descriptors get new owners."""
        with kvm_guest(tmp_path, f"{LONG} jmp finish") as guest:
            guest.run()
            guest.engine.stop()
            interrupts = guest.domain.interrupts
            with guest.domain.lock:
                interrupts.set_isa_irq(5, 1)
                interrupts.set_intx(0, 0, 1)
                interrupts.inject_msi(0xFEE00000, 0x41)
                with pytest.raises(HypercallError):
                    interrupts.inject_msi(0xFEE00000, 0x141)
                guest.domain.memory.unmap_page(DATA >> 12)
            assert guest.domain.memory.on_change == []

    def test_any_thread_may_make_and_run_an_engine(self, tmp_path: Path) -> None:
        def elsewhere() -> int | None:
            with kvm_guest(tmp_path, f"{LONG} mov $9, %ebx; jmp finish") as guest:
                guest.run()
                return guest.last

        needs("long")
        assert Running(elsewhere).result() == 9

    def test_a_domain_that_has_ended_runs_nothing(self, tmp_path: Path) -> None:
        with kvm_guest(tmp_path, f"{LONG} {SAY}; jmp finish") as guest:
            guest.domain.crash("before it began")
            guest.engine.start()
            assert guest.engine.join(20)
            assert guest.log.entries == []
            with pytest.raises(DomainEnded):
                guest.domain.vcpus[0].read(PORT, COMMAND, 1)


def _open_fds() -> list[str]:
    """Those that are open after the listing itself is closed."""
    return [name for name in os.listdir("/proc/self/fd") if Path(f"/proc/self/fd/{name}").exists()]


def test_the_reset_vector_is_where_firmware_begins(host: Host, tmp_path: Path) -> None:
    needs("real")
    code = assemble(tmp_path, "mov $0xf5, %dx; mov %cs, %ax; out %al, %dx; 1: jmp 1b", 16, 0xFFF0)
    ram = [(0, 1 << 20), (0xFFFF0000, 0x10000)]
    domain = host.hypervisor.create_domain(vcpus=1, ram=ram)
    domain.memory.write(0xFFFFFFF0, code)
    emulator = host.emulator(domain.domid).open()
    emulator.map(PORT, 0xF5, 0xF5)
    engine = KvmEngine(domain, RESET)
    engine.start()
    request = emulator.wait()
    assert (request.address, request.data) == (0xF5, 0)
    engine.stop()
