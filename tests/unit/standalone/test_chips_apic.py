"""Local APICs, the I/O APIC and messages between them."""

from __future__ import annotations

from errno import EINVAL, ESRCH

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.standalone.chips_support import SECOND, Pc
from tools.hypervisor.errors import HypercallError

ID, VERSION, TPR, PPR, EOI, LDR, DFR, SVR = 0x20, 0x30, 0x80, 0xA0, 0xB0, 0xD0, 0xE0, 0xF0
ISR, TMR, IRR, ESR, ICR, ICR_HIGH = 0x100, 0x180, 0x200, 0x280, 0x300, 0x310
LVT_TIMER, LVT_LINT0, LVT_ERROR, INITIAL, CURRENT, DIVIDE = 0x320, 0x350, 0x370, 0x380, 0x390, 0x3E0
PERIODIC, DEADLINE, MASKED = 1 << 17, 2 << 17, 1 << 16
LEVEL, LOGICAL = 1 << 15, 1 << 11


class Smp(Pc):
    """Enabled local APICs and a masked 8259; registers are those of the vCPU that is named."""

    def __init__(self, vcpus: int = 1) -> None:
        super().__init__(vcpus)
        self.outb(0x21, 0xFF)
        for vcpu in range(vcpus):
            self.put(SVR, 0x1FF, vcpu)

    def get(self, register: int, vcpu: int = 0) -> int:
        self.board.bind_thread(vcpu)
        return self.load(0xFEE00000 + register)

    def put(self, register: int, value: int, vcpu: int = 0) -> None:
        self.board.bind_thread(vcpu)
        self.store(0xFEE00000 + register, value)

    def entry(self, pin: int, low: int, high: int = 0) -> None:
        for register, value in ((0x11 + 2 * pin, high), (0x10 + 2 * pin, low)):
            self.store(0xFEC00000, register)
            self.store(0xFEC00010, value)

    def entry_low(self, pin: int) -> int:
        self.store(0xFEC00000, 0x10 + 2 * pin)
        return self.load(0xFEC00010)

    def msi(self, vector: int, destination: int, *, logical: bool = False, mode: int = 0) -> None:
        self.lines.inject_msi(0xFEE00000 | destination << 12 | logical << 2, mode << 8 | vector)


@pytest.fixture
def pc() -> Smp:
    return Smp()


@pytest.fixture
def smp() -> Smp:
    return Smp(4)


def test_registers_at_reset_are_those_of_an_hvm_guest() -> None:
    pc = Pc(2)
    assert pc.load(0xFEE00020) == 0
    pc.board.bind_thread(1)
    assert pc.load(0xFEE00020) == 2 << 24
    assert [pc.load(0xFEE00000 + r) for r in (VERSION, SVR, DFR)] == [0x50014, 0xFF, 0xFFFFFFFF]
    assert pc.load(0xFEE00000 + LVT_LINT0) == MASKED
    pc.board.bind_thread(0)
    assert pc.load(0xFEE00000 + LVT_LINT0) == 0x700


def test_the_highest_vector_comes_first_and_blocks_its_class(pc: Smp) -> None:
    for vector in (0x31, 0x55, 0x51):
        pc.msi(vector, 0)
    assert pc.take() == 0x55
    assert pc.take() is None
    assert pc.get(ISR + 0x20) == 1 << 0x15
    pc.msi(0x61, 0)
    assert pc.take() == 0x61
    for expected in (None, 0x51, 0x31):
        pc.put(EOI, 0)
        assert pc.take() == expected


def test_task_priority_holds_its_class_and_lower_ones(pc: Smp) -> None:
    pc.put(TPR, 0x50)
    pc.msi(0x5F, 0)
    assert (pc.take(), pc.get(PPR)) == (None, 0x50)
    pc.put(TPR, 0x4F)
    assert (pc.take(), pc.get(PPR)) == (0x5F, 0x50)


def test_a_disabled_local_apic_takes_nothing_and_masks_its_table(pc: Smp) -> None:
    pc.put(LVT_TIMER, 0x40)
    pc.put(SVR, 0x0FF)
    assert pc.get(LVT_TIMER) == MASKED | 0x40
    pc.msi(0x31, 0)
    assert (pc.take(), pc.get(IRR + 0x10)) == (None, 0)
    pc.put(LVT_TIMER, 0x41)
    assert pc.get(LVT_TIMER) == MASKED | 0x41


def test_the_8259_is_taken_before_the_local_apic(pc: Smp) -> None:
    pc.set_up_pic()
    pc.msi(0xF1, 0)
    pc.lines.set_isa_irq(4, 1)
    assert (pc.take(), pc.take()) == (0x0C, 0xF1)


def test_a_vector_below_16_is_an_error_that_interrupts_once(pc: Smp) -> None:
    pc.put(LVT_ERROR, 0x45)
    pc.put(ICR, 0x40000 | 0x0F)
    pc.put(ICR, 0x40000 | 0x0F)
    assert (pc.take(), pc.take()) == (0x45, None)
    assert pc.get(ESR) == 0
    pc.put(ESR, 0)
    assert pc.get(ESR) == 0x20
    pc.put(ESR, 0)
    assert pc.get(ESR) == 0


def test_accesses_within_a_register_may_be_narrow(pc: Smp) -> None:
    pc.put(SVR, 0x1AB)
    assert (pc.load(0xFEE000F0, 1), pc.load(0xFEE000F1, 1), pc.load(0xFEE000F0, 2)) == (
        0xAB,
        0x01,
        0x1AB,
    )
    pc.store(0xFEE000F0, 0x3C, 1)
    assert pc.get(SVR) == 0x13C
    assert (pc.load(0xFEE000F4), pc.load(0xFEE000F0, 8)) == (0, 0)


@pytest.mark.parametrize(
    ("divide", "factor"), [(0b0000, 2), (0b0011, 16), (0b1010, 128), (0b1011, 1)]
)
def test_the_timer_counts_bus_cycles_of_10_ns_divided(divide: int, factor: int, pc: Smp) -> None:
    pc.put(DIVIDE, divide)
    pc.put(LVT_TIMER, 0x40)
    pc.put(INITIAL, 100_000)
    pc.pass_time(40_000 * 10 * factor)
    assert (pc.get(INITIAL), pc.get(CURRENT), pc.take()) == (100_000, 60_000, None)
    pc.pass_time(60_000 * 10 * factor)
    assert (pc.get(CURRENT), pc.take()) == (0, 0x40)
    pc.pass_time(SECOND)
    pc.put(EOI, 0)
    assert pc.take() is None


def test_a_periodic_timer_goes_on(pc: Smp) -> None:
    pc.put(DIVIDE, 0b1011)
    pc.put(LVT_TIMER, PERIODIC | 0x40)
    pc.put(INITIAL, 100_000)
    for _ in range(5):
        pc.pass_time(1_000_000)
        assert pc.take() == 0x40
        pc.put(EOI, 0)
    pc.put(INITIAL, 0)
    pc.pass_time(SECOND)
    assert (pc.take(), pc.clock.next_deadline()) == (None, None)


def test_a_period_that_is_too_short_does_not_make_the_host_spin(pc: Smp) -> None:
    calls = 0
    accept = pc.board.lapics[0].accept

    def count(vector: int, level: bool) -> None:
        nonlocal calls
        calls += 1
        accept(vector, level)

    pc.board.lapics[0].accept = count  # type: ignore[method-assign]
    pc.put(DIVIDE, 0b1011)
    pc.put(LVT_TIMER, PERIODIC | 0x40)
    pc.put(INITIAL, 1)
    pc.pass_time(SECOND // 10)
    assert 900 <= calls <= 1000


def test_a_masked_timer_counts_and_does_not_interrupt(pc: Smp) -> None:
    pc.put(DIVIDE, 0b1011)
    pc.put(LVT_TIMER, MASKED | PERIODIC | 0x40)
    pc.put(INITIAL, 1_000_000)
    pc.pass_time(15_000_000)
    assert (pc.get(CURRENT), pc.take()) == (500_000, None)
    pc.put(LVT_TIMER, PERIODIC | 0x40)
    pc.pass_time(4_999_999)
    assert pc.take() is None
    pc.pass_time(1)
    assert pc.take() == 0x40


def test_a_one_shot_that_ran_out_while_masked_stays_out(pc: Smp) -> None:
    pc.put(LVT_TIMER, MASKED | 0x40)
    pc.put(INITIAL, 1000)
    pc.pass_time(SECOND)
    pc.put(LVT_TIMER, PERIODIC | 0x40)
    pc.pass_time(SECOND)
    assert (pc.get(CURRENT), pc.take()) == (0, None)


def test_a_new_divider_keeps_the_present_count(pc: Smp) -> None:
    pc.put(DIVIDE, 0b1011)
    pc.put(LVT_TIMER, 0x40)
    pc.put(INITIAL, 1_000_000)
    pc.pass_time(4_000_000)
    pc.put(DIVIDE, 0b0000)
    assert pc.get(CURRENT) == 600_000
    pc.pass_time(11_999_999)
    assert pc.take() is None
    pc.pass_time(1)
    assert pc.take() == 0x40


def test_deadline_mode_is_the_engines(pc: Smp) -> None:
    pc.put(LVT_TIMER, DEADLINE | 0x40)
    pc.put(INITIAL, 1000)
    assert (pc.get(INITIAL), pc.get(CURRENT)) == (0, 0)
    pc.board.lapics[0].set_deadline(5000)
    pc.pass_time(4999)
    assert pc.take() is None
    pc.pass_time(1)
    assert pc.take() == 0x40
    pc.board.lapics[0].set_deadline(9000)
    pc.board.lapics[0].set_deadline(None)
    pc.pass_time(SECOND)
    pc.put(EOI, 0)
    assert pc.take() is None


def takers(smp: Smp) -> list[int]:
    return [vcpu for vcpu in range(4) if smp.take(vcpu) is not None]


@pytest.mark.parametrize(
    ("high", "low", "expected"),
    [
        (2 << 24, 0x41, [1]),
        (0xFF << 24, 0x41, [0, 1, 2, 3]),
        (9 << 24, 0x41, []),
        (0, 0x40041, [2]),
        (0, 0x80041, [0, 1, 2, 3]),
        (0, 0xC0041, [0, 1, 3]),
        (0b1010 << 24, 0x841, [1, 3]),
    ],
)
def test_an_ipi_finds_its_destination(high: int, low: int, expected: list[int], smp: Smp) -> None:
    for vcpu in range(4):
        smp.put(LDR, 1 << 24 + vcpu, vcpu)
    smp.put(ICR_HIGH, high, 2)
    smp.put(ICR, low, 2)
    assert takers(smp) == expected
    assert smp.get(ICR, 2) == low


def test_clusters_match_by_their_number_and_their_members(smp: Smp) -> None:
    for vcpu, ldr in enumerate((0x11, 0x12, 0x21, 0x22)):
        smp.put(DFR, 0, vcpu)
        smp.put(LDR, ldr << 24, vcpu)
    smp.msi(0x41, 0x23, logical=True)
    assert takers(smp) == [2, 3]
    smp.put(DFR, 0x70000000, 2)
    smp.msi(0x51, 0x23, logical=True)
    assert takers(smp) == [3]


def test_lowest_priority_goes_round_among_the_least_busy(smp: Smp) -> None:
    smp.put(TPR, 0x80, 1)
    chosen = []
    for vector in range(0x41, 0x46):
        smp.msi(vector, 0xFF, mode=1)
        chosen += takers(smp)
        for vcpu in range(4):
            smp.put(EOI, 0, vcpu)
    assert chosen == [2, 3, 0, 2, 3]


def test_init_resets_and_start_up_names_a_page(smp: Smp) -> None:
    seen: list[tuple[int, ...]] = []
    smp.board.bus.on_init = lambda vcpu: seen.append((vcpu,))
    smp.board.bus.on_startup = lambda vcpu, vector: seen.append((vcpu, vector))
    smp.put(ICR, 0xC4500)
    smp.put(ICR, 0xC8500)
    smp.put(ICR, 0xC4609)
    assert seen == [(1,), (2,), (3,), (1, 9), (2, 9), (3, 9)]
    assert (smp.get(SVR, 1), smp.get(SVR, 0), smp.get(ID, 3)) == (0xFF, 0x1FF, 6 << 24)


@pytest.mark.parametrize(("command", "taken"), [(0x4500, True), (0xC500, True), (0x8500, False)])
def test_only_the_deassertion_of_init_is_for_older_apics(
    command: int, taken: bool, smp: Smp
) -> None:
    seen: list[int] = []
    smp.board.bus.on_init = seen.append
    smp.put(ICR_HIGH, 2 << 24)
    smp.put(ICR, command)
    assert seen == ([1] if taken else [])


def test_an_nmi_is_noted_until_it_is_delivered(smp: Smp) -> None:
    smp.put(ICR_HIGH, 4 << 24)
    smp.put(ICR, 0x400)
    smp.put(ICR, 0x400)
    assert (smp.board.nmi, smp.woken.count(2)) == ([False, False, True, False], 1)


def test_the_ioapic_is_xens(pc: Smp) -> None:
    for register, value in ((0, 0), (1, 0x002F0011), (0x10, MASKED), (0x10 + 95, 0), (0x70, 0)):
        pc.store(0xFEC00000, register)
        assert pc.load(0xFEC00010) == value
    pc.store(0xFEC00000, 0)
    pc.store(0xFEC00010, 0xFFFFFFFF)
    assert pc.load(0xFEC00010) == 0x0F000000
    pc.store(0xFEC00000, 2)
    assert pc.load(0xFEC00010) == 0x0F000000
    pc.store(0xFEC00000, 1)
    pc.store(0xFEC00010, 0)
    assert (pc.load(0xFEC00010), pc.load(0xFEC00020)) == (0x002F0011, 0)


def test_an_edge_interrupts_once_and_is_lost_while_masked(pc: Smp) -> None:
    pc.entry(4, MASKED | 0x41)
    pc.lines.set_isa_irq(4, 1)
    pc.entry(4, 0x41)
    assert pc.take() is None
    pc.lines.set_isa_irq(4, 0)
    pc.lines.set_isa_irq(4, 1)
    assert (pc.take(), pc.get(TMR + 0x20)) == (0x41, 0)
    pc.put(EOI, 0)
    assert pc.take() is None


def test_a_level_comes_again_at_its_end_while_the_pin_is_asserted(pc: Smp) -> None:
    pc.entry(32, LEVEL | 0x41)
    pc.lines.set_intx(4, 0, 1)
    assert (pc.take(), pc.entry_low(32)) == (0x41, LEVEL | 0x4041)
    assert pc.get(TMR + 0x20) == 2
    pc.put(EOI, 0)
    assert pc.take() == 0x41
    pc.lines.set_intx(4, 0, 0)
    pc.put(EOI, 0)
    assert (pc.take(), pc.entry_low(32)) == (None, LEVEL | 0x41)


def test_a_level_that_is_unmasked_comes_then(pc: Smp) -> None:
    pc.entry(32, MASKED | LEVEL | 0x41)
    pc.lines.set_intx(4, 0, 1)
    assert pc.take() is None
    pc.entry(32, LEVEL | 0x41)
    assert pc.take() == 0x41


def test_a_switch_to_edge_forgets_the_remote_irr(pc: Smp) -> None:
    pc.entry(32, LEVEL | 0x41)
    pc.lines.set_intx(4, 0, 1)
    pc.entry(32, MASKED | 0x41)
    assert pc.entry_low(32) == MASKED | 0x41


def test_an_entry_names_its_destination_and_its_mode(smp: Smp) -> None:
    for vcpu in range(4):
        smp.put(LDR, 1 << 24 + vcpu, vcpu)
    smp.entry(5, LOGICAL | 0x41, 0b0110 << 24)
    smp.lines.set_isa_irq(5, 1)
    assert takers(smp) == [1, 2]
    smp.entry(6, 0x400, 6 << 24)
    smp.lines.set_isa_irq(6, 1)
    assert smp.board.nmi == [False, False, False, True]


def test_irq_0_comes_in_on_pin_2(pc: Smp) -> None:
    pc.entry(2, 0x41)
    pc.outb(0x43, 0x34)
    pc.outb(0x40, 0, 0)
    pc.pass_time(SECOND)
    assert pc.take() == 0x41


def test_a_message_to_nobody_is_esrch_when_of_lowest_priority(pc: Smp) -> None:
    pc.msi(0x41, 9)
    with pytest.raises(HypercallError) as caught:
        pc.msi(0x41, 9, mode=1)
    assert caught.value.errno == ESRCH
    with pytest.raises(HypercallError) as caught:
        pc.msi(0x41, 0, mode=4)
    assert caught.value.errno == EINVAL


ACCESS = st.tuples(
    st.booleans(),
    st.sampled_from((0xFEE00000, 0xFEC00000)),
    st.integers(0, 0xFF).map(lambda n: n * 4),
    st.sampled_from((1, 2, 4, 8)),
    st.integers(0, (1 << 64) - 1),
    st.integers(0, 10_000_000),
)


@given(st.lists(ACCESS, max_size=40))
def test_no_access_raises_and_what_is_pending_is_always_known(
    accesses: list[tuple[bool, int, int, int, int, int]],
) -> None:
    smp = Smp(2)
    for writes, base, offset, size, value, wait in accesses:
        address = base + (offset & 0xFF if base == 0xFEC00000 else offset)
        handler = smp.domain.intercepts.find(1, address, size)
        if handler is not None and writes:
            handler.write(address, size, value & (1 << 8 * size) - 1)
        elif handler is not None:
            assert handler.read(address, size) is not None
        smp.pass_time(wait)
        for vcpu, lapic in enumerate(smp.board.lapics):
            wire = smp.board._target == vcpu and smp.board.pic.master.output
            assert smp.board.pending[vcpu] == bool(lapic.deliverable() >= 0 or wire)
