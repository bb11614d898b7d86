"""Both sides in one process: what a device may do with two processes, it may do here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from protocol import layouts
from tools.hypervisor.errors import DomainEnded
from tools.hypervisor.hypervisor import Hypervisor
from tools.hypervisor.vcpu import MEMORY, PORT
from tools.prototype.in_process import DirectModel, DirectVcpu

LIMIT = 20.0
LATER = """
from dm import RO, Bank, Device, MmioWindow, PortWindow, Register, Transient

class Ports(Bank, size=16, width=32):
    later = Register.at(0)
    now = Register.at(4, reset=5)

class Window(Bank, size=0x1000, width=32):
    later = Register.at(0, access=RO)

class Later(Device):
    ports = PortWindow(Ports, at=0x5000)
    window = MmioWindow(Window, at=0xFE000000)
    waiting = Transient()

    @Ports.later.on_read
    def _read(self):
        self.waiting = self.defer()
        raise self.waiting

    @Ports.later.on_write
    def _write(self, new, old):
        self._read()

    @Window.later.on_read
    def _read_memory(self):
        self._read()
"""


class World:
    """A domain of two vCPUs and its device model; each access is made by a thread of its own."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "later.py"
        self.file.write_text(LATER)
        self.hypervisor = Hypervisor(str(folder / "xen"))
        self.domain = self.hypervisor.create_domain(vcpus=2, ram=[(0, 1 << 20)])
        words = ["-machine", "none", "-device", f"{self.file}:Later", "-observe", "reload=on"]
        self.model = DirectModel(self.domain, self.hypervisor.store, words, lambda: None)
        self.vcpus = self.model.vcpus()

    @property
    def device(self) -> Any:
        return self.model.model.machine.devices[0]

    def start(self, access: Callable[[DirectVcpu], object], vcpu: int = 0) -> Future[object]:
        """Begin an access that its device answers later."""
        done: Future[object] = Future()

        def run() -> None:
            try:
                done.set_result(access(self.vcpus[vcpu]))
            except BaseException as error:
                done.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        with self.domain.changed:
            wanted = self.domain.changed.wait_for(lambda: self.domain.outstanding, LIMIT)
        assert wanted
        return done

    def complete(self, value: int) -> None:
        with self.domain.lock:
            self.device.waiting.complete(value)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.model.end()
    made.domain.destroy()
    made.hypervisor.close()


@pytest.mark.parametrize(("space", "address"), [(PORT, 0x5000), (MEMORY, 0xFE000000)])
def test_an_answer_may_come_later_and_only_its_vcpu_waits(
    world: World, space: int, address: int
) -> None:
    asked = world.start(lambda vcpu: vcpu.read(space, address, 4))
    assert world.vcpus[1].read(PORT, 0x5004, 4) == 5
    assert not asked.done()
    world.complete(0x1_1234_5678)
    assert asked.result(LIMIT) == 0x12345678
    assert world.model.model.machine.errors == 0


def test_a_write_may_be_done_later(world: World) -> None:
    asked = world.start(lambda vcpu: vcpu.write(PORT, 0x5000, 4, 1))
    assert not asked.done()
    world.complete(0)
    assert asked.result(LIMIT) is None


def test_a_shutdown_waits_for_the_answer(world: World) -> None:
    asked = world.start(lambda vcpu: vcpu.read(PORT, 0x5000, 4))
    world.domain.shutdown(layouts.SHUTDOWN_REASON_SOFT_RESET)
    states = [world.domain.state]
    world.complete(7)
    assert asked.result(LIMIT) == 7
    assert [*states, world.domain.state] == ["shutting-down", "shutdown"]


def test_a_vcpu_that_waits_ends_with_its_domain(world: World) -> None:
    asked = world.start(lambda vcpu: vcpu.read(PORT, 0x5000, 4))
    world.domain.crash("it is enough")
    with pytest.raises(DomainEnded):
        asked.result(LIMIT)


def test_a_string_gets_ones_as_with_two_processes(world: World) -> None:
    world.vcpus[0].string(port=0x5000, size=4, count=2, gpa=0x1000, reads=True, down=False)
    assert world.domain.memory.read(0x1000, 8) == b"\xff" * 8
    assert world.domain.outstanding == 0


def test_after_a_reload_the_new_code_answers_what_the_old_one_owed(world: World) -> None:
    before = world.device
    assert world.vcpus[1].read(PORT, 0x5000 + 4, 4) == 5
    asked = world.start(lambda vcpu: vcpu.read(PORT, 0x5000, 4))
    fresh = LATER.replace("self.waiting = self.defer()\n        raise self.waiting", "return 9")
    world.file.with_name("fresh").write_text(fresh)
    world.file.with_name("fresh").rename(world.file)
    assert asked.result(LIMIT) == 9
    assert world.device is not before
    assert world.vcpus[1].read(PORT, 0x5000, 4) == 9
