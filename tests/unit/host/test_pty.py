"""A pseudo-terminal behaves like a serial cable whose other end may be unplugged at any time."""

from __future__ import annotations

import os
import termios
from collections.abc import Callable

from dm.host.chardev import KEPT_BYTES, Chardev
from dm.host.pty import PtyChardev
from tests.unit.host.conftest import Device
from tests.unit.loop import MiniLoop

Serial = Callable[[str], Chardev]


def attach(chardev: Chardev) -> int:
    kind, _, path = chardev.filename.partition(":")
    assert kind == "pty"
    return os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)


def read_all(loop: MiniLoop, fd: int, count: int) -> bytes:
    """Reads `count` bytes while the loop runs."""
    got = bytearray()

    def enough() -> bool:
        try:
            got.extend(os.read(fd, 65536))
        except BlockingIOError:
            pass
        return len(got) >= count

    loop.run_until(enough)
    return bytes(got)


def test_the_file_name_is_the_path_of_a_terminal(serial: Serial) -> None:
    chardev = serial("pty")
    assert chardev.label == "serial0"
    fd = attach(chardev)
    assert os.isatty(fd)
    os.close(fd)


def test_bytes_pass_unchanged_in_both_directions(loop: MiniLoop, serial: Serial) -> None:
    chardev = serial("pty")
    device = Device(chardev)
    everything = bytes(range(256))
    fd = attach(chardev)
    chardev.write(everything)
    assert read_all(loop, fd, 256) == everything
    os.write(fd, everything)
    loop.run_until(lambda: len(device.got) >= 256)
    assert bytes(device.got) == everything
    loop.settle()
    assert bytes(device.got) == everything, "nothing of the output comes back as input"
    os.close(fd)


def test_output_before_anybody_looks_is_there_for_the_first_reader(
    loop: MiniLoop, serial: Serial
) -> None:
    chardev = serial("pty")
    text = b"".join(b"line %d\r\n" % number for number in range(3000))
    assert len(text) < KEPT_BYTES
    for start in range(0, len(text), 7):
        assert chardev.write(text[start : start + 7]) == len(text[start : start + 7])
    loop.settle()
    fd = attach(chardev)
    assert read_all(loop, fd, len(text)) == text
    assert chardev.dropped == 0
    os.close(fd)


def test_of_too_much_output_the_newest_is_kept_in_order(loop: MiniLoop, serial: Serial) -> None:
    chardev = serial("pty")
    text = b"".join(b"%06d=%06d\n" % (number, number) for number in range(20_000))
    for start in range(0, len(text), 512):
        chardev.write(text[start : start + 512])
    fd = attach(chardev)
    got = read_all(loop, fd, len(text) - chardev.dropped)
    assert len(got) == len(text) - chardev.dropped >= KEPT_BYTES
    assert text.endswith(got[-KEPT_BYTES // 2 :])
    halves = [line.split(b"=") for line in got.split(b"\n")]
    # A line that was cut by a loss has two different halves.
    numbers = [int(pair[0]) for pair in halves if len(pair) == 2 and pair[0] == pair[1]]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 19_999
    os.close(fd)


def test_kept_output_is_bounded(loop: MiniLoop, serial: Serial) -> None:
    chardev = serial("pty")
    assert isinstance(chardev, PtyChardev)
    for _ in range(200):
        chardev.write(bytes(5000))
        loop.step()
    assert len(chardev._queue) <= KEPT_BYTES + 65536


def test_readers_come_and_go(loop: MiniLoop, serial: Serial) -> None:
    chardev = serial("pty")
    device = Device(chardev)
    for turn in range(3):
        fd = attach(chardev)
        chardev.write(b"to reader %d\n" % turn)
        assert read_all(loop, fd, 12) == b"to reader %d\n" % turn
        os.write(fd, b"%d" % turn)
        loop.run_until(lambda turn=turn: len(device.got) == turn + 1)  # type: ignore[misc]
        os.close(fd)
        loop.settle()
    assert bytes(device.got) == b"012"


def test_an_unattended_terminal_causes_no_wake_ups(loop: MiniLoop, serial: Serial) -> None:
    chardev = serial("pty")
    Device(chardev)
    os.close(attach(chardev))
    loop.settle()
    before = loop.wakeups
    assert loop.step(0.0) == 0
    assert loop.wakeups == before


def test_input_waits_until_the_device_has_room(loop: MiniLoop, serial: Serial) -> None:
    chardev = serial("pty")
    device = Device(chardev, room=3)
    fd = attach(chardev)
    os.write(fd, b"abcdefgh")
    loop.run_until(lambda: len(device.got) == 3)
    loop.settle()
    assert bytes(device.got) == b"abc"
    device.room = 2
    chardev.accept_input()
    loop.run_until(lambda: len(device.got) == 5)
    device.room = 100
    chardev.accept_input()
    loop.run_until(lambda: len(device.got) == 8)
    assert bytes(device.got) == b"abcdefgh"
    os.close(fd)


def test_the_terminal_is_raw(serial: Serial) -> None:
    chardev = serial("pty")
    fd = attach(chardev)
    mode = termios.tcgetattr(fd)
    assert not mode[3] & (termios.ECHO | termios.ICANON | termios.ISIG | termios.IEXTEN)
    assert not mode[1] & termios.OPOST
    assert not mode[0] & (termios.ICRNL | termios.IXON | termios.ISTRIP)
    os.close(fd)


def test_close_removes_the_terminal_and_may_be_repeated(serial: Serial) -> None:
    chardev = serial("pty")
    path = chardev.filename.removeprefix("pty:")
    chardev.close()
    chardev.close()
    assert not os.path.exists(path)
    assert chardev.write(b"x") == 1, "a closed back end keeps taking output"
