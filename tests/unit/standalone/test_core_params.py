"""HVM parameters: which can be set, how often and by whom (hvm_allow_set_param)."""

from __future__ import annotations

import struct
from errno import EEXIST, EINVAL, EPERM

import pytest

from protocol import layouts
from tools.hypervisor.errors import HypercallError
from tools.hypervisor.params import BY_GUEST, DEPRECATED, ONCE, Params
from tools.hypervisor.vcpu import PORT

from .core_emulator import ONES, STUB_DOMAIN, Host, RefusedError, Running
from .test_core_dm_op import domain

DM_DOMAIN = layouts.HVM_PARAM_DM_DOMAIN
IOREQ_PFN = layouts.HVM_PARAM_IOREQ_PFN
BUFIOREQ_PFN = layouts.HVM_PARAM_BUFIOREQ_PFN
BUFIOREQ_EVTCHN = layouts.HVM_PARAM_BUFIOREQ_EVTCHN


def refusal(params: Params, index: int, value: int | None = None, by_guest: bool = False) -> int:
    def attempt() -> None:
        if value is None:
            params.get(index)
        else:
            params.set(index, value, by_guest=by_guest)

    with pytest.raises(HypercallError) as caught:
        attempt()
    return caught.value.errno


@pytest.mark.parametrize("index", [*sorted(DEPRECATED), 39, 1 << 31])
def test_deprecated_and_unknown_parameters_are_refused(index: int) -> None:
    params = domain().params
    assert refusal(params, index) == EINVAL
    assert refusal(params, index, 0) == EINVAL


def test_the_default_servers_parameters_are_among_the_deprecated() -> None:
    assert {DM_DOMAIN, BUFIOREQ_EVTCHN} <= DEPRECATED


@pytest.mark.parametrize("index", sorted(ONCE))
def test_what_is_set_once_stays(index: int) -> None:
    params = domain().params
    params.set(index, 1)
    params.set(index, 1)
    assert refusal(params, index, 2) == EEXIST
    assert params.get(index) == 1


def test_other_parameters_change_as_often_as_one_likes() -> None:
    params = domain().params
    for value in (5, 6, 0, ONES):
        params.set(layouts.HVM_PARAM_CALLBACK_IRQ, value)
        assert params.get(layouts.HVM_PARAM_CALLBACK_IRQ) == value


@pytest.mark.parametrize(
    ("index", "value"),
    [
        (layouts.HVM_PARAM_NR_IOREQ_SERVER_PAGES, 0),
        (layouts.HVM_PARAM_NR_IOREQ_SERVER_PAGES, 65),
        (layouts.HVM_PARAM_ACPI_IOPORTS_LOCATION, 2),
        (layouts.HVM_PARAM_ACPI_S_STATE, 1),
        (layouts.HVM_PARAM_TIMER_MODE, 4),
        (layouts.HVM_PARAM_X87_FIP_WIDTH, 2),
        (layouts.HVM_PARAM_TRIPLE_FAULT_REASON, 6),
    ],
)
def test_values_that_cannot_be_are_refused(index: int, value: int) -> None:
    assert refusal(domain().params, index, value) == EINVAL


def test_a_guest_sets_only_what_is_its_own() -> None:
    params = domain().params
    for index in BY_GUEST:
        value = 4 if index == layouts.HVM_PARAM_X87_FIP_WIDTH else 1
        params.set(index, value, by_guest=True)
    assert refusal(params, layouts.HVM_PARAM_IOREQ_PFN, 1, by_guest=True) == EPERM
    assert refusal(params, layouts.HVM_PARAM_IDENT_PT, 1, by_guest=True) == EPERM


def test_a_triple_fault_reboots_unless_told_otherwise() -> None:
    reason = domain().params.get(layouts.HVM_PARAM_TRIPLE_FAULT_REASON)
    assert reason == layouts.SHUTDOWN_REASON_REBOOT


def test_reading_the_page_parameters_creates_nothing_on_todays_xen(host: Host) -> None:
    made = host.domain()
    emulator = host.emulator()
    emulator.param(IOREQ_PFN, 0xFEFFD)
    assert emulator.param(IOREQ_PFN) == 0xFEFFD
    assert emulator.param(BUFIOREQ_PFN) == 0
    with pytest.raises(RefusedError) as caught:
        emulator.param(BUFIOREQ_EVTCHN)
    assert caught.value.errno == EINVAL
    assert made.servers.default is None
    assert made.event_channels.ports == []


def read_port(raw: bytes, vcpu: int = 0) -> int:
    return int(struct.unpack_from("<I", raw, 32 * vcpu + 24)[0])


@pytest.mark.parametrize("index", [IOREQ_PFN, BUFIOREQ_PFN, BUFIOREQ_EVTCHN])
def test_reading_a_page_parameter_creates_the_default_server_of_the_original_design(
    host: Host, index: int
) -> None:
    made = host.domain(vcpus=2, default_server=True)
    emulator = host.emulator()
    value = emulator.param(index)
    server = made.servers.default
    assert server is not None
    assert server.enabled
    assert emulator.param(index) == value
    assert made.servers.default is server
    assert len(made.event_channels.ports) == 3
    page = made.memory.view(emulator.param(IOREQ_PFN) << 12, 4096)
    ports = {read_port(bytes(page), vcpu) for vcpu in range(2)}
    assert ports | {emulator.param(BUFIOREQ_EVTCHN)} == set(made.event_channels.ports)


def test_the_default_server_gets_what_no_other_claims_and_config_cycles_as_ports(
    host: Host,
) -> None:
    made = host.domain(default_server=True)
    emulator = host.emulator()
    page = made.memory.view(emulator.param(IOREQ_PFN) << 12, 4096)
    bound = emulator.bind(read_port(bytes(page)))
    other = host.emulator().open()
    assert other.id == 0
    other.map(PORT, 5, 5)
    other.map(2, 0x10, 0x10)
    vcpu = made.vcpus[0]
    asked = Running(lambda: vcpu.read(PORT, 5, 1))
    other.serve(1)
    assert asked.result() == 1
    made.pci_cf8 = 0x80001100
    emulator.page, emulator._base, emulator.vcpus = page, 0, [bound]  # type: ignore[assignment]
    asked = Running(lambda: vcpu.read(PORT, 0xCFD, 1))
    request = emulator.serve(2)
    assert (request.kind, request.address) == (layouts.IOREQ_TYPE_PIO, 0xCFD)
    assert asked.result() == 2
    made.pci_cf8 = 0x80001000
    asked = Running(lambda: vcpu.read(PORT, 0xCFD, 1))
    assert other.serve(3).kind == layouts.IOREQ_TYPE_PCI_CONFIG
    assert asked.result() == 3


def test_the_default_server_is_not_driven_by_id(host: Host) -> None:
    host.domain(default_server=True)
    emulator = host.emulator()
    emulator.param(IOREQ_PFN)
    for number in (0, 0xFFFF):
        with pytest.raises(RefusedError):
            emulator.destroy(number)


def test_a_new_emulator_domain_gets_new_ports_for_every_vcpu_and_no_request_is_lost(
    host: Host,
) -> None:
    made = host.domain(vcpus=3, default_server=True)
    made.privileged.add(STUB_DOMAIN)
    first, second = host.emulator(), host.emulator(path=host.stub_path)
    page = made.memory.view(first.param(IOREQ_PFN) << 12, 4096)
    old = [read_port(bytes(page), vcpu) for vcpu in range(3)]
    old_ring = first.param(BUFIOREQ_EVTCHN)
    first.vcpus = [first.bind(port) for port in old]
    asked = [Running(lambda n=n: made.vcpus[n].read(PORT, n, 1)) for n in range(2)]  # type: ignore[misc]
    first.page, first._base = page, 0  # type: ignore[assignment]
    for number in range(2):
        first.wait(number)
    first.param(DM_DOMAIN, STUB_DOMAIN)
    assert first.param(DM_DOMAIN) == STUB_DOMAIN
    new = [read_port(bytes(page), vcpu) for vcpu in range(3)]
    assert len(made.event_channels.ports) == 4
    assert not set(made.event_channels.ports) & {*old, old_ring}
    assert set(made.event_channels.ports) == {*new, first.param(BUFIOREQ_EVTCHN)}
    for port in new:
        with pytest.raises(RefusedError):
            first.bind(port)
    second.page, second._base = page, 0  # type: ignore[assignment]
    second.vcpus = [second.bind(port) for port in new]
    for number in range(2):
        assert second.request(number).state == 1
        second.answer(0x50 + number, number)
        assert asked[number].result() == 0x50 + number
    later = Running(lambda: made.vcpus[2].read(PORT, 9, 1))
    second.serve(0x99, 2)
    assert later.result() == 0x99


def test_the_emulator_domain_can_be_set_before_the_server_exists(host: Host) -> None:
    made = host.domain(default_server=True)
    made.privileged.add(STUB_DOMAIN)
    first, second = host.emulator(), host.emulator(path=host.stub_path)
    first.param(DM_DOMAIN, STUB_DOMAIN)
    page = made.memory.view(first.param(IOREQ_PFN) << 12, 4096)
    second.bind(read_port(bytes(page)))
    with pytest.raises(RefusedError):
        first.bind(first.param(BUFIOREQ_EVTCHN))


def test_dom_self_is_the_callers_domain(host: Host) -> None:
    host.domain(default_server=True)
    emulator = host.emulator()
    emulator.param(DM_DOMAIN, 0x7FF0)
    assert emulator.param(DM_DOMAIN) == 0


def test_the_rings_port_cannot_be_set(host: Host) -> None:
    host.domain(default_server=True)
    with pytest.raises(RefusedError):
        host.emulator().param(BUFIOREQ_EVTCHN, 3)
