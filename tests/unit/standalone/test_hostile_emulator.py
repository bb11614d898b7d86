"""What an emulator can do to the descriptors that it shares: it harms itself, and nobody else."""

from __future__ import annotations

import fcntl
import gc
import os
import resource
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EMFILE

import pytest

from protocol import layouts
from tools.hypervisor.clock import VirtualClock
from tools.hypervisor.domain import Domain
from tools.hypervisor.errors import DomainEnded

from .core_emulator import PATIENCE, PORT, Emulator, Host, Running, readable, until

FULL = struct.pack("<Q", (1 << 64) - 2)


def opened(host: Host) -> tuple[Domain, Emulator]:
    domain = host.domain()
    emulator = host.emulator(domain.domid).open()
    emulator.map(PORT, 0, 0xFF)
    return domain, emulator


def asking(domain: Domain) -> Running[int]:
    return Running(lambda: domain.vcpus[0].read(PORT, 5, 1))


def fill(fd: int) -> None:
    """Fill an eventfd to its limit, where a blocking write waits."""
    os.set_blocking(fd, False)
    try:
        os.eventfd_read(fd)
    except BlockingIOError:
        pass
    os.write(fd, FULL)
    os.set_blocking(fd, True)


def is_free(domain: Domain) -> bool:
    """Whether another thread gets the domain's lock."""

    def attempt() -> bool:
        if not domain.lock.acquire(timeout=PATIENCE / 2):
            return False
        domain.lock.release()
        return True

    return Running(attempt).result()


@pytest.mark.parametrize("size", [0, 1, 1 << 30])
def test_no_shared_file_can_be_resized(host: Host, size: int) -> None:
    _, emulator = opened(host)
    _, pages = emulator.ask(layouts.LOCAL_CALL_RESOURCE, struct.pack("<HHII", 0, emulator.id, 0, 2))
    memory, clock, *_ = emulator.hello_fds
    for fd in (memory, clock, *pages):
        with pytest.raises(PermissionError):
            os.ftruncate(fd, size)
        with pytest.raises(PermissionError):
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


def test_a_full_event_of_the_vcpus_does_not_hold_those_who_end_the_domain(host: Host) -> None:
    domain, emulator = opened(host)
    other = host.domain()
    fill(emulator.vcpus[0].back)
    Running(lambda: domain.crash("over")).result()
    assert is_free(domain)
    assert host.emulator(other.domid).open().page


def test_a_full_event_of_the_emulators_counts_as_raised(host: Host) -> None:
    domain, emulator = opened(host)
    fill(emulator.vcpus[0].front)
    access = asking(domain)
    until(lambda: emulator.request().state)
    assert is_free(domain)
    emulator.answer(7)
    assert access.result() == 7
    fill(emulator.vcpus[0].front)
    os.set_blocking(emulator.vcpus[0].front, False)
    access = asking(domain)
    until(lambda: emulator.request().state)
    emulator.answer(8)
    assert access.result() == 8


@pytest.mark.parametrize("blocking", [True, False])
def test_a_vcpu_sleeps_and_ends_whatever_is_made_of_its_event(host: Host, blocking: bool) -> None:
    domain, emulator = opened(host)
    back = emulator.vcpus[0].back
    access = asking(domain)
    emulator.wait()
    os.set_blocking(back, blocking)
    for _ in range(100):
        # The vCPU is woken, and the reason may be gone before it looks.
        os.eventfd_write(back, 1)
        drain(back)
    assert not access.done
    emulator.answer(9)
    assert access.result() == 9
    access = asking(domain)
    emulator.wait()
    domain.vcpus[0].stop()
    drain(back)
    with pytest.raises(DomainEnded):
        access.result()


def drain(fd: int) -> None:
    try:
        os.preadv(fd, [bytearray(8)], -1, os.RWF_NOWAIT)
    except BlockingIOError:
        return


def stepping(host: Host) -> tuple[Domain, Emulator]:
    domain = host.domain(clock=VirtualClock())
    return domain, host.emulator(domain.domid)


def test_a_clock_that_is_never_answered_crashes_the_domain_with_a_line(host: Host) -> None:
    host.hypervisor.clock_patience = 0.05
    domain, _ = stepping(host)
    assert Running(lambda: domain.step_clock(1000)).result() == 1000
    assert domain.crash_message == (
        f"the emulator with process id {os.getpid()} has not answered the clock for 0.05 s"
    )
    host.hypervisor.clock_patience = 100.0
    Running(lambda: domain.step_clock(1000)).result()


def test_a_full_or_drained_clock_event_hurts_the_emulator_only(host: Host) -> None:
    domain, emulator = stepping(host)
    _, page, question, done = emulator.hello_fds
    fill(question)
    fill(done)
    step = Running(lambda: domain.step_clock(1000))
    until(lambda: struct.unpack("<Q", os.pread(page, 8, layouts.LOCAL_CLOCK_ASKED_OFFSET))[0])
    os.set_blocking(done, False)
    drain(done)
    fill(done)
    emulator.close()
    step.result()
    assert Running(lambda: host.emulator(domain.domid)).result().hello


@contextmanager
def descriptors(number: int) -> Iterator[None]:
    """Let the process have ``number`` descriptors more than it uses, and no others."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    holes: list[int] = []
    try:
        # What earlier tests left must not be closed meanwhile.
        gc.collect()
        # The limit is on the number, so that every lower one has to be in use.
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        while (fd := os.open("/dev/null", os.O_RDONLY)) < highest:
            holes.append(fd)
        os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + number, before[1]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for hole in holes:
            os.close(hole)


@pytest.mark.parametrize("number", range(1, 5))
def test_a_hello_without_descriptors_is_refused_and_all_others_are_served(
    host: Host, number: int
) -> None:
    domain = host.domain()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
        peer.settimeout(PATIENCE)
        peer.connect(host.hypervisor.path)
        # A first answer: the connection is accepted before descriptors run out.
        peer.send(struct.pack("<II", layouts.LOCAL_CALL_MEMORY, 1))
        peer.recv(100)
        with descriptors(number):
            before = len(os.listdir("/proc/self/fd"))
            body = struct.pack("<QIII", layouts.LOCAL_MAGIC, layouts.LOCAL_VERSION, domain.domid, 1)
            peer.send(struct.pack("<II", layouts.LOCAL_CALL_HELLO, 2) + body)
            answer = peer.recv(100)
            assert struct.unpack("<IIi", answer) == (layouts.LOCAL_CALL_HELLO, 2, -EMFILE)
            assert len(os.listdir("/proc/self/fd")) == before
    assert host.emulator(domain.domid).open().page


def test_connections_that_cannot_be_accepted_wait_without_effort(host: Host) -> None:
    domain = host.domain()
    peers = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(3)]
    with descriptors(1):
        for peer in peers:
            peer.connect(host.hypervisor.path)
        until(lambda: host.hypervisor._resting)
        busy = time.thread_time()
        before = time.process_time()
        assert not readable(peers[1].fileno(), 0.3)
        assert time.process_time() - before - (time.thread_time() - busy) < 0.15
    for peer in peers:
        peer.close()
    assert host.emulator(domain.domid).hello
