"""The UART under a scripted bus: what firmware and Linux's 8250 driver rely on."""

from __future__ import annotations

import random
import socket

import pytest

from devices.uart16550 import RETRIES, Uart16550
from dm.machine.fakes import FakeCharacter, TestBench
from tests.device.qtest import StartQemu

BASE = 0x3F8
DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR = range(BASE, BASE + 8)
FCR = IIR
CHARACTER_AT_9600 = 10 * 12 * 1_000_000_000 // 115200


class Edges(dict[int, int]):
    """Levels of one line in the order in which they were driven."""

    def __init__(self) -> None:
        self.levels: list[int] = []

    def __setitem__(self, irq: int, level: int) -> None:
        self.levels.append(level)


class Port:
    """A bench with one UART whose chardev is a fake."""

    def __init__(self) -> None:
        self.uart = Uart16550()
        self.bench = TestBench(self.uart)
        self.host = FakeCharacter()
        self.uart.serial.attach(self.host)
        self.read = self.bench.read
        self.write = self.bench.write

    @property
    def irq(self) -> int:
        return self.bench.platform.isa[4]

    def string_out(self, data: bytes) -> None:
        self.bench.machine.bus.write_string(0, DATA, 1, data)


@pytest.fixture
def port() -> Port:
    return Port()


def test_a_byte_written_to_thr_leaves_at_once(port: Port) -> None:
    port.write(DATA, 0x41)
    assert port.host.sent == b"A"
    assert port.read(LSR) == 0x60


def test_a_string_write_leaves_as_one_block(port: Port) -> None:
    port.string_out(b"hello")
    assert port.host.sent == b"hello"


def test_a_string_of_words_reaches_thr_and_ier_alternately(port: Port) -> None:
    port.bench.machine.bus.write_string(0, DATA, 2, b"A\x01B\x05")
    assert port.host.sent == b"AB"
    assert port.read(IER) == 5


def test_the_divisor_latch_covers_data_and_ier_while_dlab_is_set(port: Port) -> None:
    port.write(IER, 0x05)
    port.write(LCR, 0x83)
    assert port.read(DATA) == 12
    port.write(DATA, 1, 2)
    assert port.read(DATA, 2) == 1
    port.write(LCR, 0x03)
    assert port.read(IER) == 0x05
    assert port.host.sent == b""


def test_ier_keeps_four_bits_and_scratch_eight(port: Port) -> None:
    port.write(IER, 0xFF)
    port.write(SCR, 0xA5)
    assert (port.read(IER), port.read(SCR)) == (0x0F, 0xA5)


def test_enabled_fifos_show_in_iir_as_linux_probes_them(port: Port) -> None:
    assert port.read(IIR) == 0x01
    port.write(FCR, 0x01)
    assert port.read(IIR) >> 6 == 3


def test_rising_thre_enable_interrupts_while_thr_is_empty(port: Port) -> None:
    port.write(IER, 0x02)
    assert port.irq == 1
    assert port.read(IIR) == 0x02
    assert port.irq == 0
    port.write(IER, 0x00)
    port.write(IER, 0x02)
    assert port.irq == 1


def test_a_written_byte_requests_thre_with_a_new_edge(port: Port) -> None:
    edges = port.bench.platform.isa = Edges()
    port.write(IER, 0x02)
    port.write(DATA, 0x41)
    assert edges.levels == [1, 0, 1]


def edges_of(port: Port, data: bytes, *, look: bool) -> list[int]:
    """Levels driven while ``data`` is written, with or without a look at LSR before each byte."""
    edges = port.bench.platform.isa = Edges()
    for byte in data:
        if look:
            port.read(LSR)
        port.write(DATA, byte)
    return edges.levels


def test_a_fifo_load_is_one_request_and_so_one_edge(port: Port) -> None:
    port.write(FCR, 0x01)
    port.write(IER, 0x02)
    port.read(IIR)
    assert edges_of(port, b"0123456789abcdef", look=False) == [1]
    port.read(LSR)
    assert edges_of(port, b"0123456789abcdef", look=False) == [0, 1]
    assert edges_of(port, b"012", look=True) == [0, 1] * 3


def test_received_bytes_wait_in_the_host_while_there_is_no_room(port: Port) -> None:
    port.host.feed(b"ab")
    assert port.read(LSR) & 1
    assert [port.read(DATA), port.read(DATA)] == [0x61, 0x62]
    assert not port.read(LSR) & 1
    assert not port.read(LSR) & 2


def test_the_receive_interrupt_waits_for_the_trigger_level(port: Port) -> None:
    port.write(IER, 0x01)
    port.write(FCR, 0x41)
    port.host.feed(b"abc")
    assert (port.irq, port.read(IIR)) == (0, 0xC1)
    port.host.feed(b"d")
    assert (port.irq, port.read(IIR)) == (1, 0xC4)
    port.read(DATA)
    assert port.irq == 0


def test_bytes_below_the_trigger_level_interrupt_after_four_character_times(port: Port) -> None:
    port.write(IER, 0x01)
    port.write(LCR, 0x03)
    port.write(FCR, 0xC1)
    port.host.feed(b"x")
    port.bench.advance(4 * CHARACTER_AT_9600 - 4)
    assert port.irq == 0
    port.bench.advance(4)
    assert (port.irq, port.read(IIR)) == (1, 0xCC)
    assert port.read(DATA) == ord("x")
    assert (port.irq, port.read(IIR)) == (0, 0xC1)


def test_line_status_interrupts_outrank_data_and_thre(port: Port) -> None:
    port.write(MCR, 0x10)
    port.write(IER, 0x07)
    port.write(DATA, 1)
    port.write(DATA, 2)
    assert port.read(IIR) == 0x06
    assert port.read(LSR) & 0x02
    assert port.read(IIR) == 0x04
    assert port.read(DATA) == 2
    assert port.read(IIR) == 0x02
    assert port.read(IIR) == 0x01


def test_an_overrun_keeps_the_fifo_and_sets_oe(port: Port) -> None:
    port.write(FCR, 0x01)
    port.write(MCR, 0x10)
    port.string_out(bytes(range(17)))
    assert port.read(LSR) & 0x02
    assert [port.read(DATA) for _ in range(17)] == [*range(16), 0]


def test_loopback_reads_the_outputs_as_linux_tests_it(port: Port) -> None:
    assert port.read(MSR) == 0xB0
    port.write(MCR, 0x1A)
    assert port.read(MSR) & 0xF0 == 0x90
    port.write(DATA, 0x55)
    assert port.host.sent == b""
    assert port.read(DATA) == 0x55


def test_loopback_holds_the_hosts_bytes_until_it_ends(port: Port) -> None:
    port.write(MCR, 0x10)
    port.host.feed(b"z")
    assert port.read(LSR) == 0x60
    port.write(MCR, 0x0B)
    assert port.read(DATA) == ord("z")


def test_clearing_the_receive_fifo_forgets_bytes_and_takes_waiting_ones(port: Port) -> None:
    port.write(FCR, 0x01)
    port.host.feed(b"ab")
    port.write(FCR, 0x03)
    assert port.read(DATA) == ord("b")
    assert not port.read(LSR) & 1


def test_a_blocked_chardev_leaves_thre_low_until_it_takes_the_byte(port: Port) -> None:
    port.host.accepts = 0
    port.write(IER, 0x02)
    port.read(IIR)
    port.write(DATA, 0x41)
    assert (port.read(LSR), port.irq) == (0x00, 0)
    port.host.accepts = None
    port.bench.advance(CHARACTER_AT_9600)
    assert port.host.sent == b"A"
    assert (port.read(LSR), port.irq) == (0x60, 1)


def test_rising_thre_enable_requests_nothing_while_a_byte_is_blocked(port: Port) -> None:
    port.host.accepts = 0
    port.write(DATA, 0x41)
    port.write(IER, 0x02)
    assert (port.irq, port.read(IIR)) == (0, 0x01)


def test_clearing_the_fifos_ends_a_wait_for_either_side(port: Port) -> None:
    port.write(FCR, 0x81)
    port.host.feed(b"x")
    port.host.accepts = 0
    port.write(DATA, 0x41)
    port.write(FCR, 0x87)
    assert port.read(LSR) == 0x60
    assert port.bench.machine.timers.next_deadline() is None


def test_bytes_behind_a_blocked_one_keep_their_order(port: Port) -> None:
    port.write(FCR, 0x01)
    port.host.accepts = 0
    for byte in b"0123456789abcdef":
        port.write(DATA, byte)
    port.host.accepts = 1
    port.bench.advance(CHARACTER_AT_9600)
    assert port.host.sent == b"0123456789abcdef"


def test_a_chardev_that_stays_blocked_costs_the_guest_one_wait_only(port: Port) -> None:
    port.host.accepts = 0
    port.write(DATA, 0x41)
    port.bench.advance(RETRIES * 50_000_000)
    assert port.read(LSR) == 0x60
    port.write(DATA, 0x42)
    assert port.read(LSR) == 0x60
    port.host.accepts = None
    port.write(DATA, 0x43)
    port.host.accepts = 0
    port.write(DATA, 0x44)
    assert port.host.sent == b"C"
    assert port.read(LSR) == 0x00


def test_reset_forgets_everything(port: Port) -> None:
    port.write(FCR, 0xC1)
    port.write(IER, 0x0F)
    port.host.feed(b"abc")
    port.bench.machine.reset()
    assert port.irq == 0
    assert [port.read(register) for register in range(IER, BASE + 8)] == [0, 1, 0, 8, 0x60, 0xB0, 0]


def test_the_interrupt_level_follows_restored_state(port: Port) -> None:
    port.write(FCR, 0x01)
    port.write(IER, 0x01)
    port.host.feed(b"q")
    other = Port()
    other.bench.machine.buffer[:] = port.bench.machine.buffer
    other.bench.machine.after_load()
    assert (other.irq, other.read(IIR), other.read(DATA)) == (1, 0xC4, ord("q"))


def access_sequence(seed: int, count: int) -> list[tuple[int, int | None]]:
    """Seeded reads (None) and writes of every register, transmission more often than the rest."""
    chance = random.Random(seed)
    sequence: list[tuple[int, int | None]] = []
    for _ in range(count):
        register = chance.choice((0, 0, 0, 1, 2, 2, 3, 4, 5, 6, 7))
        if chance.random() < 0.5:
            sequence.append((register, None))
            continue
        value = chance.randrange(256)
        if register == 3 and chance.random() < 0.8:
            value &= 0x7F
        sequence.append((register, value))
    return sequence


@pytest.mark.parametrize("seed", range(4))
def test_every_answer_is_qemus(seed: int, qemu: StartQemu) -> None:
    oracle = qemu("-chardev", "null,id=s", "-device", "isa-serial,chardev=s")
    oracle.irq_intercept()
    bench = TestBench(Uart16550())
    for step, (register, value) in enumerate(access_sequence(seed, 2000)):
        if value is None:
            answers = bench.read(BASE + register), oracle.inb(BASE + register)
            assert answers[0] == answers[1], f"step {step}, register {register}"
        else:
            bench.write(BASE + register, value)
            oracle.outb(BASE + register, value)
        assert bench.platform.isa[4] == oracle.irqs.get(4, 0), f"step {step}, IRQ 4"


def test_input_is_accepted_as_qemu_accepts_it(qemu: StartQemu) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        oracle = qemu(
            "-chardev",
            f"socket,id=s,fd={theirs.fileno()}",
            "-device",
            "isa-serial,chardev=s",
            pass_fds=(theirs.fileno(),),
        )
        port = Port()
        for register, value in ((FCR, 0x41), (IER, 0x01)):
            port.write(register, value)
            oracle.outb(register, value)
        port.host.feed(b"abcdef")
        ours.sendall(b"abcdef")
        while not oracle.inb(LSR) & 1:
            pass
        read = [port.read(DATA) for _ in range(6)]
        received: list[int] = []
        while len(received) < 6:
            if oracle.inb(LSR) & 1:
                received.append(oracle.inb(DATA))
        assert read == received == [*b"abcdef"]
