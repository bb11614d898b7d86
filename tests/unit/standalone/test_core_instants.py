"""What ends or holds a domain between two steps of a vCPU, and in whose hold of the lock."""

from __future__ import annotations

import struct
from errno import EINVAL, ENOENT

import pytest

from protocol import layouts
from tools.hypervisor.clock import VirtualClock
from tools.hypervisor.domain import Domain
from tools.hypervisor.errors import DomainEnded

from .core_emulator import MEMORY, NONE, PORT, READY, Emulator, Host, RefusedError, Running, until

SUSPEND = layouts.SHUTDOWN_REASON_SUSPEND
POWEROFF = layouts.SHUTDOWN_REASON_POWEROFF


def opened(host: Host) -> tuple[Domain, Emulator]:
    domain = host.domain()
    emulator = host.emulator().open()
    emulator.map(PORT, 0, 0xFF)
    emulator.map(MEMORY, 0xFE000000, 0xFE000FFF)
    return domain, emulator


def note_lock(domain: Domain) -> list[bool]:
    """Whether another thread gets the lock while ``on_shutdown`` runs, as it comes to be."""
    seen: list[bool] = []

    def told(_: Domain) -> None:
        def attempt() -> bool:
            if not domain.lock.acquire(timeout=1):
                return False
            domain.lock.release()
            return True

        seen.append(Running(attempt).result())

    domain.on_shutdown.append(told)
    return seen


@pytest.mark.parametrize("way", ["port", "string", "fill", "invalidate"])
def test_a_crash_by_a_bad_slot_is_announced_without_the_lock(host: Host, way: str) -> None:
    domain, emulator = opened(host)
    seen = note_lock(domain)
    emulator.set_state(2)
    vcpu = domain.vcpus[0]
    if way == "invalidate":
        domain.invalidate()
    with pytest.raises(DomainEnded):
        {
            "port": lambda: vcpu.read(PORT, 5, 1),
            "string": lambda: vcpu.string(port=5, size=1, count=9, gpa=0, reads=True, down=False),
            "fill": lambda: vcpu.fill(mmio=0xFE000000, size=1, count=9, value=0, down=False),
            "invalidate": vcpu.rest,
        }[way]()
    assert domain.crash_message == "device model set bad IO state 2"
    assert seen == [True]


def test_a_shutdown_by_a_timer_is_announced_without_the_lock() -> None:
    domain = Domain(1, vcpus=1, ram=[(0, 1 << 20)], clock=VirtualClock())
    seen = note_lock(domain)
    domain.clock.call_at(0, lambda: domain.shutdown(POWEROFF))
    domain.run_due()
    assert seen == [True]


def test_a_crash_by_a_timer_that_is_stepped_to_is_announced_without_the_lock() -> None:
    domain = Domain(1, vcpus=1, ram=[(0, 1 << 20)], clock=VirtualClock())
    seen = note_lock(domain)
    domain.clock.call_at(50, lambda: domain.crash("time is up"))
    domain.step_clock(100)
    assert seen == [True]


def test_no_invalidate_goes_to_a_domain_that_shut_down_at_that_very_moment(host: Host) -> None:
    domain, emulator = opened(host)
    vcpu = domain.vcpus[0]
    broadcast = vcpu.broadcast_invalidate

    def late() -> None:
        vcpu.broadcast_invalidate = broadcast  # type: ignore[method-assign]
        domain.shutdown(SUSPEND)
        broadcast()

    vcpu.broadcast_invalidate = late  # type: ignore[method-assign]
    domain.invalidate()
    resting = Running(vcpu.rest)
    until(lambda: vcpu.parked)
    assert (emulator.request().state, domain.outstanding, domain.state) == (NONE, 0, "shutdown")
    domain.resume()
    request = emulator.wait()
    assert (request.state, request.kind) == (READY, layouts.IOREQ_TYPE_INVALIDATE)
    emulator.answer()
    resting.result()


@pytest.mark.parametrize(
    "operation",
    [
        layouts.DM_OP_MAP_IO_RANGE_TO_IOREQ_SERVER,
        layouts.DM_OP_UNMAP_IO_RANGE_FROM_IOREQ_SERVER,
    ],
)
def test_a_range_upside_down_is_refused_before_its_server_is_looked_for(
    host: Host, operation: int
) -> None:
    host.domain()
    emulator = host.emulator()
    for first, last, error in ((5, 4, EINVAL), (4, 5, ENOENT)):
        with pytest.raises(RefusedError) as caught:
            emulator.dm_op(operation, "<HHIQQ", 3, 0, PORT, first, last)
        assert caught.value.errno == error
    assert struct.calcsize("<HHIQQ") == layouts.DM_OP_IOREQ_SERVER_RANGE_SIZE
