"""Xen's routing of interrupt lines (ioreq-semantics, section 5)."""

from __future__ import annotations

from errno import EINVAL, ERANGE, ESRCH

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.hypervisor.chips.chip import StateError
from tools.hypervisor.errors import HypercallError
from tools.hypervisor.interrupts import Interrupts, gsi_of_intx


class Recorder:
    """A sink that knows every line's level, and how often each changed."""

    def __init__(self) -> None:
        self.gsis: dict[int, int] = {}
        self.pic: dict[int, int] = {}
        self.messages: list[tuple[int, int]] = []
        self.taken: bool | None = True

    def set_gsi(self, gsi: int, level: int) -> None:
        self.gsis[gsi] = level

    def set_pic(self, irq: int, level: int) -> None:
        self.pic[irq] = level

    def inject_msi(self, address: int, data: int) -> bool | None:
        self.messages.append((address, data))
        return self.taken


@pytest.fixture
def lines() -> Interrupts:
    return Interrupts()


@pytest.fixture
def sink(lines: Interrupts) -> Recorder:
    recorder = Recorder()
    lines.sink = recorder
    return recorder


@pytest.mark.parametrize(
    ("device", "intx", "gsi"),
    [(2, 0, 24), (3, 0, 28), (7, 0, 44), (8, 0, 17), (1, 0, 20), (0, 0, 16), (31, 3, 16 + 2)],
)
def test_an_intx_line_has_the_gsi_of_its_slot_and_pin(device: int, intx: int, gsi: int) -> None:
    assert gsi_of_intx(device, intx) == gsi


def test_isa_interrupts_go_to_their_gsi_and_0_goes_to_2(lines: Interrupts, sink: Recorder) -> None:
    lines.set_isa_irq(0, 1)
    lines.set_isa_irq(5, 1)
    assert (sink.gsis, sink.pic) == ({2: 1, 5: 1}, {0: 1, 5: 1})
    lines.set_isa_irq(0, 0)
    assert (sink.gsis[2], sink.pic[0]) == (0, 0)


def test_levels_are_idempotent(lines: Interrupts, sink: Recorder) -> None:
    lines.set_isa_irq(5, 1)
    lines.set_isa_irq(5, 1)
    lines.set_intx(4, 0, 1)
    lines.set_intx(4, 0, 1)
    lines.set_isa_irq(5, 0)
    lines.set_intx(4, 0, 0)
    assert set(sink.gsis.values()) == set(sink.pic.values()) == {0}


def test_a_gsi_is_asserted_while_any_source_is(lines: Interrupts, sink: Recorder) -> None:
    assert gsi_of_intx(0, 0) == gsi_of_intx(15, 3) == 16
    lines.set_intx(0, 0, 1)
    lines.set_intx(15, 3, 1)
    lines.set_intx(0, 0, 0)
    assert sink.gsis[16] == 1
    lines.set_intx(15, 3, 0)
    assert sink.gsis[16] == 0


def test_a_link_and_an_isa_device_share_one_interrupt(lines: Interrupts, sink: Recorder) -> None:
    lines.set_link_route(0, 10)
    lines.set_intx(4, 0, 1)
    lines.set_isa_irq(10, 1)
    lines.set_intx(4, 0, 0)
    assert (sink.gsis[32], sink.gsis[10], sink.pic[10]) == (0, 1, 1)
    lines.set_isa_irq(10, 0)
    assert (sink.gsis[10], sink.pic[10]) == (0, 0)


def test_a_link_routed_to_nothing_asserts_nothing(lines: Interrupts, sink: Recorder) -> None:
    lines.set_intx(4, 0, 1)
    assert (sink.gsis, sink.pic) == ({32: 1}, {})


def test_a_new_route_moves_an_asserted_link(lines: Interrupts, sink: Recorder) -> None:
    lines.set_link_route(1, 5)
    lines.set_intx(4, 1, 1)
    lines.set_link_route(1, 11)
    assert (sink.pic, sink.gsis[5], sink.gsis[11]) == ({5: 0, 11: 1}, 0, 1)
    lines.set_link_route(1, 0)
    assert (sink.pic[11], lines.level(33)) == (0, 1)
    lines.set_link_route(1, 10)
    assert sink.pic[10] == 1


def test_a_link_stays_asserted_until_its_last_slot_is_done(
    lines: Interrupts, sink: Recorder
) -> None:
    lines.set_link_route(0, 11)
    lines.set_intx(4, 0, 1)
    lines.set_intx(8, 0, 1)
    lines.set_intx(4, 0, 0)
    assert sink.pic[11] == 1
    lines.set_intx(8, 0, 0)
    assert sink.pic[11] == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda lines: lines.set_isa_irq(16, 1),
        lambda lines: lines.set_isa_irq(3, 2),
        lambda lines: lines.set_intx(32, 0, 1),
        lambda lines: lines.set_intx(1, 4, 1),
        lambda lines: lines.set_link_route(4, 5),
        lambda lines: lines.set_link_route(0, 16),
    ],
)
def test_what_does_not_exist_is_einval(call: object, lines: Interrupts) -> None:
    with pytest.raises(HypercallError) as caught:
        call(lines)  # type: ignore[operator]
    assert caught.value.errno == EINVAL


@pytest.mark.parametrize("mode", range(2, 8))
def test_a_message_must_be_fixed_or_of_lowest_priority(
    mode: int, lines: Interrupts, sink: Recorder
) -> None:
    with pytest.raises(HypercallError) as caught:
        lines.inject_msi(0xFEE00000, mode << 8 | 0x31)
    assert (caught.value.errno, sink.messages) == (EINVAL, [])


def test_a_message_of_lowest_priority_that_nobody_takes_is_esrch(
    lines: Interrupts, sink: Recorder
) -> None:
    sink.taken = False
    lines.inject_msi(0xFEEFF000, 0x0031)
    with pytest.raises(HypercallError) as caught:
        lines.inject_msi(0xFEEFF000, 0x0131)
    assert caught.value.errno == ESRCH


def test_a_message_without_vector_is_for_a_pirq_that_nobody_has(
    lines: Interrupts, sink: Recorder
) -> None:
    for address, errno in ((0xFEE00000, ERANGE), (0xFEE12000, EINVAL), (1 << 40, EINVAL)):
        with pytest.raises(HypercallError) as caught:
            lines.inject_msi(address, 0x4300)
        assert caught.value.errno == errno
    assert sink.messages == []


def test_a_sink_that_comes_late_hears_what_is_asserted(lines: Interrupts) -> None:
    lines.set_link_route(0, 10)
    lines.set_intx(4, 0, 1)
    lines.set_isa_irq(0, 1)
    late = Recorder()
    lines.sink = late
    assert (late.gsis, late.pic) == ({2: 1, 10: 1, 32: 1}, {0: 1, 10: 1})


def test_listeners_hear_changes_of_gsis_and_nothing_else(lines: Interrupts) -> None:
    heard: list[tuple[int, int]] = []
    lines.listeners.append(lambda gsi, level: heard.append((gsi, level)))
    lines.set_isa_irq(8, 1)
    lines.set_isa_irq(8, 1)
    lines.set_intx(4, 0, 1)
    lines.set_isa_irq(8, 0)
    assert heard == [(8, 1), (32, 1), (8, 0)]


OPERATIONS = st.one_of(
    st.tuples(st.just("isa"), st.integers(0, 15), st.integers(0, 1)),
    st.tuples(st.just("intx"), st.integers(0, 31), st.integers(0, 3), st.integers(0, 1)),
    st.tuples(st.just("route"), st.integers(0, 3), st.integers(0, 15)),
)


@given(st.lists(OPERATIONS, max_size=60))
def test_saved_lines_come_back_with_the_same_levels(operations: list[tuple[object, ...]]) -> None:
    lines, other = Interrupts(), Interrupts()
    calls = {"isa": lines.set_isa_irq, "intx": lines.set_intx, "route": lines.set_link_route}
    for name, *arguments in operations:
        calls[str(name)](*arguments)  # type: ignore[operator]
    other.load(lines.save())
    assert [other.level(gsi) for gsi in range(48)] == [lines.level(gsi) for gsi in range(48)]
    assert min(lines._gsi_counts) >= 0
    for irq in range(16):
        lines.set_isa_irq(irq, 0)
        for device in range(32):
            for pin in range(4):
                lines.set_intx(device, pin, 0)
    assert lines._gsi_counts == [0] * 48


def test_a_state_with_a_wrong_route_is_refused_whole(lines: Interrupts) -> None:
    state = lines.save() | {"isa": 1, "routes": [0, 0, 16, 0]}
    with pytest.raises(StateError, match="routes"):
        lines.load(state)
    assert lines.isa == 0
