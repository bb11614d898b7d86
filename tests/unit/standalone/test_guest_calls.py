"""What a guest's hypercalls do to its memory, its event channels and itself, by either width."""

from __future__ import annotations

import itertools
import os
import struct
import threading
from errno import EEXIST, EFAULT, EINVAL, ENOENT, ENOSYS, EOPNOTSUPP, EPERM, ESRCH

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import layouts
from tools.hypervisor.domain import Domain
from tools.hypervisor.errors import HypercallError
from tools.hypervisor.hypercalls import Hypercalls
from tools.hypervisor.images.cpu_start import CpuStart
from tools.hypervisor.memory import PAGE_SIZE, GuestMemory, MemoryRegion

MIB = 1 << 20
RAM = 2 * MIB
ARGUMENT, EXTENTS = 0x1000, 0x2000
SELF = layouts.DOMID_SELF
HOLE = 0xFC001
WIDTHS = pytest.mark.parametrize("wide", [False, True], ids=["32", "64"])


def make(vcpus: int = 1) -> tuple[Domain, Hypercalls]:
    domain = Domain(1, vcpus=vcpus, ram=[(0, RAM)])
    domain.hypercalls = Hypercalls(domain)
    return domain, domain.hypercalls


def call(calls: Hypercalls, number: int, *arguments: int, wide: bool) -> int:
    """The answer as a signed number."""
    bits = 64 if wide else 32
    answer = calls.call(0, number, [*arguments, 0, 0, 0][:5], wide)
    return answer - (1 << bits) if answer >> bits - 1 else answer


def memory_op(
    domain: Domain, operation: int, fields: tuple[int, ...], formats: tuple[str, str], wide: bool
) -> int:
    assert domain.hypercalls is not None
    domain.memory.write(ARGUMENT, struct.pack(formats[wide], *fields))
    number = layouts.HYPERCALL_MEMORY_OP
    return call(domain.hypercalls, number, operation, ARGUMENT, wide=wide)


def reserve(domain: Domain, operation: int, gfns: list[int], wide: bool, order: int = 0) -> int:
    domain.memory.write(EXTENTS, struct.pack(f"<{len(gfns)}{'IQ'[wide]}", *gfns))
    fields = (EXTENTS, len(gfns), order, 0, SELF)
    return memory_op(domain, operation, fields, ("<IIIIH2x", "<QQIIH6x"), wide)


def add(domain: Domain, space: int, index: int, gfn: int, wide: bool, size: int = 0) -> int:
    fields = (SELF, size, space, index, gfn)
    formats = ("<HHIII", "<HHIQQ")
    return memory_op(domain, layouts.MEMORY_OP_ADD_TO_PHYSMAP, fields, formats, wide)


POPULATE, DECREASE = layouts.MEMORY_OP_POPULATE_PHYSMAP, layouts.MEMORY_OP_DECREASE_RESERVATION


@WIDTHS
def test_populated_pages_are_zeroed_ram_and_neighbours_one_region(wide: bool) -> None:
    domain, _ = make()
    assert reserve(domain, POPULATE, [HOLE, HOLE + 1], wide) == 2
    region = domain.memory.find(HOLE << 12)
    assert region is not None
    assert region.size == 2 * PAGE_SIZE
    assert domain.memory.read(HOLE << 12, 2 * PAGE_SIZE) == bytes(2 * PAGE_SIZE)


@WIDTHS
def test_pages_that_are_given_back_come_back_zeroed(wide: bool) -> None:
    domain, _ = make()
    domain.memory.write(0x100000, b"secret")
    assert reserve(domain, DECREASE, [0x100], wide) == 1
    assert domain.memory.find(0x100000) is None
    assert domain.memory.find(0xFFFFF) is not None
    assert domain.memory.find(0x101000) is not None
    assert domain.vcpus[0].attention, "emulators are to be told before the guest goes on"
    assert reserve(domain, POPULATE, [HOLE], wide) == 1
    assert domain.memory.read(HOLE << 12, 6) == bytes(6)


def test_populate_says_how_far_it_came_when_there_are_no_more_pages() -> None:
    domain, _ = make()
    domain.memory = GuestMemory([(0, RAM)], spare=3 * PAGE_SIZE)
    domain.hypercalls = Hypercalls(domain)
    assert reserve(domain, POPULATE, list(range(HOLE, HOLE + 5)), wide=False) == 2


def test_what_is_not_ram_cannot_be_given_back() -> None:
    domain, _ = make()
    assert reserve(domain, DECREASE, [0x10, HOLE, 0x11], wide=True) == 1
    assert domain.memory.find(0x11000) is not None


@pytest.mark.parametrize(("order", "error"), [(9, None), (10, EPERM)])
def test_extents_are_at_most_2_mib(order: int, error: int | None) -> None:
    domain, _ = make()
    answer = reserve(domain, POPULATE, [0x80000], wide=True, order=order)
    assert answer == (1 if error is None else -error)


def test_too_many_extents_are_refused() -> None:
    domain, _ = make()
    fields = (EXTENTS, 1 << 40, 0, 0, SELF)
    assert memory_op(domain, POPULATE, fields, ("<IIIIH2x", "<QQIIH6x"), wide=True) == -EINVAL


@WIDTHS
def test_the_shared_page_is_at_one_place_and_goes_on_to_the_next(wide: bool) -> None:
    domain, calls = make()
    assert add(domain, layouts.MAP_SPACE_SHARED_INFO, 0, HOLE, wide) == 0
    assert add(domain, layouts.MAP_SPACE_SHARED_INFO, 0, HOLE + 5, wide) == 0
    assert domain.memory.find(HOLE << 12) is None
    region = domain.memory.find((HOLE + 5) << 12)
    assert region is not None
    assert region.offset == calls.shared.offset


@WIDTHS
def test_a_page_that_is_moved_takes_its_bytes_along_and_frees_what_was_there(wide: bool) -> None:
    domain, _ = make()
    domain.memory.write(0x100000, b"moved")
    domain.memory.write(0x101000, b"gone")
    assert add(domain, layouts.MAP_SPACE_GMFN, 0x100, 0x101, wide) == 0
    assert domain.memory.find(0x100000) is None
    assert domain.memory.read(0x101000, 5) == b"moved"
    assert add(domain, layouts.MAP_SPACE_GMFN_RANGE, 0x101, HOLE, wide, size=4) == 0
    assert domain.memory.read(HOLE << 12, 5) == b"moved"
    assert domain.memory.find(0x104000) is None


def test_ram_that_is_not_there_cannot_be_moved() -> None:
    domain, _ = make()
    assert add(domain, layouts.MAP_SPACE_GMFN, HOLE, 0x10, wide=True) == -EINVAL
    assert domain.memory.find(0x10000) is not None


def test_a_page_that_is_mapped_over_the_shared_one_does_not_free_that() -> None:
    domain, calls = make()
    add(domain, layouts.MAP_SPACE_SHARED_INFO, 0, HOLE, wide=True)
    assert reserve(domain, POPULATE, [HOLE], wide=True) == 1
    assert domain.memory.take_page() != calls.shared.offset
    assert add(domain, layouts.MAP_SPACE_SHARED_INFO, 0, HOLE + 1, wide=True) == 0


@WIDTHS
def test_the_memory_map_is_what_the_toolstack_set_as_far_as_it_fits(wide: bool) -> None:
    domain, calls = make()
    layout = ("<II", "<I4xQ")
    arguments = (layouts.MEMORY_OP_MEMORY_MAP, (2, EXTENTS), layout, wide)
    assert memory_op(domain, *arguments) == -ENOSYS
    calls.memory.memory_map = [(0, MIB, 1), (1 << 32, MIB, 1), (1 << 40, MIB, 2)]
    assert memory_op(domain, *arguments) == 0
    assert struct.unpack_from("<I", domain.memory.read(ARGUMENT, 4))[0] == 2
    assert domain.memory.read(EXTENTS, 40) == struct.pack("<QQIQQI", 0, MIB, 1, 1 << 32, MIB, 1)


def test_arguments_outside_of_ram_are_efault() -> None:
    _, calls = make()
    for number in (12, 32, 34):
        assert call(calls, number, 6, 0xF0000000, wide=True) in (-EFAULT, -ENOSYS)
    assert call(calls, layouts.HYPERCALL_MEMORY_OP, POPULATE, RAM - 4, wide=True) == -EFAULT


@WIDTHS
def test_a_hypercall_that_there_is_not_is_enosys(wide: bool) -> None:
    _, calls = make()
    assert call(calls, 55, 0, wide=wide) == -ENOSYS


def test_a_guest_sets_only_its_own_parameters() -> None:
    domain, calls = make()
    for index, expected in (
        (layouts.HVM_PARAM_CALLBACK_IRQ, 0),
        (layouts.HVM_PARAM_IDENT_PT, -EPERM),
        (layouts.HVM_PARAM_ACPI_S_STATE, -EPERM),
    ):
        domain.memory.write(ARGUMENT, struct.pack("<HHIQ", SELF, 0, index, 3))
        answer = call(calls, layouts.HYPERCALL_HVM_OP, 0, ARGUMENT, wide=True)
        assert answer == expected, index


@given(
    st.lists(
        st.tuples(st.sampled_from(["map", "unmap", "move"]), st.integers(0, 24), st.integers(0, 24))
    )
)
def test_regions_stay_sorted_disjoint_and_keep_each_pages_bytes(
    steps: list[tuple[str, int, int]],
) -> None:
    memory = GuestMemory([(0, 8 * PAGE_SIZE), (16 * PAGE_SIZE, 4 * PAGE_SIZE)], spare=8 * PAGE_SIZE)
    model = {gfn: bytes([gfn + 1]) for gfn in (*range(8), *range(16, 20))}
    for gfn, mark in model.items():
        memory.write(gfn * PAGE_SIZE, mark)
    for what, gfn, other in steps:
        if what == "map" and gfn not in model:
            page = memory.take_page()
            if page is not None:
                memory.map_page(gfn, page)
                model[gfn] = b"\0"
        elif what == "unmap":
            page = memory.unmap_page(gfn)
            assert (page is not None) == (gfn in model)
            if page is not None:
                memory.give_page(page)
                del model[gfn]
        elif what == "move" and gfn in model and other not in model:
            page = memory.unmap_page(gfn)
            assert page is not None
            memory.map_page(other, page)
            model[other] = model.pop(gfn)
    regions = memory.regions
    assert regions == sorted(regions)
    assert all(a.gpa + a.size <= b.gpa for a, b in itertools.pairwise(regions))
    there = {(r.gpa + at) // PAGE_SIZE for r in regions for at in range(0, r.size, PAGE_SIZE)}
    assert there == model.keys()
    assert {gfn: memory.read(gfn * PAGE_SIZE, 1) for gfn in model} == model


def test_changes_are_told_and_counted() -> None:
    memory = GuestMemory([(0, PAGE_SIZE)])
    told: list[list[MemoryRegion]] = []
    memory.on_change.append(lambda: told.append(memory.regions))
    page = memory.take_page()
    assert page is not None
    memory.map_page(5, page)
    memory.unmap_page(5)
    assert memory.generation == 2
    assert [len(regions) for regions in told] == [2, 1]


# Event channels


def event_op(
    domain: Domain, operation: int, form: str, *fields: int
) -> tuple[int, tuple[int, ...]]:
    """The answer, and the structure's fields afterwards."""
    assert domain.hypercalls is not None
    domain.memory.write(ARGUMENT, struct.pack(form, *fields))
    number = layouts.HYPERCALL_EVENT_CHANNEL_OP
    answer = call(domain.hypercalls, number, operation, ARGUMENT, wide=True)
    return answer, struct.unpack(form, domain.memory.read(ARGUMENT, struct.calcsize(form)))


def poll(domain: Domain, *ports: int, wide: bool = True) -> int:
    assert domain.hypercalls is not None
    domain.memory.write(EXTENTS, struct.pack(f"<{len(ports)}I", *ports))
    form = "<QI4xQ" if wide else "<IIQ"
    domain.memory.write(ARGUMENT, struct.pack(form, EXTENTS, len(ports), 0))
    number = layouts.HYPERCALL_SCHED_OP
    return call(domain.hypercalls, number, layouts.SCHED_OP_POLL, ARGUMENT, wide=wide)


def pending(calls: Hypercalls, domain: Domain, wide: bool) -> tuple[int, int, int]:
    """Upcall pending, selector and the first word of pending bits, of vCPU 0."""
    page = domain.memory.page(calls.shared.offset)
    form, selector = ("<Q", 8) if wide else ("<I", 4)
    (word,) = struct.unpack_from(form, page, 2048)
    return page[0], struct.unpack_from(form, page, selector)[0], word


@WIDTHS
def test_an_event_sets_the_bits_that_the_guest_looks_at(wide: bool) -> None:
    domain, calls = make()
    calls.fill_page(0x3000, wide=wide)
    port = calls.events.open(0, lambda: None)
    calls.events.raise_port(port)
    assert (port, pending(calls, domain, wide)) == (1, (1, 1, 2))


def test_a_masked_event_waits_until_it_is_unmasked() -> None:
    domain, calls = make()
    port = calls.events.open(0, lambda: None)
    page = domain.memory.page(calls.shared.offset)
    page[2048 + 512] = 1 << port
    calls.events.raise_port(port)
    assert pending(calls, domain, wide=True) == (0, 0, 1 << port)
    assert event_op(domain, layouts.EVENT_CHANNEL_OP_UNMASK, "<I", port)[0] == 0
    assert pending(calls, domain, wide=True) == (1, 1, 1 << port)


def test_a_send_is_told_to_the_other_end() -> None:
    domain, calls = make()
    told: list[int] = []
    port = calls.events.open(0, lambda: told.append(1))
    assert event_op(domain, layouts.EVENT_CHANNEL_OP_SEND, "<I", port)[0] == 0
    assert told == [1]


def test_a_poll_ends_at_once_when_a_port_is_pending() -> None:
    domain, calls = make()
    port = calls.events.open(0, lambda: None)
    assert poll(domain, port, wide=False) == 0
    calls.events.raise_port(port)
    assert poll(domain, port) == 0
    assert poll(domain, port + 1) == -EINVAL


def test_a_poll_is_woken_by_an_event_of_another_thread() -> None:
    domain, calls = make()
    port = calls.events.open(0, lambda: None)
    thread = threading.Thread(target=calls.events.raise_port, args=(port,))
    thread.start()
    while not calls.shared.is_pending(port):
        assert poll(domain, port) == 0
    thread.join()


def test_an_ipi_port_raises_itself_on_its_vcpu() -> None:
    domain, calls = make(vcpus=2)
    answer, (_, port) = event_op(domain, layouts.EVENT_CHANNEL_OP_BIND_IPI, "<II", 1, 0)
    assert answer == 0
    assert event_op(domain, layouts.EVENT_CHANNEL_OP_SEND, "<I", port)[0] == 0
    page = domain.memory.page(calls.shared.offset)
    assert (page[0], page[layouts.VCPU_INFO_SIZE]) == (0, 1)
    assert event_op(domain, layouts.EVENT_CHANNEL_OP_BIND_VCPU, "<II", port, 0)[0] == -EINVAL


def test_a_port_says_what_it_is_until_it_is_closed() -> None:
    domain, _ = make()
    answer, (_, _, port) = event_op(
        domain, layouts.EVENT_CHANNEL_OP_ALLOC_UNBOUND, "<HHI", SELF, 0, 0
    )
    assert answer == 0
    status = (layouts.EVENT_CHANNEL_OP_STATUS, "<H2xIII8x", SELF, port, 0, 0)
    assert event_op(domain, *status)[1][2] == layouts.EVENT_CHANNEL_STATUS_UNBOUND
    assert event_op(domain, layouts.EVENT_CHANNEL_OP_CLOSE, "<I", port)[0] == 0
    assert event_op(domain, *status)[1][2] == layouts.EVENT_CHANNEL_STATUS_CLOSED
    assert event_op(domain, layouts.EVENT_CHANNEL_OP_CLOSE, "<I", port)[0] == -EINVAL


@pytest.mark.parametrize(("domid", "error"), [(0, EPERM), (7, ESRCH)])
def test_a_guest_speaks_for_itself_only(domid: int, error: int) -> None:
    domain, _ = make()
    answer, _ = event_op(domain, layouts.EVENT_CHANNEL_OP_ALLOC_UNBOUND, "<HHI", domid, 0, 0)
    assert answer == -error


def test_a_port_of_an_emulator_is_not_the_guests() -> None:
    domain, _ = make()
    channel = domain.event_channels.allocate(domain.vcpus[0], 0)
    for operation in (layouts.EVENT_CHANNEL_OP_SEND, layouts.EVENT_CHANNEL_OP_CLOSE):
        assert event_op(domain, operation, "<I", channel.port)[0] == -EINVAL


# Time, discovery, soft reset


@pytest.mark.parametrize("khz", [1_000_000, 2_596_000, 800_000, 3_999_999, 10_000])
def test_the_time_information_makes_nanoseconds_of_the_tsc(khz: int) -> None:
    domain, calls = make()
    calls.shared.tsc_khz = khz
    calls.shared.latch(wide=False)
    page = domain.memory.page(calls.shared.offset)
    version, _, _, _, multiplier, shift = struct.unpack_from("<IIQQIb", page, 32)
    ticks = khz * 1000 * 60
    shifted = ticks << shift if shift >= 0 else ticks >> -shift
    assert abs((shifted * multiplier >> 32) - 60_000_000_000) < 60_000
    assert version
    assert not version & 1


def test_the_hvm_leaf_tells_vcpu_and_domain() -> None:
    _, calls = make()
    assert calls.cpuid(layouts.XEN_CPUID_FIRST + 4, 3) == (0x18, 3, 1, 0)


def test_a_soft_reset_takes_ports_the_shared_page_and_the_grant_table() -> None:
    domain, calls = make()
    told: list[int] = []
    port = calls.events.open(0, lambda: told.append(1))
    add(domain, layouts.MAP_SPACE_SHARED_INFO, 0, HOLE, wide=True)
    add(domain, layouts.MAP_SPACE_GRANT_TABLE, 2, HOLE + 1, wide=True)
    calls.events.raise_port(port)
    domain.shutdown(layouts.SHUTDOWN_REASON_SOFT_RESET)
    domain.soft_reset()
    assert domain.memory.read(HOLE << 12, 4096) == bytes(4096)
    assert domain.memory.find((HOLE + 1) << 12) is None
    assert pending(calls, domain, wide=True) == (0, 0, 0)
    assert event_op(domain, layouts.EVENT_CHANNEL_OP_SEND, "<I", port)[0] == -EINVAL
    assert told == []
    assert add(domain, layouts.MAP_SPACE_SHARED_INFO, 0, HOLE, wide=True) == 0


def test_a_new_port_does_not_inherit_an_event() -> None:
    domain, calls = make()
    port = calls.events.open(0, lambda: None)
    calls.events.raise_port(port)
    domain.event_channels.guest_close(port)
    assert calls.events.open(0, lambda: None) == port
    assert not calls.shared.is_pending(port)


@given(st.integers(0, 63), st.lists(st.integers(0, (1 << 64) - 1), max_size=5), st.binary())
def test_no_hypercall_of_a_hostile_guest_raises(
    number: int, arguments: list[int], memory: bytes
) -> None:
    domain, calls = make()
    domain.memory.write(ARGUMENT, memory[: PAGE_SIZE // 2])
    for pointed in (arguments, [*arguments[:1], ARGUMENT]):
        calls.call(0, number, [*pointed, 0, 0, 0, 0, 0][:5], wide=bool(number & 1))


def test_one_that_there_is_no_port_for_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    _, calls = make()
    monkeypatch.setattr("tools.hypervisor.event_channel.PORT_LIMIT", 2)
    calls.events.open(0, os.getpid)
    with pytest.raises(HypercallError):
        calls.events.open(0, os.getpid)


# Further vCPUs


def vcpu_op(
    domain: Domain, operation: int, vcpu: int, registers: dict[int, int] | None = None
) -> int:
    """``registers``: by their place among EAX, ECX, EDX, EBX, ESP, …, EIP, EFLAGS, CR0."""
    assert domain.hypercalls is not None
    values = [0] * 30
    for place, value in (registers or {}).items():
        values[place] = value
    domain.memory.write(ARGUMENT, struct.pack("<II30I", 0, 0, *values))
    number = layouts.HYPERCALL_VCPU_OP
    return call(domain.hypercalls, number, operation, vcpu, ARGUMENT, wide=False)


INITIALISE, UP, DOWN = layouts.VCPU_OP_INITIALISE, layouts.VCPU_OP_UP, layouts.VCPU_OP_DOWN
FLAT = {0: 7, 3: 8, 4: 0x7000, 8: 0x100000, 10: 1}


def test_a_vcpu_begins_with_the_state_that_the_guest_gave_it() -> None:
    domain, _ = make(vcpus=2)
    told: list[tuple[int, CpuStart | None, bool]] = []
    domain.on_vcpu = lambda *order: told.append(order)
    assert vcpu_op(domain, UP, 1) == -EINVAL
    assert vcpu_op(domain, INITIALISE, 1, FLAT) == 0
    assert vcpu_op(domain, INITIALISE, 1, FLAT) == -EEXIST
    assert vcpu_op(domain, UP, 1) == 0
    assert vcpu_op(domain, UP, 1) == 0
    assert vcpu_op(domain, layouts.VCPU_OP_IS_UP, 1) == 1
    assert vcpu_op(domain, DOWN, 1) == 0
    assert vcpu_op(domain, layouts.VCPU_OP_IS_UP, 1) == 0
    assert vcpu_op(domain, UP, 1) == 0
    start = CpuStart("protected", ip=0x100000, eax=7, ebx=8, sp=0x7000)
    assert told == [(1, start, True), (1, None, False), (1, None, True)]


def test_vcpu_operations_that_cannot_be() -> None:
    domain, _ = make(vcpus=2)
    assert vcpu_op(domain, INITIALISE, 1, FLAT) == -EOPNOTSUPP
    domain.on_vcpu = lambda number, start, up: None
    assert vcpu_op(domain, INITIALISE, 2, FLAT) == -ENOENT
    assert vcpu_op(domain, INITIALISE, 0, FLAT) == -EEXIST
    assert vcpu_op(domain, INITIALISE, 1, {**FLAT, 10: 1 << 31 | 1}) == -EOPNOTSUPP
    assert vcpu_op(domain, 9, 1) == -ENOSYS
