"""The keyboard controller and its keyboard and mouse under a scripted bus."""

from __future__ import annotations

import random

import pytest

from devices.i8042 import I8042
from devices.ps2 import SET_2_CODES
from dm.machine.fakes import TestBench
from tests.device.qtest import StartQemu

DATA, COMMAND = 0x60, 0x64
FULL, FROM_MOUSE = 0x01, 0x20


class Controller:
    """A bench with a controller, talked to as a driver does."""

    def __init__(self) -> None:
        self.device = I8042()
        self.bench = TestBench(self.device)
        self.shutdowns = self.bench.platform.shutdowns

    def status(self) -> int:
        return self.bench.read(COMMAND)

    def irqs(self) -> tuple[int, int]:
        """The levels of IRQ 1 and IRQ 12."""
        return self.bench.platform.isa[1], self.bench.platform.isa[12]

    def drain(self) -> list[int]:
        """Everything that waits; bytes from the mouse have bit 8 set."""
        out = []
        while (status := self.status()) & FULL:
            out.append(self.bench.read(DATA) | (status & FROM_MOUSE) << 3)
        return out

    def command(self, command: int, *arguments: int) -> list[int]:
        self.bench.write(COMMAND, command)
        for argument in arguments:
            self.bench.write(DATA, argument)
        return self.drain()

    def keyboard(self, *data: int) -> list[int]:
        """What the keyboard answers to each byte in turn."""
        out = []
        for byte in data:
            self.bench.write(DATA, byte)
            out += self.drain()
        return out

    def mouse(self, *data: int) -> list[int]:
        """What the mouse answers, without bit 8; anything from elsewhere is an error."""
        out = []
        for byte in data:
            out += self.command(0xD4, byte)
        assert all(byte & 0x100 for byte in out)
        return [byte & 0xFF for byte in out]


@pytest.fixture
def kbc() -> Controller:
    return Controller()


def test_a_controller_at_rest_has_nothing_to_read(kbc: Controller) -> None:
    assert (kbc.status(), kbc.irqs()) == (0x18, (0, 0))
    assert kbc.bench.read(DATA) == 0


@pytest.mark.parametrize(
    ("command", "answer"),
    [(0x20, 0x03), (0xA9, 0x00), (0xAA, 0x55), (0xAB, 0x00), (0xC0, 0x80), (0xD0, 0xCF)],
)
def test_commands_answer_as_seabios_and_linux_expect(
    kbc: Controller, command: int, answer: int
) -> None:
    assert kbc.command(command) == [answer]


def test_the_self_test_sets_the_system_flag(kbc: Controller) -> None:
    kbc.command(0xAA)
    assert kbc.status() & 0x04


def test_after_a_load_the_status_byte_says_what_the_output_buffer_holds(kbc: Controller) -> None:
    kbc.bench.write(COMMAND, 0xD3)
    kbc.bench.write(DATA, 1)
    status = kbc.bench.read(COMMAND)
    assert status & (FULL | FROM_MOUSE) == FULL | FROM_MOUSE
    kbc.device.command_port.status.value = 0x18
    kbc.device.restored()
    assert kbc.bench.read(COMMAND) == status
    kbc.bench.read(DATA)
    kbc.device.command_port.status.value = 0x39
    kbc.device.restored()
    assert kbc.bench.read(COMMAND) == status & ~(FULL | FROM_MOUSE)


def test_an_answer_interrupts_until_it_is_read(kbc: Controller) -> None:
    kbc.bench.write(COMMAND, 0xAA)
    assert (kbc.status() & FULL, kbc.irqs()) == (FULL, (1, 0))
    assert kbc.bench.read(DATA) == 0x55
    assert (kbc.status() & FULL, kbc.irqs()) == (0, (0, 0))
    assert kbc.bench.read(DATA) == 0x55


def test_the_mode_byte_masks_interrupts(kbc: Controller) -> None:
    kbc.command(0x60, 0x40)
    assert kbc.command(0x20) == [0x40]
    kbc.bench.write(COMMAND, 0xAA)
    assert kbc.irqs() == (0, 0)
    kbc.command(0x60, 0x03)
    kbc.bench.write(COMMAND, 0xAA)
    assert kbc.irqs() == (1, 0)


def test_disabling_a_port_shows_in_the_mode_byte_and_talking_to_it_enables(kbc: Controller) -> None:
    kbc.command(0xAD)
    kbc.command(0xA7)
    assert kbc.command(0x20) == [0x33]
    assert kbc.keyboard(0xEE) == [0xEE]
    assert kbc.mouse(0xF2) == [0xFA, 0x00]
    assert kbc.command(0x20) == [0x03]


def test_a_disabled_keyboard_keeps_its_keys_until_it_is_enabled(kbc: Controller) -> None:
    kbc.command(0xAD)
    kbc.device.key(0x1E, True)
    assert not kbc.status() & FULL
    kbc.bench.write(COMMAND, 0xAE)
    assert kbc.drain() == [0x1C]


def test_loop_commands_put_bytes_into_either_buffer(kbc: Controller) -> None:
    assert kbc.command(0xD2, 0x5A) == [0x5A]
    assert kbc.command(0xD3, 0xA5) == [0x1A5]
    kbc.bench.write(COMMAND, 0xD3)
    kbc.bench.write(DATA, 1)
    assert kbc.irqs() == (0, 1)


@pytest.mark.parametrize("command", [0xF0, 0xFA, 0xFE])
def test_pulsing_the_reset_line_reboots(kbc: Controller, command: int) -> None:
    kbc.command(command)
    assert kbc.shutdowns == ["reboot"]


def test_pulsing_nothing_does_nothing(kbc: Controller) -> None:
    kbc.command(0xFF)
    assert kbc.shutdowns == []


def test_the_output_port_reboots_when_its_lowest_bit_falls(kbc: Controller) -> None:
    kbc.command(0xD1, 0xCD)
    assert kbc.shutdowns == []
    assert kbc.command(0xD0) == [0xCD]
    kbc.command(0xD1, 0xCE)
    assert kbc.shutdowns == ["reboot"]


def test_a20_commands_only_keep_the_bit(kbc: Controller) -> None:
    kbc.command(0xDD)
    assert kbc.command(0xD0) == [0xCD]
    kbc.command(0xDF)
    assert kbc.command(0xD0) == [0xCF]


def test_seabios_sets_the_keyboard_up(kbc: Controller) -> None:
    for command in (0xAD, 0xA7):
        kbc.command(command)
    assert kbc.command(0xAA) == [0x55]
    assert kbc.command(0xAB) == [0x00]
    kbc.command(0x60, 0x30)
    assert kbc.keyboard(0xFF) == [0xFA, 0xAA]
    assert kbc.keyboard(0xF5) == [0xFA]
    assert kbc.keyboard(0xF0, 0x02) == [0xFA, 0xFA]
    kbc.command(0x60, 0x61)
    assert kbc.keyboard(0xF4) == [0xFA]
    kbc.device.key(0x1C, True)
    assert (kbc.irqs(), kbc.drain()) == ((1, 0), [0x1C])


@pytest.mark.parametrize(("mode", "identity"), [(0x43, 0x41), (0x03, 0x83)])
def test_the_keyboard_names_itself_as_the_controller_translates(
    kbc: Controller, mode: int, identity: int
) -> None:
    kbc.command(0x60, mode)
    assert kbc.keyboard(0xF2) == [0xFA, 0xAB, identity]


@pytest.mark.parametrize("command", [0xED, 0xF3, 0xFC])
def test_commands_with_an_argument_take_any_byte_for_it(kbc: Controller, command: int) -> None:
    assert kbc.keyboard(command, 0xFF) == [0xFA, 0xFA]
    assert kbc.keyboard(0xEE) == [0xEE]


def test_scan_code_sets_are_set_and_asked_for(kbc: Controller) -> None:
    assert kbc.keyboard(0xF0, 0x01, 0xF0, 0x00) == [0xFA, 0xFA, 0xFA, 0xFA, 0x01]
    assert kbc.keyboard(0xF0, 0x07) == [0xFA, 0xFE]
    kbc.command(0x60, 0x43)
    assert kbc.keyboard(0xFF, 0xF0, 0x00) == [0xFA, 0xAA, 0xFA, 0xFA, 0x41]


def test_unknown_keyboard_commands_are_asked_for_again(kbc: Controller) -> None:
    assert kbc.keyboard(0x77) == [0xFE]


def test_keys_go_out_in_set_2_unless_the_controller_translates(kbc: Controller) -> None:
    kbc.device.key(0x1E, True)
    kbc.device.key(0x1E, False)
    kbc.device.key(0xE048, True)
    kbc.device.key(0xE048, False)
    assert kbc.drain() == [0x1C, 0xF0, 0x1C, 0xE0, 0x75, 0xE0, 0xF0, 0x75]
    kbc.command(0x60, 0x43)
    kbc.device.key(0x1E, True)
    kbc.device.key(0xE048, False)
    assert kbc.drain() == [0x1E, 0xE0, 0xC8]


def test_no_two_keys_share_a_code_of_set_2() -> None:
    codes = [code for code in SET_2_CODES if code]
    assert len(codes) == len(set(codes))


def test_every_byte_behind_the_first_raises_a_new_edge(kbc: Controller) -> None:
    levels: list[int] = []

    class Recorder(dict[int, int]):
        def __setitem__(self, irq: int, level: int) -> None:
            levels.append(level)

    kbc.bench.platform.isa = Recorder()
    kbc.device.key(0xE048, True)
    kbc.bench.read(DATA)
    kbc.bench.read(DATA)
    assert levels == [1, 0, 1, 0]


def test_a_key_that_finds_no_room_is_lost_whole(kbc: Controller) -> None:
    taken = [kbc.device.key(0xE048, False) for _ in range(10)]
    assert taken == [True] * 5 + [False] * 5
    assert kbc.drain() == [0xE0, 0xF0, 0x75] * 5


def test_a_keyboard_that_does_not_scan_loses_keys(kbc: Controller) -> None:
    kbc.keyboard(0xF5)
    assert not kbc.device.key(0x1E, True)
    kbc.keyboard(0xF4)
    assert kbc.device.key(0x1E, True)


@pytest.mark.parametrize("scan_code", [0x00, 0x55, 0x7F, 0xE000])
def test_a_key_that_does_not_exist_is_lost(kbc: Controller, scan_code: int) -> None:
    assert not kbc.device.key(scan_code, True)
    assert kbc.drain() == []


def test_replies_overtake_keys(kbc: Controller) -> None:
    kbc.command(0xAD)
    kbc.device.key(0x1E, True)
    kbc.bench.write(DATA, 0xEE)
    assert kbc.drain() == [0xEE, 0x1C]


def test_the_mouse_resets_and_names_itself(kbc: Controller) -> None:
    assert kbc.mouse(0xFF) == [0xFA, 0xAA, 0x00]
    assert kbc.mouse(0xF2) == [0xFA, 0x00]
    assert kbc.mouse(0xE9) == [0xFA, 0x00, 0x02, 0x64]
    kbc.bench.write(COMMAND, 0xD4)
    kbc.bench.write(DATA, 0xF4)
    assert (kbc.status() & FROM_MOUSE, kbc.irqs()) == (FROM_MOUSE, (0, 1))


def test_mouse_commands_change_what_the_status_request_shows(kbc: Controller) -> None:
    kbc.mouse(0xFF)
    kbc.mouse(0xE7, 0xF0, 0xF4, 0xE8, 0x03, 0xF3, 40)
    assert kbc.mouse(0xE9) == [0xFA, 0x70, 0x03, 40]
    kbc.mouse(0xE6, 0xEA, 0xF5)
    assert kbc.mouse(0xE9) == [0xFA, 0x00, 0x03, 40]
    kbc.mouse(0xF6)
    assert kbc.mouse(0xE9) == [0xFA, 0x00, 0x02, 100]


@pytest.mark.parametrize(("rates", "kind"), [((200, 100, 80), 3), ((200, 200, 80), 4)])
def test_the_knock_makes_it_a_wheel_mouse(
    kbc: Controller, rates: tuple[int, int, int], kind: int
) -> None:
    for rate in rates:
        assert kbc.mouse(0xF3, rate) == [0xFA, 0xFA]
    assert kbc.mouse(0xF2) == [0xFA, kind]
    kbc.mouse(0xFF)
    assert kbc.mouse(0xF2) == [0xFA, 0]


def test_wrap_mode_echoes_until_it_ends_or_the_mouse_is_reset(kbc: Controller) -> None:
    assert kbc.mouse(0xEE, 0x33, 0xF2, 0xEC, 0xF2) == [0xFA, 0x33, 0xF2, 0xFA, 0xFA, 0x00]
    assert kbc.mouse(0xEE, 0xFF, 0xF2) == [0xFA, 0xFA, 0xAA, 0x00, 0xFA, 0x00]


def test_movement_is_sent_while_the_mouse_is_enabled(kbc: Controller) -> None:
    kbc.device.mouse_move(5, 5)
    assert kbc.drain() == []
    kbc.mouse(0xF4)
    kbc.device.mouse_move(5, -3, buttons=0b001)
    assert [byte & 0xFF for byte in kbc.drain()] == [0x29, 0x05, 0xFD]


def test_long_movement_takes_several_packets_and_what_is_left_waits(kbc: Controller) -> None:
    kbc.mouse(0xF4)
    kbc.device.mouse_move(130, 0)
    assert [byte & 0xFF for byte in kbc.drain()] == [0x08, 127, 0, 0x08, 3, 0]
    kbc.device.mouse_move(1000, 0)
    sent = sum(byte & 0xFF for byte in kbc.drain()[1::3])
    kbc.device.mouse_move(0, 0)
    assert sent + sum(byte & 0xFF for byte in kbc.drain()[1::3]) == 1000


def test_movement_never_overflows(kbc: Controller) -> None:
    kbc.mouse(0xF4, 0xF0)
    for _ in range(3):
        kbc.device.mouse_move(30000, -30000, dz=30000)
    assert kbc.mouse(0xEB) == [0xFA, 0x28, 127, 0x81]


def test_a_wheel_takes_a_fourth_byte(kbc: Controller) -> None:
    for rate in (200, 100, 80):
        kbc.mouse(0xF3, rate)
    kbc.mouse(0xF4)
    kbc.device.mouse_move(0, 0, dz=-1)
    assert [byte & 0xFF for byte in kbc.drain()] == [0x08, 0, 0, 0xFF]
    for rate in (200, 200, 80):
        kbc.mouse(0xF3, rate)
    kbc.device.mouse_move(0, 0, buttons=0b01000, dz=-1)
    assert [byte & 0xFF for byte in kbc.drain()] == [0x08, 0, 0, 0x1F]


def test_a_polled_mouse_sends_when_it_is_asked(kbc: Controller) -> None:
    kbc.mouse(0xF4, 0xF0)
    kbc.device.mouse_move(2, 1)
    assert kbc.drain() == []
    assert kbc.mouse(0xEB) == [0xFA, 0x08, 2, 1]


def test_the_port_of_the_speaker_is_not_the_controllers(kbc: Controller) -> None:
    claimed = kbc.bench.platform.claimed[0]
    assert claimed == [(DATA, DATA), (COMMAND, COMMAND)]


def test_interrupts_follow_restored_state(kbc: Controller) -> None:
    kbc.bench.write(COMMAND, 0xD4)
    kbc.bench.write(DATA, 0xFF)
    other = Controller()
    other.bench.machine.buffer[:] = kbc.bench.machine.buffer
    other.bench.machine.after_load()
    assert (other.irqs(), other.drain()) == ((0, 1), [0x1FA, 0x1AA, 0x100])


PLAIN_COMMANDS = (
    0x20,
    0xA1,
    0xA7,
    0xA8,
    0xA9,
    0xAA,
    0xAB,
    0xAD,
    0xAE,
    0xC0,
    0xD0,
    0xDD,
    0xDF,
    0xFF,
)
KEYBOARD_BYTES = (0, 1, 2, 3, 5, 0xED, 0xEE, 0xF0, 0xF2, 0xF3, 0xF4, 0xF5, 0xF6, 0xFA, 0xFC, 0xFF)
MOUSE_BYTES = (0xE6, 0xE7, 0xE8, 0xE9, 0xEA, 0xEB, 0xEC, 0xF0, 0xF2, 0xF3, 0xF4, 0xF5, 0xF6, 0xFF)
MOUSE_ARGUMENTS = (200, 100, 80, 0x11)

DIFFERENCES = {
    0xD1: "QEMU takes the buffer-full bits as written until the buffer changes; bit 0 reboots",
    0xEE: "QEMU's mouse stays in wrap mode across a reset",
}
"""Bytes that the random sequences leave out, and why."""


def access_sequence(seed: int, count: int) -> list[tuple[int, int | None]]:
    """Seeded reads (None) and writes of both ports; reads are often enough to empty queues."""
    chance = random.Random(seed)
    sequence: list[tuple[int, int | None]] = []
    while len(sequence) < count:
        kind = chance.random()
        if kind < 0.3:
            sequence.append((COMMAND, None))
        elif kind < 0.6:
            sequence.append((DATA, None))
        elif kind < 0.75:
            sequence.append((DATA, chance.choice(KEYBOARD_BYTES)))
        else:
            sequence += random_command(chance)
    return sequence


def random_command(chance: random.Random) -> list[tuple[int, int | None]]:
    """A controller command and its argument; every other one is for the mouse."""
    if chance.random() < 0.5:
        return [(COMMAND, 0xD4), (DATA, chance.choice(MOUSE_BYTES + MOUSE_ARGUMENTS))]
    if chance.random() < 0.3:
        return [(COMMAND, chance.choice((0x60, 0xD2, 0xD3))), (DATA, chance.randrange(256))]
    return [(COMMAND, chance.choice(PLAIN_COMMANDS))]


@pytest.mark.parametrize("seed", range(6))
def test_every_answer_is_qemus(seed: int, qemu: StartQemu) -> None:
    oracle = qemu()
    oracle.irq_intercept()
    kbc = Controller()
    for step, (port, value) in enumerate(access_sequence(seed, 2000)):
        if value is None:
            assert kbc.bench.read(port) == oracle.inb(port), f"step {step}, port {port:#x}"
        else:
            kbc.bench.write(port, value)
            oracle.outb(port, value)
        theirs = oracle.irqs.get(1, 0), oracle.irqs.get(12, 0)
        assert kbc.irqs() == theirs, f"step {step}, interrupts"
