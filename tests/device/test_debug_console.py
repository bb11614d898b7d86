"""The debug console."""

from __future__ import annotations

from devices.debug_console import DebugConsole
from dm.device.platform import PORT
from dm.machine.fakes import FakeCharacter, TestBench


def test_the_port_reads_as_the_value_that_seabios_looks_for() -> None:
    assert TestBench(DebugConsole()).read(0x402) == 0xE9


def test_bytes_go_out_on_the_chardev_in_order() -> None:
    device, character = DebugConsole(), FakeCharacter()
    bench = TestBench(device)
    device.output.attach(character)
    for byte in b"SeaBIOS\n":
        bench.write(0x402, byte)
    assert character.sent == b"SeaBIOS\n"


def test_a_string_goes_out_in_one_piece() -> None:
    device, character = DebugConsole(), FakeCharacter()
    bench = TestBench(device)
    device.output.attach(character)
    bench.machine.bus.write_string(PORT, 0x402, 1, b"rep outsb")
    assert character.sent == b"rep outsb"


def test_without_a_chardev_output_is_dropped() -> None:
    bench = TestBench(DebugConsole())
    bench.write(0x402, 0x41)
    assert bench.machine.errors == 0


def test_a_chardev_that_takes_nothing_holds_nobody_up() -> None:
    device, character = DebugConsole(), FakeCharacter()
    bench = TestBench(device)
    device.output.attach(character)
    character.accepts = 0
    bench.write(0x402, 0x41)
    assert character.sent == b""
    assert bench.read(0x402) == 0xE9


def test_port_and_answer_are_options() -> None:
    bench = TestBench(DebugConsole(iobase="0xe9", readback=0x55))
    assert bench.read(0xE9) == 0x55
    assert bench.platform.claimed[PORT] == [(0xE9, 0xE9)]
