"""The qtest engine: how requests are written, what they do, and that any line is answered."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.hypervisor.clock import VirtualClock
from tools.hypervisor.engines.qtest.words import LONGEST_BLOCK, RequestError, number
from tools.hypervisor.errors import DomainEnded

from .qtest_support import DEVICE, DEVICE_END, PORTS, RAM_END, Machine

WORD = (1 << 64) - 1
BASES: tuple[Callable[[int], str], ...] = (
    str,
    "{:#x}".format,
    "0X{:X}".format,
    "0{:o}".format,
    "+{}".format,
)


@pytest.fixture
def machine() -> Machine:
    return Machine()


@given(value=st.integers(0, WORD), form=st.sampled_from(BASES))
def test_a_number_may_be_written_in_any_base_of_c(value: int, form: Callable[[int], str]) -> None:
    assert number(form(value).encode()) == value


@given(value=st.integers(1, WORD))
def test_a_negative_number_wraps_around(value: int) -> None:
    assert number(f"-{value}".encode()) == -value & WORD


@pytest.mark.parametrize(
    "word",
    ["", "x", "0x", "08", "1a", "0xg", "--1", "+-1", "1_0", "0x1_0", "\u0661", str(WORD + 1)],
)
def test_what_strtoull_does_not_take_whole_is_no_number(word: str) -> None:
    with pytest.raises(RequestError):
        number(word.encode())


def test_values_are_written_as_qemu_writes_them(machine: Machine) -> None:
    assert machine.answer("endianness") == "OK little"
    assert machine.answer(f"inb {PORTS}") == "OK 0x0000"
    assert machine.answer(f"inl {PORTS + 4:#x}") == "OK 0x0504"
    assert machine.answer(f"writeq 8 {WORD}") == "OK"
    assert machine.answer("readb 8") == "OK 0x00000000000000ff"
    assert machine.answer("readq 0x8") == "OK 0xffffffffffffffff"
    assert machine.answer("read 7 3") == "OK 0x00ffff"


@pytest.mark.parametrize(("letter", "size"), [("b", 1), ("w", 2), ("l", 4), ("q", 8)])
def test_accesses_have_the_width_of_their_letter(machine: Machine, letter: str, size: int) -> None:
    machine.answer(f"read{letter} {DEVICE}")
    machine.answer(f"write{letter} {DEVICE + 8} {WORD}")
    assert machine.registers.reads == [(DEVICE, size)]
    assert machine.registers.writes == [(DEVICE + 8, size, (1 << 8 * size) - 1)]
    if size < 8:
        machine.answer(f"in{letter} {PORTS}")
        machine.answer(f"out{letter} {PORTS} {WORD}")
        assert machine.ports.reads == [(PORTS, size)]
        assert machine.ports.writes == [(PORTS, size, (1 << 8 * size) - 1)]


def test_what_nobody_answers_reads_as_ones(machine: Machine) -> None:
    assert machine.answer("inw 0x80") == "OK 0xffff"
    assert machine.answer(f"readl {DEVICE_END}") == "OK 0x00000000ffffffff"
    assert machine.answer(f"read {DEVICE_END} 3") == "OK 0xffffff"
    assert machine.answer(f"outb 0x80 1\nwriteb {DEVICE_END} 1".split("\n")[1]) == "OK"


@given(at=st.integers(0, RAM_END - 64), data=st.binary(min_size=1, max_size=64))
def test_what_was_written_in_one_form_is_read_in_every_other(at: int, data: bytes) -> None:
    machine = Machine()
    encoded = base64.b64encode(data).decode()
    assert machine.answer(f"write {at:#x} {len(data)} 0x{data.hex()}") == "OK"
    assert machine.answer(f"b64read {at} {len(data)}") == f"OK {encoded}"
    assert machine.answer(f"b64write {at} {len(data):#x} {encoded}") == "OK"
    assert machine.answer(f"read {at} {len(data)}") == f"OK 0x{data.hex()}"
    assert machine.answer(f"memset {at} {len(data)} 0x1ff") == "OK"
    assert machine.answer(f"read {at} {len(data)}") == "OK 0x" + "ff" * len(data)


@given(offset=st.integers(0, 40), length=st.integers(0, 40))
def test_a_block_of_registers_is_moved_in_aligned_accesses(offset: int, length: int) -> None:
    machine = Machine()
    machine.answer(f"read {DEVICE + offset} {length}")
    machine.answer(f"memset {DEVICE + offset} {length} 1")
    reads = machine.registers.reads
    assert [(at, size) for at, size, _ in machine.registers.writes] == reads
    assert all(at % size == 0 and size in (1, 2, 4, 8) for at, size in reads)
    covered = [at + index for at, size in reads for index in range(size)]
    assert covered == list(range(DEVICE + offset, DEVICE + offset + length))


def test_a_block_goes_from_ram_over_a_hole_into_registers(machine: Machine) -> None:
    machine.answer(f"memset {RAM_END - 2} {DEVICE + 2 - RAM_END + 2} 0x5a")
    assert machine.answer(f"read {RAM_END - 2} 4") == "OK 0x5a5affff"
    assert machine.registers.writes == [(DEVICE, 2, 0x5A5A)]
    assert machine.answer(f"readl {RAM_END - 2}") == "OK 0x00000000ffff5a5a"
    assert machine.answer(f"writel {RAM_END - 1} 0x11223344") == "OK"
    assert machine.answer(f"readb {RAM_END - 1}") == "OK 0x0000000000000044"


def test_the_last_bytes_of_the_address_space_are_a_hole(machine: Machine) -> None:
    assert machine.answer(f"readb {WORD}") == "OK 0x00000000000000ff"
    assert machine.answer(f"read {WORD - 3} 4") == "OK 0xffffffff"
    assert machine.answer(f"readw {WORD}").startswith("FAIL")


def test_the_latchs_low_bits_are_part_of_the_configuration_register(machine: Machine) -> None:
    data = 0xCFC
    seen = Machine().ports
    machine.domain.intercepts.add_ports(data, data + 3, seen)
    machine.domain.pci_cf8 = 0x80002002
    machine.answer(f"inb {data:#x}")
    machine.answer(f"inb {data + 1:#x}")
    assert seen.reads == [(data + 2, 1), (data + 3, 1)]


def test_time_moves_when_it_is_told_to(machine: Machine) -> None:
    clock = machine.domain.clock
    fired: list[int] = []
    clock.call_at(1000, lambda: fired.append(clock.now()))
    assert machine.answer("clock_step 999") == "OK 999"
    assert fired == []
    assert machine.answer("clock_step") == "OK 1000"
    assert machine.answer("clock_set 5000") == "OK 5000"
    assert machine.answer("clock_set 0") == "OK 5000"
    assert machine.answer("clock_step") == "OK 5000"
    assert fired == [1000]
    assert isinstance(clock, VirtualClock)


def test_changes_of_levels_come_before_the_answer(machine: Machine) -> None:
    lines = machine.domain.interrupts
    lines.set_isa_irq(4, 1)
    lines.set_isa_irq(4, 0)
    assert machine.answer("irq_intercept_in ioapic") == "OK"
    lines.set_isa_irq(4, 1)
    lines.set_isa_irq(4, 1)
    lines.set_isa_irq(0, 1)
    assert machine.answer("inb 0").split("\n") == ["IRQ raise 4", "IRQ raise 0", "OK 0x00ff"]
    lines.set_isa_irq(4, 0)
    assert machine.answer("nonsense").split("\n")[0] == "IRQ lower 4"
    assert machine.answer("inb 0") == "OK 0x00ff"


def test_one_device_can_be_intercepted(machine: Machine) -> None:
    assert machine.answer("irq_intercept_in pic").startswith("FAIL")
    assert machine.answer("irq_intercept_in ioapic") == "OK"
    assert machine.answer("irq_intercept_in ioapic") == "OK"
    assert len(machine.domain.interrupts.listeners) == 1
    assert machine.answer("irq_intercept_out ioapic") == "OK"


@pytest.mark.parametrize(
    "line",
    [
        "",
        "   ",
        "inb",
        "inb 0 0",
        "inb 0x10000",
        "inq 0",
        "outb 1",
        "readb -1 1",
        "read 0 0x7fffffffffffffff",
        f"read 0 {LONGEST_BLOCK + 1}",
        f"memset {WORD} 2 0",
        "write 0 2 0x00",
        "write 0 1 00",
        "write 0 1 0x0g",
        "write 0 1 0x0",
        "b64write 0 1 !!!!",
        "b64write 0 2 AA==",
        "clock_step -1",
        "clock_set",
        "irq_intercept_in",
        "INB 0",
    ],
)
def test_a_malformed_request_is_refused(machine: Machine, line: str) -> None:
    assert machine.answer(line).startswith("FAIL ")


COMMANDS = ("inb", "outl", "readq", "writew", "read", "write", "memset", "b64read", "b64write")
TIMES = ("clock_step", "clock_set")


@given(
    command=st.sampled_from(COMMANDS + TIMES),
    arguments=st.lists(
        st.one_of(st.integers(-5, 1 << 17).map(str), st.binary(max_size=12).map(repr)), max_size=4
    ),
)
def test_any_arguments_are_answered_in_one_line(command: str, arguments: list[str]) -> None:
    answer = Machine().answer(" ".join([command, *arguments]))
    assert answer.startswith(("OK", "FAIL "))
    assert "\n" not in answer


@given(line=st.binary(max_size=64).filter(lambda line: b"\n" not in line))
def test_any_bytes_are_answered_in_one_line(line: bytes) -> None:
    answer = Machine().engine.answer(line)
    assert answer.startswith(("OK", "FAIL "))
    assert answer.count("\n") == 1


def test_a_domain_that_has_ended_answers_no_more(machine: Machine) -> None:
    machine.domain.destroy()
    with pytest.raises(DomainEnded):
        machine.answer("inb 0")
