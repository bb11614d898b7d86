"""The qtest target against QEMU, line by line: the same requests, the same answers, the same lines.

Both are told of the same random accesses; here they go through real processes, pages and the
hypervisor's chips, where tests/device/test_random_oracle.py has only the devices.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from itertools import islice
from random import Random

import pytest

from tests.device.oracle import Pause, Step, random
from tests.device.qtest import Qtest, StartQemu, qemu
from tests.device.test_random_oracle import cmos_accesses, i8042_accesses, uart_accesses

from .qtest_client import Launch, QtestClient, launch, qtest_binary

__all__ = ["launch", "qemu", "qtest_binary", "random"]

ACCESSES = 4000
BATCH = 500
MIB = 1 << 20
UART = ("-chardev", "null,id=s", "-device", "isa-serial,chardev=s")


def lines_of(steps: Iterator[Step]) -> Iterator[str]:
    for step in islice(steps, ACCESSES):
        assert not isinstance(step, Pause)
        yield from step.requests()


def compare(
    other: Qtest,
    client: QtestClient,
    lines: Iterator[str],
    irqs: tuple[int, ...],
    most: int = BATCH,
) -> None:
    """Send ``lines`` to both, ``most`` at a time; compare each answer and the levels after it."""
    other.irq_intercept()
    client.command("irq_intercept_in ioapic")
    theirs = dict.fromkeys(irqs, 0)
    while batch := list(islice(lines, most)):
        client.send("\n".join(batch))
        for line, answer in zip(batch, other.batch(batch), strict=True):
            theirs.update(answer.changes)
            assert client.receive() == f"OK {answer.text}".strip(), line
            for irq in irqs:
                assert client.irqs.get(irq, 0) == theirs[irq], f"{line}: IRQ {irq}"


def test_a_uart_answers_as_qemus_through_both_processes(
    qemu: StartQemu, launch: Launch, random: Random
) -> None:
    compare(qemu(*UART), launch("-serial", "null"), lines_of(uart_accesses(random)), (4,))


def test_a_keyboard_controller_answers_as_qemus_through_both_processes(
    qemu: StartQemu, launch: Launch, random: Random
) -> None:
    compare(qemu(), launch(), lines_of(i8042_accesses(random)), (1, 12))


def test_cmos_answers_as_qemus_through_both_processes(
    qemu: StartQemu, launch: Launch, random: Random
) -> None:
    single = (step for step in cmos_accesses(random) if getattr(step, "size", 1) == 1)
    first = [
        f"out{letter} {port:#x} {value}"
        for index in range(0x0E, 0x80)
        for letter, port, value in (("b", 0x70, index), ("b", 0x71, 0))
    ]
    other, client = qemu(), launch()
    compare(other, client, iter(first), ())
    compare(other, client, lines_of(single), (8,))


def memory_requests(chance: Random) -> Iterator[str]:
    """Requests about RAM in every form, with numbers in every base."""
    forms = ("{}", "{:#x}", "0{:o}", "0X{:X}", "+{}")
    while True:
        size = chance.choice((1, 2, 3, 8, 100, 5000))
        at = MIB + chance.randrange(MIB)
        data = chance.randbytes(size)
        gpa, length = (chance.choice(forms).format(number) for number in (at, size))
        value = chance.choice((chance.getrandbits(64), chance.getrandbits(8)))
        letter = chance.choice("bwlq")
        yield chance.choice(
            (
                f"write {gpa} {length} 0x{data.hex()}",
                f"b64write {gpa} {length} {base64.b64encode(data).decode()}",
                f"memset {gpa} {length} {chance.randrange(256):#x}",
                f"read {gpa} {length}",
                f"b64read {gpa} {length}",
                f"read{letter} {gpa}",
                f"write{letter} {gpa} {chance.choice(forms).format(value)}",
            )
        )


@pytest.mark.parametrize("seed", range(2))
def test_requests_about_memory_are_answered_as_qemu_does(
    qemu: StartQemu, launch: Launch, seed: int
) -> None:
    requests = islice(memory_requests(Random(seed)), 400)
    compare(qemu("-m", "16"), launch("-m", "16"), requests, (), most=4)
