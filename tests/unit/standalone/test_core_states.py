"""Wrong states, shutdowns, pauses, soft reset, the end of servers, vCPUs and domains."""

from __future__ import annotations

import os
from errno import EINVAL, ENOSPC

import pytest

from protocol import layouts
from tools.hypervisor.domain import Domain
from tools.hypervisor.errors import DomainEnded, HypercallError
from tools.hypervisor.vcpu import PORT
from tools.hypervisor.watch import TransitionError, Watch

from .core_emulator import (
    ANSWERED,
    INPROCESS,
    NONE,
    READY,
    Emulator,
    Host,
    Running,
    readable,
    until,
)

POWEROFF = layouts.SHUTDOWN_REASON_POWEROFF
REBOOT = layouts.SHUTDOWN_REASON_REBOOT
SUSPEND = layouts.SHUTDOWN_REASON_SUSPEND
CRASH = layouts.SHUTDOWN_REASON_CRASH
SOFT_RESET = layouts.SHUTDOWN_REASON_SOFT_RESET


def opened(host: Host, vcpus: int = 1) -> tuple[Domain, Emulator]:
    domain = host.domain(vcpus=vcpus)
    emulator = host.emulator().open(vcpus=vcpus)
    emulator.map(PORT, 0, 0xFF)
    return domain, emulator


def asking(domain: Domain, vcpu: int = 0, port: int = 5) -> Running[int]:
    return Running(lambda: domain.vcpus[vcpu].read(PORT, port, 1))


def asleep(domain: Domain, vcpu: int = 0) -> bool:
    """Whether a vCPU has taken every signal and sleeps on."""
    thread = domain.vcpus[vcpu]
    until(lambda: not readable(thread.wake_fd))
    return thread.waiting


@pytest.mark.parametrize("state", [READY, INPROCESS, ANSWERED, 7])
def test_a_slot_that_is_not_free_ends_the_domain_at_the_next_request(
    host: Host, state: int
) -> None:
    domain, emulator = opened(host)
    emulator.set_state(state)
    with pytest.raises(DomainEnded):
        domain.vcpus[0].read(PORT, 5, 1)
    assert domain.crash_message == f"device model set bad IO state {state}"
    assert (domain.state, domain.shutdown_reason) == ("crashed", CRASH)


def test_a_changed_port_ends_the_domain_at_the_next_request(host: Host) -> None:
    domain, emulator = opened(host)
    emulator.page[4096 + 24 : 4096 + 28] = b"\x63\0\0\0"
    with pytest.raises(DomainEnded):
        domain.vcpus[0].write(PORT, 5, 1, 0)
    assert domain.crash_message == "device model set bad event channel 99"


@pytest.mark.parametrize("state", [4, 15])
def test_a_state_that_is_none_ends_the_domain(host: Host, state: int) -> None:
    domain, emulator = opened(host)
    asked = asking(domain)
    emulator.wait()
    emulator.set_state(state)
    emulator.notify()
    with pytest.raises(DomainEnded):
        asked.result()
    assert domain.crash_message == f"Weird HVM iorequest state {state}"


def test_a_slot_that_was_emptied_reads_as_ones(host: Host) -> None:
    domain, emulator = opened(host)
    asked = asking(domain)
    emulator.wait()
    emulator.set_state(NONE)
    emulator.notify()
    assert asked.result() == 0xFF
    assert domain.state == "running"


@pytest.mark.parametrize("state", [READY, INPROCESS])
def test_a_signal_without_an_answer_is_harmless(host: Host, state: int) -> None:
    domain, emulator = opened(host)
    asked = asking(domain)
    emulator.wait()
    emulator.set_state(state)
    for _ in range(3):
        emulator.notify()
        assert asleep(domain)
    emulator.answer(8)
    assert asked.result() == 8


def test_an_answer_without_a_signal_leaves_the_vcpu_asleep(host: Host) -> None:
    domain, emulator = opened(host)
    asked = asking(domain)
    emulator.wait()
    emulator.set_state(ANSWERED)
    assert asleep(domain)
    assert not asked.done
    emulator.notify()
    asked.result()


def test_watching_sees_the_answer_without_a_signal(host: Host) -> None:
    domain, emulator = opened(host)
    domain.vcpus[0].watch = Watch(20_000_000_000)
    asked = asking(domain)
    emulator.wait()
    emulator.set_state(INPROCESS)
    emulator.set_state(ANSWERED)
    asked.result()


class Slot(bytes):
    """A state byte that is another one at each look."""

    def __new__(cls, *states: int) -> Slot:
        return super().__new__(cls, states)

    def __init__(self, *states: int) -> None:
        self._left = list(states)

    def __getitem__(self, index: object) -> int:  # type: ignore[override]
        return self._left.pop(0) if len(self._left) > 1 else self._left[0]


@pytest.mark.parametrize(
    ("states", "seen"),
    [
        ((READY, READY, INPROCESS, INPROCESS, ANSWERED), ANSWERED),
        ((READY, NONE), NONE),
        ((INPROCESS, NONE), NONE),
        ((INPROCESS, 9), 9),
    ],
)
def test_watching_ends_with_whatever_is_an_answer(states: tuple[int, ...], seen: int) -> None:
    assert Watch(10_000_000_000).look(Slot(*states), 0) == seen  # type: ignore[arg-type]


def test_a_state_that_goes_back_is_xens_weird_transition() -> None:
    with pytest.raises(TransitionError, match=r"^Weird HVM ioreq state transition 2 -> 1$"):
        Watch(10_000_000_000).look(Slot(READY, INPROCESS, READY), 0)  # type: ignore[arg-type]


def test_watching_ends_when_time_is_up_and_is_given_up_when_it_does_not_pay() -> None:
    watch = Watch(1)
    page = memoryview(bytes([READY]))
    assert watch.look(page, 0) == READY
    slow = Watch(1)
    for _ in range(20):
        slow.look(page, 0)
    slow.length = 10**18
    assert slow.look(page, 0) == READY, "with such a length it would never return"


def test_a_weird_transition_ends_the_domain(host: Host) -> None:
    domain, emulator = opened(host)

    class Weird(Watch):
        def look(self, page: memoryview[int], at: int) -> int:
            raise TransitionError("Weird HVM ioreq state transition 2 -> 1")

    domain.vcpus[0].watch = Weird(1)
    with pytest.raises(DomainEnded):
        domain.vcpus[0].read(PORT, 5, 1)
    assert domain.crash_message == "Weird HVM ioreq state transition 2 -> 1"
    assert emulator.request().state == READY


def test_destroying_a_server_strands_the_vcpu_that_waits_for_it(host: Host) -> None:
    domain, emulator = opened(host)
    asked = asking(domain)
    emulator.wait()
    emulator.destroy(emulator.id)
    emulator.set_state(ANSWERED)
    assert domain.punishments == [
        "vCPU 0 never wakes: ioreq server 0 was destroyed while it waited"
    ]
    assert asleep(domain)
    assert not asked.done


def test_a_stranded_vcpu_goes_on_with_0_when_any_of_its_ports_is_signalled(host: Host) -> None:
    domain, first = opened(host)
    second = host.emulator().open()
    asked = asking(domain)
    second.map(PORT, 0x100, 0x100)
    first.wait()
    first.destroy(first.id)
    first.page[4096 + 8] = 0x99
    first.set_state(ANSWERED)
    second.notify()
    assert asked.result() == 0
    assert not domain.outstanding


def test_a_server_that_goes_while_its_slot_is_watched_strands_the_vcpu_too(host: Host) -> None:
    domain, first = opened(host)
    second = host.emulator().open()

    class Destroying(Watch):
        def look(self, page: memoryview[int], at: int) -> int:
            domain.servers.destroy(domain.servers.get(first.id, 0))
            return ANSWERED

    domain.vcpus[0].watch = Destroying(1)
    asked = asking(domain)
    until(lambda: domain.punishments)
    assert asleep(domain)
    assert not asked.done
    second.notify()
    assert asked.result() == 0


def test_destroying_after_the_answer_is_clean(host: Host) -> None:
    domain, emulator = opened(host)
    asked = asking(domain)
    emulator.serve(5)
    assert asked.result() == 5
    emulator.destroy(emulator.id)
    assert domain.punishments == []


def test_the_first_reason_of_a_shutdown_wins(host: Host) -> None:
    domain, emulator = opened(host)
    emulator.dm_op(layouts.DM_OP_REMOTE_SHUTDOWN, "<I", REBOOT)
    emulator.dm_op(layouts.DM_OP_REMOTE_SHUTDOWN, "<I", POWEROFF)
    assert (domain.state, domain.shutdown_reason) == ("shutdown", REBOOT)


def test_a_shutdown_waits_for_outstanding_requests_and_the_vcpu_gets_its_answer(
    host: Host,
) -> None:
    domain, emulator = opened(host, vcpus=2)
    told: list[str] = []
    domain.on_shutdown.append(lambda one: told.append(one.state))
    asked = [asking(domain, number) for number in range(2)]
    for number in range(2):
        emulator.wait(number)
    emulator.dm_op(layouts.DM_OP_REMOTE_SHUTDOWN, "<I", POWEROFF)
    assert (domain.state, told) == ("shutting-down", [])
    emulator.answer(1, 0)
    until(lambda: emulator.request(0).state == NONE)
    assert domain.state == "shutting-down"
    emulator.answer(1, 1)
    for one in asked:
        with pytest.raises(DomainEnded):
            one.result()
    assert (domain.state, told) == ("shutdown", ["shutdown"])


def test_a_crash_does_not_wait(host: Host) -> None:
    domain, emulator = opened(host)
    told: list[str] = []
    domain.on_shutdown.append(lambda one: told.append(one.state))
    asked = asking(domain)
    emulator.wait()
    emulator.dm_op(layouts.DM_OP_REMOTE_SHUTDOWN, "<I", CRASH)
    with pytest.raises(DomainEnded):
        asked.result()
    assert (domain.state, told) == ("crashed", ["crashed"])


def test_an_access_that_starts_while_the_domain_shuts_down_is_sent_on_resume_only(
    host: Host,
) -> None:
    domain, emulator = opened(host, vcpus=2)
    first = asking(domain, 0)
    emulator.wait(0)
    domain.shutdown(SUSPEND)
    second = asking(domain, 1)
    emulator.answer(3, 0)
    until(lambda: domain.state == "shutdown")
    assert emulator.request(1).state == NONE
    assert not first.done
    assert not second.done
    domain.resume()
    assert domain.shutdown_reason is None
    assert first.result() == 3
    emulator.serve(4, 1)
    assert second.result() == 4


def test_a_shutdown_from_an_own_handler_stops_the_vcpu_that_made_it(host: Host) -> None:
    domain = host.domain()
    held: list[bool] = []

    class Switch:
        def read(self, address: int, size: int) -> int | None:
            return None

        def write(self, address: int, size: int, value: int) -> bool:
            domain.shutdown(POWEROFF)
            return True

    domain.on_shutdown.append(lambda one: held.append(one.intercepting))
    domain.intercepts.add_ports(0xF4, 0xF4, Switch())
    with pytest.raises(DomainEnded):
        domain.vcpus[0].write(PORT, 0xF4, 1, 1)
    assert held == [False], "told once, without the lock"


def test_a_paused_domain_sends_nothing_but_takes_answers(host: Host) -> None:
    domain, emulator = opened(host, vcpus=2)
    first = asking(domain, 0)
    emulator.wait(0)
    domain.pause()
    domain.pause()
    second = asking(domain, 1)
    emulator.answer(3, 0)
    until(lambda: emulator.request(0).state == NONE)
    domain.unpause()
    assert domain.held
    assert emulator.request(1).state == NONE
    domain.unpause()
    assert first.result() == 3
    emulator.serve(4, 1)
    assert second.result() == 4
    with pytest.raises(HypercallError):
        domain.unpause()


def test_soft_reset_needs_a_domain_that_is_shut_down(host: Host) -> None:
    domain = host.domain()
    with pytest.raises(HypercallError) as caught:
        domain.soft_reset()
    assert caught.value.errno == EINVAL
    domain.shutdown(POWEROFF)
    with pytest.raises(HypercallError):
        domain.soft_reset()


def test_soft_reset_closes_the_guests_ports_and_leaves_the_rest_alone(host: Host) -> None:
    domain, emulator = opened(host)
    ports = domain.event_channels.ports
    own = domain.event_channels.allocate(None, 0)
    emulator.param(layouts.HVM_PARAM_CALLBACK_IRQ, 77)
    domain.memory.write(0x500, b"kept")
    domain.interrupts.set_intx(3, 0, 1)
    domain.vcpus[0].write(PORT, 0xCF8, 4, 0x80000000)
    page = emulator.page[:]
    asked = asking(domain)
    emulator.wait()
    emulator.dm_op(layouts.DM_OP_REMOTE_SHUTDOWN, "<I", SOFT_RESET)
    emulator.answer(6)
    until(lambda: domain.state == "shutdown")
    assert not asked.done
    domain.soft_reset()
    assert asked.result() == 6
    assert own.port not in domain.event_channels.ports
    assert domain.event_channels.ports == ports
    assert emulator.param(layouts.HVM_PARAM_CALLBACK_IRQ) == 77
    assert domain.memory.read(0x500, 4) == b"kept"
    assert domain.interrupts.level(28) == 1
    assert domain.pci_cf8 == 0x80000000
    assert page[4096 + 24 : 4096 + 28] == emulator.page[4096 + 24 : 4096 + 28]
    again = asking(domain)
    emulator.serve(7)
    assert again.result() == 7


def test_xens_ports_are_not_the_guests_to_close(host: Host) -> None:
    domain, emulator = opened(host)
    with pytest.raises(HypercallError) as caught:
        domain.event_channels.guest_close(emulator.request().port)
    assert caught.value.errno == EINVAL
    own = domain.event_channels.allocate(None, 0)
    domain.event_channels.guest_close(own.port)
    with pytest.raises(HypercallError):
        domain.event_channels.guest_close(own.port)


def test_s3_holds_the_vcpus_until_the_parameter_says_0(host: Host) -> None:
    domain, emulator = opened(host)
    emulator.param(layouts.HVM_PARAM_ACPI_S_STATE, 3)
    assert emulator.param(layouts.HVM_PARAM_ACPI_S_STATE) == 3
    asked = asking(domain)
    assert domain.held
    emulator.param(layouts.HVM_PARAM_ACPI_S_STATE, 0)
    emulator.serve(2)
    assert asked.result() == 2


def test_a_vcpu_that_is_added_gets_a_port_of_every_server_at_once(host: Host) -> None:
    domain = Domain(9, vcpus=1, max_vcpus=2, ram=[(0, 4096)])
    host.hypervisor.domains[9] = domain
    first, second = host.emulator().open(), host.emulator()
    second.create()
    second.acquire(1)
    first.map(PORT, 5, 5)
    vcpu = domain.add_vcpu()
    vcpu.watch.length = 0
    assert vcpu.id == 1
    assert first.request(1).port in domain.event_channels.ports
    first.vcpus.append(first.bind(first.request(1).port))
    asked = Running(lambda: vcpu.read(PORT, 5, 1))
    first.serve(1, 1)
    assert asked.result() == 1
    with pytest.raises(HypercallError) as caught:
        domain.add_vcpu()
    assert caught.value.errno == ENOSPC


def test_a_vcpu_that_is_removed_ends_and_gives_its_ports_back(host: Host) -> None:
    domain, emulator = opened(host, vcpus=2)
    asked = asking(domain, 1)
    emulator.wait(1)
    port = emulator.request(1).port
    domain.remove_vcpu(1)
    with pytest.raises(DomainEnded):
        asked.result()
    assert port not in domain.event_channels.ports
    assert len(domain.event_channels.ports) == 2
    with pytest.raises(HypercallError):
        domain.remove_vcpu(1)
    domain.shutdown(POWEROFF)
    assert domain.state == "shutdown"


def test_removing_vcpu_0_takes_the_rings_port_and_adding_it_brings_one_back(host: Host) -> None:
    domain, emulator = opened(host, vcpus=2)
    assert emulator.info(emulator.id)[0]
    domain.remove_vcpu(0)
    assert emulator.info(emulator.id)[0] == 0
    domain.add_vcpu()
    assert emulator.info(emulator.id)[0]


def test_destroying_a_domain_ends_its_vcpus_wherever_they_wait(host: Host) -> None:
    domain, emulator = opened(host, vcpus=2)
    waiting = asking(domain, 0)
    emulator.wait(0)
    host.hypervisor.destroy_domain(domain.domid)
    with pytest.raises(DomainEnded):
        waiting.result()
    with pytest.raises(DomainEnded):
        domain.vcpus[1].read(PORT, 5, 1)
    assert domain.event_channels.ports == []


def test_a_vcpu_can_be_ended_alone(host: Host) -> None:
    domain, emulator = opened(host, vcpus=2)
    kicks: list[int] = []
    domain.vcpus[0].on_kick.append(lambda: kicks.append(1))
    asked = asking(domain, 0)
    emulator.wait(0)
    domain.vcpus[0].stop()
    with pytest.raises(DomainEnded):
        asked.result()
    assert kicks
    other = asking(domain, 1)
    emulator.serve(1, 1)
    assert other.result() == 1


def test_a_descriptor_that_was_made_non_blocking_does_no_harm(host: Host) -> None:
    domain, emulator = opened(host)
    os.set_blocking(emulator.vcpus[0].back, False)
    asked = asking(domain)
    emulator.serve(4)
    assert asked.result() == 4


def test_the_emulators_role_can_be_taken_over_while_a_request_waits(host: Host) -> None:
    domain, first = opened(host)
    asked = asking(domain)
    first.wait()
    first.close()
    second = host.emulator()
    second.adopt(0)
    assert second.request().state == READY
    second.answer(0x77)
    assert asked.result() == 0x77
    assert domain.punishments == []
