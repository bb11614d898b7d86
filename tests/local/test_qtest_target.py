"""The qtest target, launched and driven as QEMU's own qtest clients do."""

from __future__ import annotations

import base64
import os
import struct
import time
from pathlib import Path

import pytest

from .qtest_client import Launch, QtestClient, launch, qtest_binary

__all__ = ["launch", "qtest_binary"]

RTC_IRQ, COM1_IRQ = 8, 4
RTC_A, RTC_B, RTC_C = 0x0A, 0x0B, 0x0C
COM1 = 0x3F8
EDU, EDU_BAR = 4 << 3, 0xE000_0000
PIIX3, PIIX4_PM = 1 << 3, 1 << 3 | 3
EDU_GSI = (4 * 4 & 31) + 16
"""Where Xen has the pin of slot 4 (hvm_pci_intx_gsi); its link is link 0."""
PIRQ_A, EDU_ISA = 0x60, 11
SOURCE, DESTINATION, COUNT, COMMAND = 0x80, 0x88, 0x90, 0x98
IRQ_STATUS, IRQ_ACKNOWLEDGE = 0x24, 0x64
BUFFER, TRANSFER_TIME = 0x40000, 100_000_000
MIB = 1 << 20
SECOND = 1_000_000_000


def cmos_read(client: QtestClient, index: int) -> int:
    client.out(0x70, index)
    return client.inp(0x71)


def cmos_write(client: QtestClient, index: int, value: int) -> None:
    client.out(0x70, index)
    client.out(0x71, value)


def number_from_bcd(byte: int) -> int:
    return (byte >> 4) * 10 + (byte & 15)


def test_the_monitor_greets_with_a_version_and_answers_the_handshake(launch: Launch) -> None:
    assert {"version", "capabilities"} <= set(launch().greeting["QMP"])


def test_a_signal_ends_it_with_status_0(launch: Launch) -> None:
    assert launch().end() == 0


def test_quit_is_announced_answered_and_ends_it_with_status_0(launch: Launch) -> None:
    client = launch()
    assert client.qmp("quit") == {}
    assert client.event("SHUTDOWN")["data"] == {"guest": False, "reason": "host-qmp-quit"}
    assert client.wait() == 0


def test_a_client_that_goes_ends_it(launch: Launch) -> None:
    client = launch()
    client.hang_up()
    assert client.wait() == 0


def test_a_guest_that_powers_off_is_answered_and_ends_it(launch: Launch) -> None:
    client = launch()
    client.config_write(PIIX4_PM, 0x40, 0xB001)
    client.config_write(PIIX4_PM, 0x80, 1, "b")
    client.out(0xB004, 1 << 13, "w")
    assert client.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-device", "edu,no-such-option=1"), "no_such_option"),
        (("-smp", "none"), "-smp"),
        (("-rtc", "base=yesterday"), "-rtc base=yesterday"),
    ],
)
def test_a_bad_option_lets_the_client_go_with_one_line_and_status_2(
    launch: Launch, arguments: tuple[str, ...], message: str
) -> None:
    client = launch(*arguments, handshake=False)
    assert client.wait() == 2
    assert client.process.stderr is not None
    lines = client.process.stderr.read().splitlines()
    assert message in lines[-1]
    assert [line for line in lines if "Traceback" in line] == []
    with pytest.raises((EOFError, ConnectionError)):
        client.raw("endianness")


def test_the_cmos_behind_the_clock_is_the_device_models(launch: Launch) -> None:
    client = launch()
    cmos_write(client, 0x40, 0x5A)
    assert cmos_read(client, 0x40) == 0x5A
    assert cmos_read(client, 0xC0) == 0x5A
    assert cmos_read(client, 0x15) | cmos_read(client, 0x16) << 8 == 640


def test_the_clock_begins_where_it_is_told_to_and_goes_by_virtual_time(launch: Launch) -> None:
    client = launch("-rtc", "base=2006-06-17T16:01:21")
    client.step(3 * SECOND)
    found = [number_from_bcd(cmos_read(client, index)) for index in (9, 8, 7, 4, 2, 0)]
    assert found == [6, 6, 17, 16, 1, 24]


def test_a_periodic_interrupt_comes_at_its_time_and_not_before(launch: Launch) -> None:
    client = launch()
    client.command("irq_intercept_in ioapic")
    cmos_write(client, RTC_A, 0x2F)
    cmos_write(client, RTC_B, 0x42)
    cmos_read(client, RTC_C)
    assert client.irq(RTC_IRQ) == 0
    client.step(SECOND // 4)
    assert client.irq(RTC_IRQ) == 0
    client.step(SECOND // 2)
    assert client.irq(RTC_IRQ) == 1
    assert cmos_read(client, RTC_C) & 0xC0 == 0xC0
    assert client.irq(RTC_IRQ) == 0


def test_time_stands_still_between_steps(launch: Launch) -> None:
    client = launch()
    first = client.step(0)
    time.sleep(0)
    assert client.step(0) == first
    assert client.step(5) == first + 5
    assert int(client.command(f"clock_set {first + 100}")) == first + 100
    assert int(client.command("clock_set 1")) == first + 100


def test_a_uart_of_the_command_line_writes_to_its_chardev_and_interrupts(
    launch: Launch, tmp_path: Path
) -> None:
    client = launch("-serial", f"file:{tmp_path}/out")
    client.command("irq_intercept_in ioapic")
    client.out(COM1 + 1, 0x02)
    assert client.irq(COM1_IRQ) == 1
    assert client.inp(COM1 + 2) == 0x02
    assert client.irq(COM1_IRQ) == 0
    for byte in b"qtest\n":
        client.out(COM1, byte)
    assert client.end() == 0
    assert (tmp_path / "out").read_bytes() == b"qtest\n"


def test_there_is_a_uart_by_default_and_none_with_nodefaults(launch: Launch) -> None:
    assert launch().inp(COM1 + 5) == 0x60
    assert launch("-nodefaults").inp(COM1 + 5) == 0xFF


def test_interrupts_are_told_only_after_they_are_intercepted(launch: Launch) -> None:
    client = launch()
    client.out(COM1 + 1, 0x02)
    client.out(COM1 + 1, 0x00)
    assert client.irqs == {}
    assert client.raw("irq_intercept_in no-such-device").startswith("FAIL")
    client.command("irq_intercept_in ioapic")
    client.command("irq_intercept_in ioapic")
    client.out(COM1 + 1, 0x02)
    assert client.irq(COM1_IRQ) == 1


def test_pci_functions_are_found_by_the_ports(launch: Launch) -> None:
    client = launch("-device", "edu,addr=4")
    found = {devfn: client.config_read(devfn, 0) for devfn in range(0x40)}
    assert {devfn: ids for devfn, ids in found.items() if ids != 0xFFFFFFFF} == {
        0: 0x12378086,
        PIIX3: 0x70008086,
        PIIX4_PM: 0x71138086,
        EDU: 0x11E81234,
    }
    assert client.config_read(EDU, 0x10) == 0
    assert [client.config_read(EDU, at, "b") for at in range(4)] == [0x34, 0x12, 0xE8, 0x11]
    client.out(0xCF8, 1 << 31 | EDU << 8, "l")
    assert [client.inp(0xCFC + at, "b") for at in range(4)] == [0x34, 0x12, 0xE8, 0x11]


def edu(launch: Launch) -> QtestClient:
    client = launch("-device", "edu,addr=4")
    client.config_write(EDU, 0x10, EDU_BAR)
    client.config_write(EDU, 0x04, 0x0006, "w")
    client.config_write(PIIX3, PIRQ_A, EDU_ISA, "b")
    return client


def edu_transfer(client: QtestClient, source: int, target: int, count: int, command: int) -> None:
    for register, value in ((SOURCE, source), (DESTINATION, target), (COUNT, count)):
        client.store(EDU_BAR + register, value, "q")
    client.store(EDU_BAR + COMMAND, command | 1, "q")


def test_a_dma_ends_exactly_when_virtual_time_says_so(launch: Launch) -> None:
    client = edu(launch)
    client.command("irq_intercept_in ioapic")
    client.write(MIB, b"there and back")
    edu_transfer(client, MIB, BUFFER, 14, 0)
    client.step(TRANSFER_TIME)
    edu_transfer(client, BUFFER, 2 * MIB, 14, 6)
    client.step(TRANSFER_TIME - 1)
    assert client.load(EDU_BAR + COMMAND, "q") & 1
    assert client.read(2 * MIB, 14) == bytes(14)
    assert (client.irq(EDU_GSI), client.irq(EDU_ISA)) == (0, 0)
    client.step(1)
    assert not client.load(EDU_BAR + COMMAND, "q") & 1
    assert client.read(2 * MIB, 14) == b"there and back"
    assert (client.irq(EDU_GSI), client.irq(EDU_ISA)) == (1, 1)
    client.store(EDU_BAR + IRQ_ACKNOWLEDGE, 0x100)
    assert (client.irq(EDU_GSI), client.irq(EDU_ISA)) == (0, 0)


def test_a_step_without_a_length_goes_to_the_next_deadline_of_either_side(launch: Launch) -> None:
    client = edu(launch)
    edu_transfer(client, MIB, BUFFER, 1, 0)
    for _ in range(100):
        if client.step() >= TRANSFER_TIME:
            break
    assert not client.load(EDU_BAR + COMMAND, "q") & 1


def test_memory_blocks_are_written_and_read_in_every_form(launch: Launch) -> None:
    client = launch()
    data = os.urandom(0x10000)
    client.write(MIB + 1, data)
    assert client.read(MIB + 1, len(data)) == data
    assert base64.b64decode(client.command(f"b64read {MIB + 1} {len(data)}")) == data
    client.command(f"memset {MIB + 3} 10 0xab")
    assert client.read(MIB + 1, 14) == data[:2] + b"\xab" * 10 + data[12:14]
    text = base64.b64encode(b"base 64").decode()
    client.command(f"b64write {MIB:#o} 7 {text}".replace("0o", "0"))
    assert client.read(MIB, 7) == b"base 64"
    client.store(MIB, 0x1122334455667788, "q")
    assert client.load(MIB + 4, "l") == 0x11223344
    assert client.raw(f"readb {MIB}") == "OK 0x0000000000000088"


def test_a_block_goes_through_ram_registers_and_holes(launch: Launch) -> None:
    client = edu(launch)
    client.store(EDU_BAR + SOURCE, 0x1122334455667788, "q")
    client.write(EDU_BAR + DESTINATION, struct.pack("<QQ", 5, 6))
    assert client.read(EDU_BAR + SOURCE, 24) == struct.pack("<QQQ", 0x1122334455667788, 5, 6)
    assert client.read(EDU_BAR - 4, 8) == b"\xff" * 4 + struct.pack("<I", 0x010000ED)
    client.write(0x9FFFE, b"\1\2\3\4")
    assert client.read(0x9FFFE, 4) == b"\1\2\xff\xff"
    assert client.load(0x9FFFE, "l") == 0xFFFF0201


@pytest.mark.parametrize(("arguments", "size"), [((), 128 * MIB), (("-m", "5G"), 5 << 30)])
def test_firmware_configuration_tells_the_size_of_ram(
    launch: Launch, arguments: tuple[str, ...], size: int
) -> None:
    client = launch(*arguments)
    client.out(0x510, 3, "w")
    found = bytes(client.inp(0x511) for _ in range(8))
    assert int.from_bytes(found, "little") == size
    low = min(size, 0xE000_0000)
    last = low - 1 if size == low else (1 << 32) + size - low - 1
    for gpa in (low - 1, last):
        client.store(gpa, 0x77, "b")
        assert (client.load(gpa, "b"), client.load(gpa + 1, "b")) in ((0x77, 0xFF), (0x77, 0x00))


def test_a_reset_by_the_monitor_is_answered_then_announced_and_resets_both_sides(
    launch: Launch,
) -> None:
    client = launch()
    client.command("irq_intercept_in ioapic")
    client.out(COM1 + 7, 0x42)
    client.out(COM1 + 1, 0x02)
    client.out(0x21, 0x5A)
    client.store(MIB, 0x55AA)
    assert client.qmp("system_reset") == {}
    assert client.events == []
    assert client.event("RESET")["data"] == {"guest": False, "reason": "host-qmp-system-reset"}
    assert (client.inp(COM1 + 7), client.inp(COM1 + 1)) == (0, 0)
    assert client.inp(0x21) != 0x5A
    assert client.irq(COM1_IRQ) == 0
    assert client.load(MIB) == 0x55AA


@pytest.mark.parametrize(("port", "value"), [(0xCF9, 0x06), (0x64, 0xFE), (0x92, 0x01)])
def test_a_reset_by_the_guest_is_done_before_its_next_access(
    launch: Launch, port: int, value: int
) -> None:
    client = launch()
    client.out(COM1 + 7, 0x42)
    client.out(port, value)
    assert client.inp(COM1 + 7) == 0
    assert client.event("RESET")["data"] == {"guest": True, "reason": "guest-reset"}


@pytest.mark.parametrize(("panic", "action"), [("none", "run"), ("pause", "pause")])
def test_a_panic_is_announced(launch: Launch, panic: str, action: str) -> None:
    client = launch("-device", "pvpanic", "-action", f"panic={panic}")
    assert client.inp(0x505) == 3
    client.out(0x505, 1)
    assert client.event("GUEST_PANICKED")["data"] == {"action": action}
    if panic == "pause":
        client.event("STOP")


def test_a_machine_without_devices_has_memory_only(launch: Launch) -> None:
    client = launch("-machine", "none")
    client.store(MIB, 7)
    assert (client.load(MIB), client.inp(0x64), client.inp(0xCF8, "l")) == (7, 0xFF, 0xFFFFFFFF)


def test_many_requests_in_one_write_are_answered_in_order(launch: Launch) -> None:
    client = launch()
    client.send("\n".join(f"outb 0x3ff {value}\ninb 0x3ff" for value in range(256)))
    answers = [client.receive() for _ in range(512)]
    assert answers[::2] == ["OK"] * 256
    assert [int(answer[3:], 0) for answer in answers[1::2]] == list(range(256))


def test_any_line_is_answered_and_the_next_one_works(launch: Launch) -> None:
    client = launch()
    for line in ("", "nonsense", "inb", "inb 0x10000", "outb 1", "read 0 0x7fffffff", "inb 08"):
        assert client.raw(line).startswith("FAIL"), line
        assert client.inp(0x64) == 0x18
