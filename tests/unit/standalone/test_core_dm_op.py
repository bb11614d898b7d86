"""The device-model hypercall: order of checks, error codes, and what each operation does."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from errno import (
    EBUSY,
    EFAULT,
    EINVAL,
    ENOENT,
    ENOSPC,
    ENOSYS,
    EOPNOTSUPP,
    EPERM,
    ERANGE,
    ESRCH,
)

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import layouts
from tools.hypervisor.dm_op import OPERATIONS, perform
from tools.hypervisor.domain import Domain
from tools.hypervisor.errors import HypercallError


def domain(**options: int) -> Domain:
    return Domain(5, vcpus=options.pop("vcpus", 1), ram=[(0, 1 << 20)], **options)  # type: ignore[arg-type]


def call(
    target: Domain, number: int, layout: str, values: Sequence[int], buffer: bytes = b""
) -> bytes:
    data = struct.pack("<II", number, 0) + struct.pack(layout, *values)
    return perform(target, 0, data.ljust(32, b"\0") + buffer)


def refusal(
    target: Domain, number: int, layout: str, values: Sequence[int], buffer: bytes = b""
) -> int:
    with pytest.raises(HypercallError) as caught:
        call(target, number, layout, values, buffer)
    return caught.value.errno


def raw(target: Domain, data: bytes, emulator: int = 0, privileged: bool = True) -> int:
    with pytest.raises(HypercallError) as caught:
        perform(target, emulator, data, privileged=privileged)
    return caught.value.errno


class Sink:
    """Interrupt controllers that write down what they are told."""

    def __init__(self, taken: bool | None = None) -> None:
        self.calls: list[tuple[str, int, int]] = []
        self.taken = taken

    def set_gsi(self, gsi: int, level: int) -> None:
        self.calls.append(("gsi", gsi, level))

    def set_pic(self, irq: int, level: int) -> None:
        self.calls.append(("pic", irq, level))

    def inject_msi(self, address: int, data: int) -> bool | None:
        self.calls.append(("msi", address, data))
        return self.taken


def test_checks_come_in_xens_order() -> None:
    bad = struct.pack("<II", 99, 1)
    dead = domain()
    dead.destroy()
    assert raw(dead, bad) == ESRCH
    alive = domain()
    assert raw(alive, bad, emulator=5) == EPERM
    assert raw(alive, bad, privileged=False) == EPERM
    assert raw(alive, bad[:7]) == EFAULT
    assert raw(alive, bad) == EOPNOTSUPP
    assert raw(alive, struct.pack("<II", layouts.DM_OP_NR_VCPUS, 1)) == EFAULT
    assert raw(alive, struct.pack("<IIQ", layouts.DM_OP_NR_VCPUS, 1, 0)) == EINVAL


@pytest.mark.parametrize("number", [0, 19, 21, 1 << 31])
def test_operations_that_x86_lacks_are_refused(number: int) -> None:
    assert raw(domain(), struct.pack("<II24x", number, 0)) == EOPNOTSUPP


@pytest.mark.parametrize("number", sorted(OPERATIONS))
def test_an_argument_one_byte_too_short_is_refused(number: int) -> None:
    size = OPERATIONS[number].argument.size
    assert raw(domain(), struct.pack("<II", number, 0).ljust(8 + size - 1, b"\0")) == EFAULT


@pytest.mark.parametrize(
    ("number", "layout", "values"),
    [
        (layouts.DM_OP_CREATE_IOREQ_SERVER, "<BBBBH", (0, 0, 0, 1, 0)),
        (layouts.DM_OP_MAP_IO_RANGE_TO_IOREQ_SERVER, "<HHIQQ", (0, 1, 0, 0, 0)),
        (layouts.DM_OP_UNMAP_IO_RANGE_FROM_IOREQ_SERVER, "<HHIQQ", (0, 1, 0, 0, 0)),
        (layouts.DM_OP_SET_IOREQ_SERVER_STATE, "<HBB", (0, 1, 1)),
        (layouts.DM_OP_DESTROY_IOREQ_SERVER, "<HH", (0, 1)),
        (layouts.DM_OP_TRACK_DIRTY_VRAM, "<IIQ", (0, 1, 0)),
        (layouts.DM_OP_SET_MEM_TYPE, "<IHHQ", (0, 0, 1, 0)),
        (layouts.DM_OP_INJECT_EVENT, "<IBBBBIIQ", (0, 0, 0, 0, 1, 0, 0, 0)),
        (layouts.DM_OP_INJECT_EVENT, "<IBBBBIIQ", (0, 0, 0, 0, 0, 0, 1, 0)),
        (layouts.DM_OP_INJECT_MSI, "<IIQ", (0, 1, 0)),
        (layouts.DM_OP_RELOCATE_MEMORY, "<IIQQ", (0, 1, 0, 0)),
        (layouts.DM_OP_PIN_MEMORY_CACHEATTR, "<QQII", (0, 0, 0, 1)),
    ],
)
def test_padding_must_be_zero(number: int, layout: str, values: Sequence[int]) -> None:
    target = domain()
    perform(target, 0, struct.pack("<IIBBBBH", 1, 0, 0, 0, 0, 0, 0))
    assert refusal(target, number, layout, values) == EINVAL


def test_the_number_of_vcpus_is_the_most_there_may_be() -> None:
    answer = call(domain(vcpus=2, max_vcpus=4), layouts.DM_OP_NR_VCPUS, "<I", (0,))
    assert struct.unpack_from("<I", answer, 8) == (4,)


def test_buffers_come_back_as_they_were_changed() -> None:
    answer = call(domain(), layouts.DM_OP_TRACK_DIRTY_VRAM, "<IIQ", (9, 0, 1), b"\0\0\x55")
    assert answer[32:] == b"\xff\x01\x55"
    assert len(call(domain(), layouts.DM_OP_SET_ISA_IRQ_LEVEL, "<BB", (4, 1))) == 32


@pytest.mark.parametrize(
    ("values", "buffer", "error"),
    [
        ((262145, 0, 0), bytes(40000), EINVAL),
        ((9, 0, 0), b"\0", EINVAL),
    ],
)
def test_video_memory_that_cannot_be_tracked(
    values: Sequence[int], buffer: bytes, error: int
) -> None:
    assert refusal(domain(), layouts.DM_OP_TRACK_DIRTY_VRAM, "<IIQ", values, buffer) == error


def test_lines_are_routed_and_their_levels_are_kept() -> None:
    target = domain()
    sink = target.interrupts.sink = Sink()
    for level in (1, 1, 0):
        call(target, layouts.DM_OP_SET_PCI_INTX_LEVEL, "<HBBBB", (0, 0, 3, 0, level))
    call(target, layouts.DM_OP_SET_ISA_IRQ_LEVEL, "<BB", (4, 1))
    assert sink.calls == [("gsi", 28, 1), ("gsi", 28, 0), ("gsi", 4, 1), ("pic", 4, 1)]


def test_link_routes_move_lines() -> None:
    target = domain()
    sink = target.interrupts.sink = Sink()
    call(target, layouts.DM_OP_SET_PCI_LINK_ROUTE, "<BB", (3, 11))
    call(target, layouts.DM_OP_SET_PCI_INTX_LEVEL, "<HBBBB", (0, 0, 3, 0, 1))
    assert ("pic", 11, 1) in sink.calls


@pytest.mark.parametrize(
    ("number", "layout", "values"),
    [
        (layouts.DM_OP_SET_PCI_INTX_LEVEL, "<HBBBB", (1, 0, 3, 0, 1)),
        (layouts.DM_OP_SET_PCI_INTX_LEVEL, "<HBBBB", (0, 1, 3, 0, 1)),
        (layouts.DM_OP_SET_PCI_INTX_LEVEL, "<HBBBB", (0, 0, 32, 0, 1)),
        (layouts.DM_OP_SET_PCI_INTX_LEVEL, "<HBBBB", (0, 0, 3, 4, 1)),
        (layouts.DM_OP_SET_PCI_INTX_LEVEL, "<HBBBB", (0, 0, 3, 0, 2)),
        (layouts.DM_OP_SET_ISA_IRQ_LEVEL, "<BB", (16, 1)),
        (layouts.DM_OP_SET_ISA_IRQ_LEVEL, "<BB", (4, 2)),
        (layouts.DM_OP_SET_PCI_LINK_ROUTE, "<BB", (4, 5)),
        (layouts.DM_OP_SET_PCI_LINK_ROUTE, "<BB", (0, 16)),
    ],
)
def test_lines_that_do_not_exist_are_refused(
    number: int, layout: str, values: Sequence[int]
) -> None:
    assert refusal(domain(), number, layout, values) == EINVAL


def test_messages_are_injected_or_refused_as_xen_does() -> None:
    target = domain()
    sink = target.interrupts.sink = Sink(taken=False)
    operation = layouts.DM_OP_INJECT_MSI
    call(target, operation, "<IIQ", (0x4031, 0, 0xFEE00000))
    assert sink.calls == [("msi", 0xFEE00000, 0x4031)]
    assert refusal(target, operation, "<IIQ", (0x4231, 0, 0xFEE00000)) == EINVAL
    assert refusal(target, operation, "<IIQ", (0x4131, 0, 0xFEE00000)) == ESRCH
    assert refusal(target, operation, "<IIQ", (0x4300, 0, 0xFEE00000)) == ERANGE


def test_an_event_waits_for_its_vcpu_and_a_second_one_is_refused() -> None:
    target = domain(vcpus=2)
    values = (1, 2, layouts.EVENT_TYPE_NMI, 0, 0, 0xFFFFFFFF, 0, 0x1234)
    call(target, layouts.DM_OP_INJECT_EVENT, "<IBBBBIIQ", values)
    assert refusal(target, layouts.DM_OP_INJECT_EVENT, "<IBBBBIIQ", values) == EBUSY
    assert target.vcpus[1].attention
    event = target.vcpus[1].take_event()
    assert event is not None
    assert (event.vector, event.kind, event.error_code, event.cr2) == (
        2,
        layouts.EVENT_TYPE_NMI,
        0xFFFFFFFF,
        0x1234,
    )
    assert target.vcpus[1].take_event() is None
    assert target.vcpus[0].take_event() is None
    call(target, layouts.DM_OP_INJECT_EVENT, "<IBBBBIIQ", values)
    assert refusal(target, layouts.DM_OP_INJECT_EVENT, "<IBBBBIIQ", (2, *values[1:])) == EINVAL


def extents(*pairs: tuple[int, int], pad: int = 0) -> bytes:
    return b"".join(struct.pack("<IIQ", count, pad, first) for first, count in pairs)


def test_modified_memory_reaches_the_dirty_log_while_it_is_on() -> None:
    target = domain()
    operation = layouts.DM_OP_MODIFIED_MEMORY
    call(target, operation, "<II", (1, 0), extents((1, 1)))
    call(target, operation, "<II", (1000, 0), b"")
    assert target.dirty.take() == set()
    target.dirty.enabled = True
    call(target, operation, "<II", (2, 0), extents((1, 2), (0xFF, 1)))
    assert target.dirty.take() == {1, 2, 0xFF}
    assert refusal(target, operation, "<II", (2, 0), extents((1, 2))) == EFAULT
    assert refusal(target, operation, "<II", (1, 0), extents((0x100, 1))) == EINVAL
    assert refusal(target, operation, "<II", (1, 0), extents((1, 1), pad=1)) == EINVAL


def test_memory_types_change_until_the_first_hole() -> None:
    target = Domain(5, vcpus=1, ram=[(0, 0x2000), (0x3000, 0x1000)])
    told: list[tuple[int, int, int]] = []
    target.memory.on_type.append(lambda *what: told.append(what))
    operation = layouts.DM_OP_SET_MEM_TYPE
    ro, mmio, rw = layouts.MEM_TYPE_RAM_RO, layouts.MEM_TYPE_MMIO_DM, layouts.MEM_TYPE_RAM_RW
    assert refusal(target, operation, "<IHHQ", (3, ro, 0, 1)) == EINVAL
    assert target.memory.types == {1: ro}
    call(target, operation, "<IHHQ", (4, mmio, 0, 0))
    assert target.memory.types == {0: mmio, 1: mmio, 3: mmio}
    call(target, operation, "<IHHQ", (1, rw, 0, 3))
    assert target.memory.types == {0: mmio, 1: mmio}
    assert told == [(1, 1, ro), (0, 2, mmio), (3, 1, mmio), (3, 1, rw)]
    assert refusal(target, operation, "<IHHQ", (1, rw, 0, 2)) == EINVAL
    assert refusal(target, operation, "<IHHQ", (1, rw, 0, 4)) == EINVAL
    assert refusal(target, operation, "<IHHQ", (1, layouts.MEM_TYPE_UNUSED, 0, 0)) == EINVAL
    assert refusal(target, operation, "<IHHQ", (1, 99, 0, 0)) == EINVAL
    assert (
        refusal(target, operation, "<IHHQ", (1, layouts.MEM_TYPE_IOREQ_SERVER, 0, 0)) == EOPNOTSUPP
    )


def test_pinned_ranges_have_xens_rules() -> None:
    target = domain()
    operation = layouts.DM_OP_PIN_MEMORY_CACHEATTR
    wb, delete = layouts.MEM_CACHEATTR_WB, layouts.MEM_CACHEATTR_DELETE
    for index in range(64):
        call(target, operation, "<QQII", (10 * index, 10 * index + 5, wb, 0))
    assert refusal(target, operation, "<QQII", (5, 5, wb, 0)) == EBUSY
    assert refusal(target, operation, "<QQII", (700, 700, wb, 0)) == ENOSPC
    assert refusal(target, operation, "<QQII", (0, 4, delete, 0)) == ENOENT
    call(target, operation, "<QQII", (0, 5, delete, 0))
    call(target, operation, "<QQII", (700, 700, wb, 0))
    assert refusal(target, operation, "<QQII", (9, 8, wb, 0)) == EINVAL
    assert refusal(target, operation, "<QQII", (800, 1 << 40, wb, 0)) == EINVAL
    assert refusal(target, operation, "<QQII", (800, 800, 2, 0)) == EINVAL


def test_what_is_not_modelled_says_so() -> None:
    target = domain()
    assert refusal(target, layouts.DM_OP_RELOCATE_MEMORY, "<IIQQ", (1, 0, 0, 1)) == ENOSYS
    operation = layouts.DM_OP_MAP_MEM_TYPE_TO_IOREQ_SERVER
    assert refusal(target, operation, "<HHIQ", (0, 4, 2, 0)) == EOPNOTSUPP


@given(st.integers(0, 22), st.binary(max_size=90))
def test_no_bytes_do_any_harm(number: int, rest: bytes) -> None:
    target = domain(vcpus=2)
    for _ in range(2):
        try:
            answer = perform(target, 0, struct.pack("<I", number) + b"\0\0\0\0" + rest)
        except HypercallError as error:
            answer = bytes(error.errno)
        assert answer
    assert target.memory.highest_gfn == 0xFF
