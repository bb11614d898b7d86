"""The real `ioreqd-dm` against the stand-alone hypervisor: its life, service and successors."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol import layouts
from tools.hypervisor.clock import VirtualClock
from tools.hypervisor.errors import DomainEnded
from tools.hypervisor.vcpu import MEMORY, PORT

from .processes import COMMAND, LIMIT, World, place_bar, write_config

CMOS_INDEX, CMOS_DATA, SCRATCH = 0x70, 0x71, 0x40
COM1 = 0x3F8
SLOT, BAR = 4, 0xE0000000
EDU = ("-device", "edu,addr=4")
SOURCE, DESTINATION, COUNT, RUN_REGISTER = 0x80, 0x88, 0x90, 0x98
BUFFER = 0x40000
RUN, TO_MEMORY, INTERRUPT = 1, 2, 4
TRANSFER_TIME = 100_000_000
MSI_CONTROL, MSI_ADDRESS, MSI_DATA = 0x42, 0x44, 0x4C
MSI = (0xFEE01000, 0x4061)

COUNTER = """
from dm import Bank, Device, PortWindow, Register

class Ports(Bank, size=4, width=32):
    value = Register.at(0)

class Counter(Device):
    ports = PortWindow(Ports, at=0x5000)

    @Ports.value.on_read
    def count(self):
        value = self.ports.value.value
        self.ports.value.value = value + 1
        return value
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def transfer(world: World, source: int, destination: int, count: int, command: int) -> None:
    """Start a DMA transfer of the educational device."""
    for register, value in (
        (SOURCE, source),
        (DESTINATION, destination),
        (COUNT, count),
        (RUN_REGISTER, command | RUN),
    ):
        world.vcpu.write(MEMORY, BAR + register, 8, value)


def files(world: World) -> list[str]:
    """What a device model has left beside the socket."""
    return sorted(path.name for path in world.folder.iterdir() if path.name.startswith("xen-"))


def test_a_port_is_answered(world: World) -> None:
    world.start()
    assert world.vcpu.read(PORT, 0x64, 1) & 0x80 == 0
    world.vcpu.write(PORT, CMOS_INDEX, 1, SCRATCH)
    world.vcpu.write(PORT, CMOS_DATA, 1, 0xA5)
    assert world.domain.vcpus[1].read(PORT, CMOS_DATA, 1) == 0xA5
    assert world.vcpu.read(PORT, 0x5000, 4) == 0xFFFFFFFF


@pytest.mark.parametrize("longest", ["0", "3000"])
def test_sleeping_or_watching_no_answer_is_lost(world: World, longest: str) -> None:
    serial = ("-serial", "null")
    world.start(*serial, *serial, machine=f"xenfv,poll-max-us={longest}")
    wrong: list[tuple[int, int]] = []

    def hammer(number: int) -> None:
        vcpu = world.domain.vcpus[number]
        for count in range(2000):
            value = (count * 7 + number) & 0xFF
            # The scratch registers of two UARTs: one for each vCPU.
            vcpu.write(PORT, COM1 + 7 - 0x100 * number, 1, value)
            found = vcpu.read(PORT, COM1 + 7 - 0x100 * number, 1)
            if found != value:
                wrong.append((value, found))

    threads = [threading.Thread(target=hammer, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert world.domain.state == "running"


def test_the_serial_port_reaches_its_file(world: World) -> None:
    world.start("-serial", f"file:{world.folder}/com1")
    for byte in b"hello\n":
        world.vcpu.write(PORT, COM1, 1, byte)
    assert (world.folder / "com1").read_bytes() == b"hello\n"


def test_a_device_moves_memory_and_sends_a_message(world: World) -> None:
    world.start(*EDU)
    place_bar(world.vcpu, SLOT, BAR)
    write_config(world.vcpu, SLOT, MSI_ADDRESS, MSI[0])
    write_config(world.vcpu, SLOT, MSI_DATA, MSI[1], 2)
    write_config(world.vcpu, SLOT, MSI_CONTROL, 1, 2)
    world.domain.memory.write(0x1000, b"there and back")
    for command, source, destination in (
        (INTERRUPT, 0x1000, BUFFER),
        (INTERRUPT | TO_MEMORY, BUFFER, 0x7FF000),
    ):
        world.messages.came.clear()
        transfer(world, source, destination, 14, command)
        assert world.messages.came.wait(LIMIT)
        world.vcpu.write(MEMORY, BAR + 0x64, 4, 0x100)
    assert world.domain.memory.read(0x7FF000, 14) == b"there and back"
    assert world.messages.sent == [MSI, MSI]


def test_a_level_is_there_before_the_request_that_raised_it_is_answered(world: World) -> None:
    world.start(*EDU)
    place_bar(world.vcpu, SLOT, BAR)
    gsi = (SLOT * 4 & 31) + 16
    for level in (1, 0) * 50:
        world.vcpu.write(MEMORY, BAR + (0x60 if level else 0x64), 4, 1)
        assert world.messages.levels[gsi] == level


def test_buffered_writes_are_done_before_the_request_behind_them(world: World) -> None:
    file = world.folder / "text.py"
    file.write_text(
        "from dm import Bank, Device, MmioWindow, Register\n"
        "class Screen(Bank, size=0x100):\n"
        "    cell = Register.array(0, 64)\n"
        "class Text(Device):\n"
        "    screen = MmioWindow(Screen, at=0xB8000)\n"
    )
    world.start("-device", f"{file}:Text")
    for count in range(700):
        world.vcpu.write(MEMORY, 0xB8000 + count % 64 * 4, 4, count)
    found = [world.vcpu.read(MEMORY, 0xB8000 + cell * 4, 4) for cell in range(64)]
    assert found == [max(n for n in range(700) if n % 64 == cell) for cell in range(64)]


class TestEnd:
    def test_sigterm_answers_everything_and_destroys_the_server(self, world: World) -> None:
        model = world.start(machine="xenfv,poll-max-us=0")
        answers: list[int] = []
        ended = threading.Event()

        def ask() -> None:
            while not ended.is_set():
                answers.append(world.vcpu.read(PORT, CMOS_INDEX, 1))

        thread = threading.Thread(target=ask)
        thread.start()
        assert model.end() == 0
        ended.set()
        thread.join()
        assert list(world.domain.servers) == []
        assert world.domain.punishments == []
        assert world.domain.state == "running"
        assert set(answers) <= {0xFF}
        assert files(world) == []
        assert model.messages == ""

    def test_it_ends_with_its_domain(self, world: World) -> None:
        model = world.start()
        other = world.hypervisor.create_domain(vcpus=1, ram=[(0, 1 << 20)])
        world.hypervisor.destroy_domain(other.domid)
        assert world.vcpu.read(PORT, 0x64, 1) & 0x80 == 0
        world.hypervisor.destroy_domain(world.domain.domid)
        assert model.process.wait(LIMIT) == 0
        assert files(world) == []
        assert model.messages == ""

    def test_a_shutdown_alone_does_not_end_it(self, world: World) -> None:
        model = world.start()
        world.domain.shutdown(layouts.SHUTDOWN_REASON_POWEROFF)
        with pytest.raises(DomainEnded):
            world.vcpu.read(PORT, 0x64, 1)
        assert model.process.poll() is None
        world.hypervisor.destroy_domain(world.domain.domid)
        assert model.process.wait(LIMIT) == 0

    def test_without_its_hypervisor_it_says_so_in_one_line(self, world: World) -> None:
        model = world.start()
        (connection,) = world.domain.connections
        world.hypervisor.drop(connection)
        assert model.process.wait(LIMIT) == 1
        (line,) = model.messages.splitlines()
        assert line == f"ioreqd-dm: the hypervisor at {world.path} is gone"

    @pytest.mark.parametrize(
        ("accelerator", "text"),
        [
            ("local", "parameter 'path' is missing"),
            ("local,path=/nowhere/at/all", "no hypervisor at /nowhere/at/all: No such file"),
            ("local,path={path},domid=x", "x"),
            ("local,path={path},speed=11", "there is no such parameter"),
        ],
    )
    def test_a_mistake_is_one_line_and_status_2(
        self, world: World, accelerator: str, text: str
    ) -> None:
        words = [str(COMMAND), "-accel", accelerator.format(path=world.path)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT, check=False)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert text in line

    def test_a_domain_that_is_not_there_is_one_line(self, world: World) -> None:
        words = [str(COMMAND), "-accel", f"local,path={world.path},domid=77"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT, check=False)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert "domain 77" in line


class TestSuccessor:
    def test_it_finds_every_register_and_answers_what_was_under_way(self, world: World) -> None:
        model = world.start()
        world.vcpu.write(PORT, CMOS_INDEX, 1, SCRATCH)
        world.vcpu.write(PORT, CMOS_DATA, 1, 0x42)
        model.kill()
        found: list[int] = []
        thread = threading.Thread(target=lambda: found.append(world.vcpu.read(PORT, CMOS_DATA, 1)))
        thread.start()
        successor = world.start()
        thread.join()
        assert found == [0x42]
        assert world.vcpu.read(PORT, CMOS_DATA, 1) == 0x42
        assert len(list(world.domain.servers)) == 1
        assert "taken over" in successor.messages
        assert successor.end() == 0
        assert files(world) == []

    def test_killed_again_and_again_it_counts_on(self, world: World) -> None:
        (world.folder / "counter.py").write_text(COUNTER)
        device = ("-device", f"{world.folder}/counter.py:Counter")
        model = world.start(*device)
        expected = 0
        for _ in range(4):
            for _ in range(20):
                assert world.vcpu.read(PORT, 0x5000, 4) == expected
                expected += 1
            model.kill()
            model = world.start(*device)
        assert world.domain.punishments == []

    def test_of_two_dead_ones_each_successor_takes_its_own(self, world: World) -> None:
        (world.folder / "counter.py").write_text(COUNTER)
        main = world.start()
        words = ("-device", f"{world.folder}/counter.py:Counter")
        other = ("-device", f"{world.folder}/counter.py:Counter,id=other", "-device", "edu,addr=5")
        one = world.start(*words, machine="none")
        world.vcpu.write(PORT, CMOS_INDEX, 1, SCRATCH)
        world.vcpu.write(PORT, CMOS_DATA, 1, 0x17)
        assert [world.vcpu.read(PORT, 0x5000, 4) for _ in range(3)] == [0, 1, 2]
        main.kill()
        one.kill()
        bystander = world.start(*other, machine="none")
        assert bystander.messages == ""
        bystander.end()
        world.start(*words, machine="none")
        assert world.vcpu.read(PORT, 0x5000, 4) == 3
        world.start()
        assert world.vcpu.read(PORT, CMOS_DATA, 1) == 0x17
        assert len(list(world.domain.servers)) == 2


def test_two_device_models_serve_one_domain(world: World) -> None:
    (world.folder / "counter.py").write_text(COUNTER)
    board = world.start()
    beside = world.start("-device", f"{world.folder}/counter.py:Counter", machine="none")
    assert [world.vcpu.read(PORT, 0x5000, 4) for _ in range(3)] == [0, 1, 2]
    assert world.vcpu.read(PORT, 0x64, 1) & 0x80 == 0
    assert beside.end() == 0
    assert world.vcpu.read(PORT, 0x5000, 4) == 0xFFFFFFFF
    assert world.vcpu.read(PORT, 0x64, 1) & 0x80 == 0
    assert board.end() == 0


def test_one_hypervisor_has_several_domains(world: World) -> None:
    other = world.hypervisor.create_domain(vcpus=1, ram=[(0, 1 << 20)])
    world.start()
    world.start(domain=other)
    for vcpu, value in ((world.vcpu, 1), (other.vcpus[0], 2)):
        vcpu.write(PORT, CMOS_INDEX, 1, SCRATCH)
        vcpu.write(PORT, CMOS_DATA, 1, value)
    assert world.vcpu.read(PORT, CMOS_DATA, 1) == 1
    assert other.vcpus[0].read(PORT, CMOS_DATA, 1) == 2


class TestVirtualTime:
    @pytest.fixture
    def world(self, tmp_path: Path) -> Iterator[World]:
        made = World(tmp_path, clock=VirtualClock())
        yield made
        made.close()

    def test_a_transfer_ends_at_its_time_exactly(self, world: World) -> None:
        world.start(*EDU)
        place_bar(world.vcpu, SLOT, BAR)
        world.domain.step_clock(12_345)
        world.domain.memory.write(0x1000, b"abcd")
        transfer(world, 0x1000, BUFFER, 4, INTERRUPT)
        world.domain.step_clock(TRANSFER_TIME - 1)
        assert world.vcpu.read(MEMORY, BAR + RUN_REGISTER, 8) & RUN
        assert world.domain.step_clock(1) == 12_345 + TRANSFER_TIME
        assert not world.vcpu.read(MEMORY, BAR + RUN_REGISTER, 8) & RUN
        assert world.vcpu.read(MEMORY, BAR + 0x24, 4) == 0x100

    def test_time_may_go_to_the_next_deadline_at_once(self, world: World) -> None:
        world.start(*EDU)
        place_bar(world.vcpu, SLOT, BAR)
        transfer(world, BUFFER, 0x1000, 4, TO_MEMORY)
        assert world.domain.step_clock(None) == TRANSFER_TIME

    def test_a_killed_ones_timers_go_on_with_its_successor(self, world: World) -> None:
        model = world.start(*EDU)
        place_bar(world.vcpu, SLOT, BAR)
        world.domain.step_clock(1000)
        transfer(world, BUFFER, 0x1000, 4, TO_MEMORY)
        model.kill()
        world.domain.step_clock(50_000)
        world.start(*EDU)
        assert world.domain.step_clock(None) == TRANSFER_TIME + 1000
