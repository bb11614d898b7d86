"""The life of a slot: what is written, late answers, devices that raise, and vCPUs side by side."""

from __future__ import annotations

import logging

import pytest

from dm import Deferral, HostError

from .board import PORTS, WINDOW, Rig
from .fake_xen import ANSWERED, COPY, INPROCESS, NONE, ONES, PIO, POINTER, READ, READY, Domain

LATER, LATER_RAISED, FAULT = 0x301, 0x303, 0x300


def test_a_spurious_event_changes_nothing() -> None:
    rig = Rig()
    for state in [NONE, ANSWERED, INPROCESS, *range(4, 16)]:
        rig.xens.synchronous[30] = state | READ
        before = bytes(rig.xens.synchronous)
        assert not rig.server.serve(0)
        assert rig.xens.synchronous == before
    assert rig.xen.notified == []


@pytest.mark.parametrize("kind", [PIO, COPY, 9])
@pytest.mark.parametrize("flags", [0, READ, READ | POINTER, POINTER, 0xF0])
def test_only_data_and_state_of_a_slot_are_written(kind: int, flags: int) -> None:
    rig = Rig(Domain(vcpus=128))
    rig.domain.send(rig.xens, 77, kind=kind, address=PORTS, data=0x1234, size=1, flags=flags)
    before = bytes(rig.xens.synchronous)
    assert rig.server.serve(77)
    after = bytes(rig.xens.synchronous)
    at = 77 * 32
    plain_read = flags & READ and not flags & POINTER
    data = slice(at + 8, at + 16)
    expected = bytearray(before)
    expected[at + 30] = before[at + 30] & 0xF0 | ANSWERED
    if plain_read:
        expected[data] = after[data]
    assert after == expected


def test_requests_of_128_vcpus_do_not_mix() -> None:
    rig = Rig(Domain(vcpus=128))
    for vcpu in range(128):
        rig.domain.send(rig.xens, vcpu, address=PORTS, data=vcpu, size=1)
        rig.server.serve(vcpu)
        rig.domain.answer(rig.xens, vcpu)
        rig.domain.send(rig.xens, vcpu, address=PORTS, size=1, flags=READ)
    assert rig.server.serve_all() == 128
    assert {rig.domain.answer(rig.xens, vcpu) for vcpu in range(128)} == {127}
    assert [value for _, value in rig.mixed.log] == list(range(128))
    assert rig.domain.punishments == []


def test_the_search_for_a_ready_slot_goes_around_so_that_nobody_starves() -> None:
    rig = Rig(Domain(vcpus=128))
    slots = rig.server.slots
    assert slots.next_ready() == slots.next_ready(5) == -1
    for vcpu in (0, 64, 127):
        rig.xens.synchronous[vcpu * 32 + 30] = READY
    assert [slots.next_ready(start) for start in (0, 1, 64, 65, 127, 128)] == [
        0,
        64,
        64,
        127,
        127,
        0,
    ]


def test_the_general_path_and_the_fast_path_agree() -> None:
    rig = Rig()
    for size, offset in ((1, 0), (2, 2), (4, 4), (1, 8), (1, 9), (4, 0)):
        fast = rig.ask(address=PORTS + offset, size=size, flags=READ)
        rig.xens.synchronous[29] = 0
        # An undefined flag bit sends a request the general way.
        assert rig.ask(address=PORTS + offset, size=size, flags=READ | 0x80) == fast


class TestLateAnswers:
    def test_only_that_vcpu_waits(self) -> None:
        rig = Rig()
        assert rig.ask(0, address=LATER, size=1, flags=READ) is None
        assert (rig.xens.state(0), rig.server.slots.waiting) == (INPROCESS, 1)
        assert rig.ask(1, address=PORTS + 8, size=1, flags=READ) == 0x77
        rig.troubled.waiting[0].complete(0x42)
        assert rig.domain.answer(rig.xens, 0) == 0x42
        assert rig.server.slots.waiting == 0

    def test_a_write_is_finished_too(self) -> None:
        rig = Rig()
        assert rig.ask(address=LATER, size=1, data=5) is None
        rig.troubled.waiting[0].complete()
        assert rig.domain.answer(rig.xens) == 5

    def test_an_answer_counts_once(self) -> None:
        rig = Rig()
        rig.ask(address=LATER, size=1, flags=READ)
        late = rig.troubled.waiting[0]
        late.complete(1)
        late.complete(2)
        assert rig.domain.answer(rig.xens) == 1
        assert len(rig.xen.notified) == 1

    def test_an_answer_that_is_there_before_the_handler_ends_is_given_at_once(self) -> None:
        rig = Rig()
        deferral = Deferral(rig.troubled)
        deferral.complete(9)
        rig.troubled.__dict__["_defer"] = lambda: deferral
        rig.ask(address=LATER, size=1, flags=READ)
        assert rig.xens.state(0) == NONE
        assert len(rig.xen.notified) == 1

    @pytest.mark.parametrize("flags", [READ, READ | 0x80])
    def test_lines_follow_state_while_an_answer_is_outstanding(self, flags: int) -> None:
        rig = Rig()
        rig.ask(address=LATER_RAISED, size=1, flags=flags)
        assert rig.domain.platform.isa[5] == 1

    def test_a_string_cannot_be_answered_later(self) -> None:
        rig = Rig()
        rig.ask(address=LATER, size=1, data=0x80, count=2, flags=READ | POINTER)
        assert rig.xens.state(0) == NONE
        assert rig.domain.memory.ram[0x80:0x82] == b"\xff\xff"
        assert (rig.server.slots.refused, rig.server.slots.waiting) == (1, 0)

    def test_a_late_answer_of_a_past_request_does_not_answer_the_present_one(self) -> None:
        rig = Rig()
        rig.ask(address=LATER, size=1, flags=READ)
        rig.server.slots.flush()
        rig.server._notify_vcpu(0)
        assert rig.domain.answer(rig.xens) == 0xFF
        rig.ask(address=LATER, size=1, flags=READ)
        old, new = rig.troubled.waiting
        old.complete(1)
        assert rig.domain.answer(rig.xens) is None
        new.complete(2)
        assert rig.domain.answer(rig.xens) == 2


class TestDeviceErrors:
    @pytest.mark.parametrize("extra", [0, 0x80])
    def test_a_read_gets_ones_and_the_line_is_settled(self, extra: int) -> None:
        rig = Rig()
        assert rig.ask(address=FAULT, size=1, data=3, flags=READ | extra) == 0xFF
        assert rig.domain.platform.isa[5] == 1
        assert rig.machine.errors == 1

    @pytest.mark.parametrize("extra", [0, 0x80])
    def test_a_write_is_answered_and_the_line_is_settled(self, extra: int) -> None:
        rig = Rig()
        assert rig.ask(address=FAULT, size=1, data=3, flags=extra) == 3
        assert rig.domain.platform.isa[5] == 1
        assert rig.machine.errors == 1

    @pytest.mark.parametrize("extra", [0, 0x80])
    def test_it_is_logged_with_device_register_and_access_and_one_traceback(
        self, extra: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        rig = Rig()
        for _ in range(100):
            rig.ask(address=FAULT, size=1, flags=READ | extra)
        records = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert len(records) <= 10
        text = records[0].getMessage()
        assert "troubled.ports.fault" in text
        assert "read of 1 bytes at 0x300" in text
        assert [bool(record.exc_info) for record in records].count(True) == 1
        assert rig.machine.errors == 100

    def test_an_error_that_no_device_made_blames_none(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        rig = Rig()
        rig.ask(address=FAULT, size=1, flags=READ)
        caplog.clear()
        rig.domain.memory.__dict__["read"] = None
        rig.ask(kind=COPY, address=WINDOW + 0x1000, data=0, size=4, flags=POINTER)
        assert rig.machine.errors == 2
        assert "troubled" not in caplog.text

    def test_a_line_that_cannot_be_driven_does_not_cost_an_answer(self) -> None:
        rig = Rig()
        rig.xen.failures["isa"] = HostError("no")
        assert rig.ask(address=0x302, data=1, size=1) == 1
        assert rig.ask(address=0x302, data=1, size=1) == 1
        assert rig.machine.errors >= 2
        assert rig.ask(address=0x302, size=1, flags=READ) == 1
        assert rig.xens.state(0) == NONE

    def test_a_value_too_wide_for_a_register_is_cut(self) -> None:
        rig = Rig()
        rig.ask(address=PORTS, data=ONES, size=1)
        assert rig.mixed.log == [("byte", 0xFF)]
