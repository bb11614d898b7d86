"""What the Xen implementation asks of Xen's libraries, call by call, over ones that note it."""

from __future__ import annotations

import ctypes as c
import os
from collections.abc import Callable, Iterator
from errno import ENOENT, EPERM
from typing import Any

import pytest

from dm.device.platform import MEMORY, PCI, PORT
from dm.errors import HostError
from dm.hypervisor.xen import hypervisor as module
from dm.hypervisor.xen import memory as memory_module
from dm.hypervisor.xen.ffi import POINTER
from dm.hypervisor.xen.hypervisor import XenHypervisor
from dm.hypervisor.xen.library import Library

PAGE = 4096
DOMID = 7


class Xen:
    """The libraries' other side: ``calls`` is what came, ``errors`` and ``deeds`` what happens."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.errors: dict[str, int] = {}
        self.deeds: dict[str, Callable[..., object]] = {}
        self.fd, self.other = os.pipe()
        self.pages = (c.c_ubyte * (2 * PAGE))()
        self.buffer = (c.c_ubyte * 64)()

    def result(self, name: str, restype: Any, arguments: tuple[Any, ...]) -> object:
        self.calls.append((name, *(a for a in arguments if isinstance(a, int))))
        errno = self.errors.get(name, 0)
        if errno:
            c.set_errno(errno)
            return None if restype is POINTER else -1
        if name in self.deeds:
            return self.deeds[name](*arguments)
        if name == "xenevtchn_fd":
            return self.fd
        if name == "xencall_alloc_buffer":
            return c.addressof(self.buffer)
        return 0x1000 if restype is POINTER else 0

    def named(self, *names: str) -> list[tuple[Any, ...]]:
        return [call for call in self.calls if call[0].endswith(names)]


@pytest.fixture
def xen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Xen]:
    made = Xen()

    class Noting(Library):
        def _load(self) -> dict[str, Any]:
            def function(name: str, restype: Any) -> Callable[..., object]:
                return lambda *arguments: made.result(self.prefix + name, restype, arguments)

            return {name: function(name, restype) for name, restype, _ in self.prototypes}

    monkeypatch.setattr(module, "Library", Noting)
    monkeypatch.setattr(memory_module, "Library", Noting)
    yield made
    os.close(made.fd)
    os.close(made.other)


@pytest.fixture
def hypervisor(xen: Xen) -> XenHypervisor:
    made = XenHypervisor(DOMID)
    made.use_server(3)
    xen.calls.clear()
    return made


def give(value: int) -> Callable[..., int]:
    """Store ``value`` behind the last argument, a reference."""

    def deed(*arguments: Any) -> int:
        arguments[-1]._obj.value = value
        return 0

    return deed


class TestRanges:
    def test_ports_and_memory_are_claimed_as_they_are(
        self, xen: Xen, hypervisor: XenHypervisor
    ) -> None:
        hypervisor.claim(PORT, 0x3F8, 0x3FF)
        hypervisor.claim(MEMORY, 0xF0000000, 0xF0000FFF)
        hypervisor.release(PORT, 0x3F8, 0x3FF)
        prefix = "xendevicemodel_"
        assert [call[0].removeprefix(prefix) for call in xen.calls] == [
            "map_io_range_to_ioreq_server",
            "map_io_range_to_ioreq_server",
            "unmap_io_range_from_ioreq_server",
        ]
        assert [call[2:] for call in xen.calls] == [
            (DOMID, 3, PORT, 0x3F8, 0x3FF),
            (DOMID, 3, MEMORY, 0xF0000000, 0xF0000FFF),
            (DOMID, 3, PORT, 0x3F8, 0x3FF),
        ]

    def test_pci_functions_are_claimed_one_by_one(
        self, xen: Xen, hypervisor: XenHypervisor
    ) -> None:
        hypervisor.claim(PCI, 0x00FF, 0x0101)
        assert [call[3:] for call in xen.named("map_pcidev_to_ioreq_server")] == [
            (3, 0, 0, 31, 7),
            (3, 0, 1, 0, 0),
            (3, 0, 1, 0, 1),
        ]


class TestServers:
    def test_there_are_no_more_vcpus_than_slots(self, xen: Xen, hypervisor: XenHypervisor) -> None:
        xen.deeds["xendevicemodel_nr_vcpus"] = give(4)
        assert hypervisor.vcpu_count() == 4
        xen.deeds["xendevicemodel_nr_vcpus"] = give(1000)
        assert hypervisor.vcpu_count() == 128

    def test_only_servers_that_answer_are_listed(self, xen: Xen, hypervisor: XenHypervisor) -> None:
        def info(handle: int, domid: int, server: int, *rest: object) -> int:
            if server in (2, 5):
                return 0
            c.set_errno(ENOENT if server < 4 else EPERM)
            return -1

        xen.deeds["xendevicemodel_get_ioreq_server_info"] = info
        assert hypervisor.server_ids() == [2, 5]

    def _map(self, xen: Xen, frames: int) -> None:
        def map_resource(*arguments: Any) -> object:
            first, count, address = arguments[4], arguments[5], arguments[6]
            if first < 2 - frames:
                c.set_errno(ENOENT)
                return None
            assert first + count == 2
            address._obj.value = c.addressof(xen.pages) + first * PAGE
            return 0x77

        xen.deeds["xenforeignmemory_map_resource"] = map_resource

    def test_the_ring_is_the_first_page_and_the_slots_are_the_second(
        self, xen: Xen, hypervisor: XenHypervisor
    ) -> None:
        self._map(xen, 2)
        pages = hypervisor.map_server(3)
        assert pages.buffered is not None
        pages.buffered[0], pages.synchronous[0] = 0xB0, 0x50
        assert (xen.pages[0], xen.pages[PAGE]) == (0xB0, 0x50)
        assert len(pages.buffered) == len(pages.synchronous) == PAGE

    def test_without_a_ring_there_is_the_page_of_slots_alone(
        self, xen: Xen, hypervisor: XenHypervisor
    ) -> None:
        self._map(xen, 1)
        pages = hypervisor.map_server(3)
        assert pages.buffered is None
        pages.synchronous[0] = 0x50
        assert xen.pages[PAGE] == 0x50

    def test_pages_that_cannot_be_mapped_are_one_error(
        self, xen: Xen, hypervisor: XenHypervisor
    ) -> None:
        xen.errors["xenforeignmemory_map_resource"] = EPERM
        with pytest.raises(HostError, match=r"map_resource\(domain 7\): Operation not permitted"):
            hypervisor.map_server(3)

    def test_the_end_gives_everything_back_once(self, xen: Xen, hypervisor: XenHypervisor) -> None:
        self._map(xen, 2)
        hypervisor.map_server(3)
        hypervisor.map_server(4)
        hypervisor.unmap_server(4)
        hypervisor.unmap_server(4)
        hypervisor.close()
        assert len(xen.named("unmap_resource")) == 2
        assert len(xen.named("xenforeignmemory_close")) == 1
        assert len(xen.named("xenevtchn_close")) == 1
        assert len(xen.named("xendevicemodel_close")) == 1


class TestSleepState:
    def test_suspending_sets_the_hvm_parameter(self, xen: Xen, hypervisor: XenHypervisor) -> None:
        hypervisor.suspend()
        assert xen.named("xencall2")[0][1:] == (0x1000, 34, 0, c.addressof(xen.buffer))
        parameter = bytes(xen.buffer)[:16]
        assert parameter == bytes((DOMID, 0, 0, 0, 14, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0))

    def test_a_failure_is_told_and_nothing_leaks(self, xen: Xen, hypervisor: XenHypervisor) -> None:
        xen.errors["xencall2"] = EPERM
        with pytest.raises(HostError, match=r"xencall2\(domain 7\): Operation not permitted"):
            hypervisor.suspend()
        assert [call[0] for call in xen.calls[-2:]] == ["xencall_free_buffer", "xencall_close"]


def test_the_event_channels_descriptor_does_not_block(xen: Xen, hypervisor: XenHypervisor) -> None:
    assert hypervisor.event_fd == xen.fd
    assert not os.get_blocking(xen.fd)


def test_a_notification_that_fails_names_domain_and_port(
    xen: Xen, hypervisor: XenHypervisor
) -> None:
    hypervisor.notify(12)
    xen.errors["xenevtchn_notify"] = ENOENT
    with pytest.raises(HostError, match=r"xenevtchn_notify\(domain 7, port 12\): No such file"):
        hypervisor.notify(12)


def test_written_pages_are_reported_while_the_dirty_log_is_on(
    xen: Xen, hypervisor: XenHypervisor
) -> None:
    area = (c.c_ubyte * (64 * PAGE))()
    xen.deeds["xenforeignmemory_map"] = lambda *arguments: c.addressof(area)
    hypervisor.memory.write(PAGE - 2, b"1234")
    assert xen.named("modified_memory") == []
    hypervisor.set_dirty_log(enabled=True)
    hypervisor.memory.write(PAGE - 2, b"1234")
    assert [call[3:] for call in xen.named("modified_memory")] == [(0, 2)]
    hypervisor.memory.invalidate()
    assert [call[2:] for call in xen.named("xenforeignmemory_unmap")] == [(c.addressof(area), 64)]


@pytest.mark.parametrize(
    ("reason", "number"),
    [("poweroff", 0), ("reboot", 1), ("suspend", 2), ("crash", 3), ("watchdog", 4)],
)
def test_each_reason_to_end_has_xens_number(
    xen: Xen, hypervisor: XenHypervisor, reason: str, number: int
) -> None:
    hypervisor.shutdown(reason)
    assert xen.calls == [("xendevicemodel_shutdown", 0x1000, DOMID, number)]


def test_lines_links_and_messages_are_passed_on(xen: Xen, hypervisor: XenHypervisor) -> None:
    hypervisor.set_isa_irq(9, 1)
    hypervisor.set_intx(4, 1, 1)
    hypervisor.set_link_route(2, 11)
    hypervisor.inject_msi(0x1FEE00000, 0x4041)
    hypervisor.set_memory_type(0xF0, 16, writable=False)
    assert [(call[0].removeprefix("xendevicemodel_"), *call[3:]) for call in xen.calls] == [
        ("set_isa_irq_level", 9, 1),
        ("set_pci_intx_level", 0, 0, 4, 1, 1),
        ("set_pci_link_route", 2, 11),
        ("inject_msi", 0x1FEE00000, 0x4041),
        ("set_mem_type", 1, 0xF0, 16),
    ]
