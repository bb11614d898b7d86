"""Many vCPUs, emulators and domains at once: no answer is lost, doubled or crossed."""

from __future__ import annotations

import os
import select
import threading
from typing import Any

from tools.hypervisor.domain import Domain
from tools.hypervisor.engines import Engine
from tools.hypervisor.vcpu import MEMORY, PORT, Vcpu
from tools.hypervisor.watch import Watch

from .core_emulator import READ, READY, Emulator, Host, Running

VCPUS = 4
ROUNDS = 60


class Echo(threading.Thread):
    """Answers every read with what depends on the domain, the server, the address and the vCPU."""

    def __init__(self, emulator: Emulator, domid: int) -> None:
        super().__init__(daemon=True)
        self._emulator = emulator
        self._domid = domid
        self._poll = select.epoll()
        self._end_fd = os.eventfd(0)
        for bound in emulator.vcpus:
            self._poll.register(bound.front, select.EPOLLIN | select.EPOLLET)
        self._vcpu_of = {bound.front: vcpu for vcpu, bound in enumerate(emulator.vcpus)}
        self._poll.register(self._end_fd, select.EPOLLIN)
        self.served = 0

    def run(self) -> None:
        while True:
            for fd, _ in self._poll.poll():
                if fd == self._end_fd:
                    return
                vcpu = self._vcpu_of[fd]
                request = self._emulator.request(vcpu)
                if request.state == READY:
                    self.served += 1
                    self._emulator.answer(
                        expected(self._domid, self._emulator.id, request.address, vcpu), vcpu
                    )

    def end(self) -> None:
        os.eventfd_write(self._end_fd, 1)
        self.join()
        os.close(self._end_fd)
        self._poll.close()


def expected(domid: int, server: int, address: int, vcpu: int) -> int:
    return domid << 24 | server << 20 | vcpu << 16 | (address & 0xFFFF)


class Asking(Engine):
    """vCPUs that ask every server in turn and compare."""

    name = "asking"

    def __init__(self, domain: Domain, servers: int) -> None:
        super().__init__(domain)
        self._servers = servers
        self.wrong: list[Any] = []

    def run(self, vcpu: Vcpu) -> None:
        for turn in range(ROUNDS):
            for server in range(self._servers):
                space = PORT if turn & 1 else MEMORY
                address = (server << 8 | turn) + (0xFE000000 if space == MEMORY else 0)
                value = vcpu.read(space, address, 4)
                if value != expected(self.domain.domid, server, address, vcpu.id):
                    self.wrong.append((vcpu.id, address, value))


def test_no_answer_is_lost_doubled_or_crossed(host: Host) -> None:
    servers = 8
    engines, echoes = [], []
    for _ in range(2):
        domain = host.domain(vcpus=VCPUS)
        for vcpu in domain.vcpus[::2]:
            vcpu.watch = Watch(50_000)
        for number in range(servers):
            emulator = host.emulator(domain.domid).open(vcpus=VCPUS)
            emulator.map(PORT, number << 8, number << 8 | 0xFF)
            emulator.map(MEMORY, 0xFE000000 | number << 8, 0xFE0000FF | number << 8)
            echo = Echo(emulator, domain.domid)
            echo.start()
            echoes.append(echo)
        engines.append(Asking(domain, servers))
    for engine in engines:
        engine.start()
    for engine in engines:
        assert engine.join(60)
        assert engine.error is None
        assert engine.wrong == []
    for echo in echoes:
        echo.end()
    assert [echo.served for echo in echoes] == [VCPUS * ROUNDS] * 2 * servers


def test_an_engine_that_fails_crashes_its_domain_and_says_why(host: Host) -> None:
    domain = host.domain(vcpus=2)

    class Failing(Engine):
        name = "failing"

        def run(self, vcpu: Vcpu) -> None:
            if vcpu.id:
                raise RuntimeError("a bug")
            vcpu.rest()
            while True:
                vcpu.settle()

    engine = Failing(domain)
    engine.start()
    assert engine.join(20)
    assert isinstance(engine.error, RuntimeError)
    assert domain.state == "crashed"
    assert "a bug" in str(domain.crash_message)


def test_stopping_an_engine_ends_vcpus_that_wait_for_ever(host: Host) -> None:
    domain = host.domain(vcpus=2)
    emulator = host.emulator().open(vcpus=2)
    emulator.map(PORT, 5, 5)

    class Waiting(Engine):
        name = "waiting"

        def run(self, vcpu: Vcpu) -> None:
            vcpu.read(PORT, 5, 1)

    engine = Waiting(domain)
    engine.start()
    for number in range(2):
        assert emulator.wait(number).flags & READ
    assert not engine.join(0)
    engine.stop()
    assert engine.join(0)
    assert engine.error is None
    assert domain.state == "running"


def test_calls_of_emulators_and_requests_of_vcpus_go_on_side_by_side(host: Host) -> None:
    domain = host.domain()
    busy, idle = host.emulator().open(), host.emulator().open()
    busy.map(PORT, 5, 5)

    def ask() -> int:
        return sum(domain.vcpus[0].read(PORT, 5, 1) for _ in range(50))

    asked = Running(ask)
    for index in range(50):
        busy.wait()
        idle.map(PORT, 0x100 + 2 * index, 0x100 + 2 * index)
        idle.enable(idle.id, index & 1)
        busy.answer(1)
    assert asked.result() == 50
