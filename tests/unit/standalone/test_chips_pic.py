"""The 8259 pair by its data sheet, and the virtual wire to the first vCPU."""

from __future__ import annotations

import pytest

from tests.unit.standalone.chips_support import Pc


@pytest.fixture
def pc() -> Pc:
    machine = Pc()
    machine.set_up_pic()
    return machine


def raise_irq(pc: Pc, *irqs: int) -> None:
    for irq in irqs:
        pc.lines.set_isa_irq(irq, 1)


def test_an_interrupt_has_the_vector_of_its_controllers_base(pc: Pc) -> None:
    raise_irq(pc, 4)
    assert pc.take() == 0x0C
    raise_irq(pc, 12)
    assert pc.take() == 0x74


def test_the_vcpu_is_told_once_until_it_takes(pc: Pc) -> None:
    raise_irq(pc, 4, 5)
    assert (pc.woken, pc.board.interrupt_pending(0)) == ([0], True)


def test_a_lower_input_interrupts_a_higher_one_but_not_the_reverse(pc: Pc) -> None:
    raise_irq(pc, 5)
    assert pc.take() == 0x0D
    raise_irq(pc, 7)
    assert pc.take() is None
    raise_irq(pc, 3)
    assert pc.take() == 0x0B
    pc.outb(0x20, 0x20)
    assert pc.take() is None
    pc.outb(0x20, 0x20)
    assert pc.take() == 0x0F


def test_a_masked_input_waits(pc: Pc) -> None:
    pc.outb(0x21, 0x10)
    raise_irq(pc, 4)
    assert pc.take() is None
    pc.outb(0x21, 0x00)
    assert pc.take() == 0x0C


def test_an_edge_is_taken_once_however_long_the_line_stays(pc: Pc) -> None:
    raise_irq(pc, 4)
    assert pc.take() == 0x0C
    pc.outb(0x20, 0x20)
    assert pc.take() is None
    pc.lines.set_isa_irq(4, 0)
    raise_irq(pc, 4)
    assert pc.take() == 0x0C


def test_an_edge_that_falls_before_it_is_taken_is_gone_as_in_xen(pc: Pc) -> None:
    raise_irq(pc, 4)
    pc.lines.set_isa_irq(4, 0)
    assert pc.take() is None


def test_a_level_is_taken_again_while_it_is_asserted(pc: Pc) -> None:
    pc.outb(0x4D0, 0x20)
    raise_irq(pc, 5)
    for _ in range(3):
        assert pc.take() == 0x0D
        pc.outb(0x20, 0x20)
    assert pc.take() == 0x0D
    pc.lines.set_isa_irq(5, 0)
    pc.outb(0x20, 0x20)
    assert pc.take() is None


def test_the_elcr_has_only_the_inputs_that_may_be_levels(pc: Pc) -> None:
    pc.outb(0x4D0, 0xFF)
    pc.outb(0x4D1, 0xFF)
    assert (pc.in_(0x4D0), pc.in_(0x4D1), pc.in_(0x4D0, 2)) == (0xF8, 0xDE, 0xDEF8)
    pc.out(0x4D0, 0x0C20, size=2)
    assert (pc.in_(0x4D0), pc.in_(0x4D1)) == (0x20, 0x0C)


def test_an_interrupt_of_the_slave_needs_two_ends(pc: Pc) -> None:
    raise_irq(pc, 8, 9)
    assert pc.take() == 0x70
    pc.outb(0xA0, 0x20)
    assert pc.take() is None
    pc.outb(0x20, 0x20)
    assert pc.take() == 0x71


def test_a_slaves_level_that_falls_in_the_acknowledge_is_spurious_15() -> None:
    pc = Pc()
    pc.set_up_pic()
    pc.outb(0x4D1, 0x02)
    raise_irq(pc, 9)
    pc.board.pic.slave.irr = 0
    assert pc.board.pic.acknowledge() == 0x77
    assert pc.board.pic.slave.isr == 0


def test_an_acknowledge_without_a_request_is_spurious_7(pc: Pc) -> None:
    assert pc.board.pic.acknowledge() == 0x0F
    assert pc.board.pic.master.isr == 0
    assert pc.board.acknowledge(0) is None


def test_automatic_end_leaves_nothing_in_service() -> None:
    pc = Pc()
    pc.set_up_pic(icw4=0x03)
    raise_irq(pc, 1, 3)
    assert (pc.take(), pc.take(), pc.take()) == (0x09, 0x0B, None)


def test_rotation_on_automatic_end_puts_the_served_input_last() -> None:
    pc = Pc()
    pc.set_up_pic(icw4=0x03)
    pc.outb(0x20, 0x80)
    pc.outb(0x21, 0xFF)
    raise_irq(pc, 1, 3)
    pc.outb(0x21, 0x00)
    assert pc.take() == 0x09
    pc.lines.set_isa_irq(1, 0)
    raise_irq(pc, 1)
    assert (pc.take(), pc.take()) == (0x0B, 0x09)


def test_set_priority_chooses_the_lowest(pc: Pc) -> None:
    pc.outb(0x20, 0xC3)
    raise_irq(pc, 3)
    assert pc.take() == 0x0B
    raise_irq(pc, 4)
    assert pc.take() == 0x0C


def test_special_mask_mode_lets_lower_inputs_through_a_masked_service(pc: Pc) -> None:
    raise_irq(pc, 1)
    assert pc.take() == 0x09
    raise_irq(pc, 6)
    assert pc.take() is None
    pc.outb(0x21, 0x02)
    assert pc.take() is None
    pc.outb(0x20, 0x68)
    assert pc.take() == 0x0E
    raise_irq(pc, 7)
    pc.outb(0x20, 0x48)
    pc.outb(0x21, 0x42)
    assert pc.take() is None
    pc.outb(0x20, 0x68)
    assert pc.take() == 0x0F


def test_special_fully_nested_mode_lets_the_slave_interrupt_itself() -> None:
    pc = Pc()
    pc.set_up_pic(icw4=0x11)
    raise_irq(pc, 12)
    assert pc.take() == 0x74
    raise_irq(pc, 9)
    assert pc.take() == 0x71


def test_a_poll_acknowledges_and_answers_with_bit_7(pc: Pc) -> None:
    pc.outb(0x21, 0xFF)
    raise_irq(pc, 4)
    pc.outb(0x21, 0xEB)
    pc.outb(0x20, 0x0C)
    assert pc.in_(0x20) == 0x84
    pc.outb(0x20, 0x0B)
    assert pc.in_(0x20) == 0x10
    pc.outb(0x20, 0x0C)
    assert pc.in_(0x20) == 0


def test_nothing_comes_while_a_controller_is_initialised(pc: Pc) -> None:
    pc.outb(0x4D0, 0x20)
    pc.outb(0x20, 0x11)
    raise_irq(pc, 5)
    assert pc.take() is None
    pc.outb(0x21, 0x20, 0x04, 0x01)
    assert pc.take() == 0x25


def test_initialisation_forgets_edges_and_keeps_levels(pc: Pc) -> None:
    pc.outb(0x4D0, 0x20)
    raise_irq(pc, 4, 5)
    pc.set_up_pic(master=0x30)
    assert (pc.take(), pc.take()) == (0x35, None)


def test_an_access_that_is_not_a_byte_is_all_ones_and_does_nothing(pc: Pc) -> None:
    pc.outb(0x21, 0x5A)
    assert pc.in_(0x20, 2) == 0xFFFF
    pc.out(0x20, 0x0000, size=2)
    assert pc.in_(0x21) == 0x5A


def test_the_8259_reaches_nobody_while_lint0_is_masked(pc: Pc) -> None:
    pc.store(0xFEE000F0, 0x1FF)
    pc.store(0xFEE00350, 0x10700)
    raise_irq(pc, 4)
    assert pc.take() is None
    pc.store(0xFEE00350, 0x00700)
    assert pc.take() == 0x0C


def test_pin_0_of_the_ioapic_can_let_the_8259_through(pc: Pc) -> None:
    pc.store(0xFEE000F0, 0x1FF)
    pc.store(0xFEE00350, 0x10700)
    raise_irq(pc, 4)
    pc.store(0xFEC00000, 0x10)
    pc.store(0xFEC00010, 0x00700)
    assert pc.take() == 0x0C


def test_a_fixed_entry_of_pin_0_lets_nothing_of_the_8259_through(pc: Pc) -> None:
    pc.store(0xFEE000F0, 0x1FF)
    pc.store(0xFEE00350, 0x10700)
    pc.store(0xFEC00000, 0x10)
    raise_irq(pc, 4)
    for entry in (0x00000, 0x00100, 0x00600, 0x10700):
        pc.store(0xFEC00010, entry)
        assert pc.take() is None


def test_only_one_vcpu_hears_the_8259() -> None:
    pc = Pc(2)
    pc.set_up_pic()
    raise_irq(pc, 4)
    assert (pc.board.pending, pc.woken) == ([True, False], [0])
    pc.store(0xFEE00350, 0x10700)
    assert pc.board.pending == [False, False]
    pc.board.bind_thread(1)
    pc.store(0xFEE000F0, 0x1FF)
    pc.store(0xFEE00350, 0x00700)
    assert (pc.board.pending, pc.woken) == ([False, True], [0, 1])
    assert (pc.board.acknowledge(0), pc.take(1)) == (None, 0x0C)
