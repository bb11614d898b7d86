"""The socket: what no packet can do to the hypervisor, and what a connection's end leaves."""

from __future__ import annotations

import os
import socket
import struct
from errno import EACCES, EINVAL, ENOTCONN, EOPNOTSUPP, EPERM, ESRCH

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol import layouts
from tools.hypervisor.vcpu import PORT

from .core_emulator import Emulator, Host, RefusedError, Running, readable, until

HELLO = struct.pack("<QIII", layouts.LOCAL_MAGIC, layouts.LOCAL_VERSION, 1, 0)


def refusal(emulator: Emulator, call: int, body: bytes = b"") -> int:
    with pytest.raises(RefusedError) as caught:
        emulator.ask(call, body)
    return caught.value.errno


def stranger(host: Host) -> socket.socket:
    """A connection that has not said hello."""
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    peer.settimeout(20)
    peer.connect(host.hypervisor.path)
    return peer


def status(packet: bytes) -> int:
    return int(struct.unpack_from("<i", packet, 8)[0])


def regions(emulator: Emulator) -> list[tuple[int, int, int]]:
    """The guest's RAM as the emulator is told of it."""
    answer, (fd,) = emulator.ask(layouts.LOCAL_CALL_MEMORY)
    assert answer == b""
    return list(struct.iter_unpack("<QQQ", os.pread(fd, os.fstat(fd).st_size, 0)))


def test_a_guest_may_have_more_regions_than_a_packet_has_room_for(host: Host) -> None:
    count = 2 * layouts.LOCAL_PACKET_SIZE // layouts.LOCAL_REGION_SIZE
    many = [(number << 13, 0x1000, number << 12) for number in range(count)]
    host.hypervisor.create_domain(vcpus=1, ram=[(gpa, size) for gpa, size, _ in many])
    emulator = host.emulator()
    assert regions(emulator) == many
    before = len(os.listdir("/proc/self/fd"))
    assert regions(emulator) == many
    assert len(os.listdir("/proc/self/fd")) == before + 1


def test_hello_answers_with_the_domain_its_memory_and_the_clock(host: Host) -> None:
    domain = host.hypervisor.create_domain(
        vcpus=1, max_vcpus=3, ram=[(0, 0xA0000), (0x100000, 0x1000)]
    )
    emulator = host.emulator(domain.domid)
    answer = struct.unpack("<III", emulator.hello)
    assert answer == (domain.domid, 3, layouts.LOCAL_CLOCK_MODE_REAL)
    assert regions(emulator) == [(0, 0xA0000, 0), (0x100000, 0x1000, 0xA0000)]
    memory, clock, ask, done = emulator.hello_fds
    domain.memory.write(0x100000, b"here")
    assert os.pread(memory, 4, 0xA0000) == b"here"
    assert os.fstat(clock).st_size == layouts.LOCAL_CLOCK_PAGE_SIZE
    assert not readable(ask)
    assert not readable(done)
    assert [vcpu.online for vcpu in domain.vcpus] == [True, False, False]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (HELLO[:-1], EINVAL),
        (HELLO + b"\0", EINVAL),
        (struct.pack("<QIII", 1, layouts.LOCAL_VERSION, 1, 0), EINVAL),
        (struct.pack("<QIII", layouts.LOCAL_MAGIC, 2, 1, 0), EINVAL),
        (struct.pack("<QIII", layouts.LOCAL_MAGIC, 1, 2, 0), ESRCH),
        (struct.pack("<QIII", layouts.LOCAL_MAGIC, 1, 0, 0), ESRCH),
    ],
)
def test_a_hello_that_is_wrong_is_refused(host: Host, body: bytes, error: int) -> None:
    host.domain()
    with stranger(host) as peer:
        peer.send(struct.pack("<II", layouts.LOCAL_CALL_HELLO, 5) + body)
        answer = peer.recv(100)
        assert struct.unpack("<IIi", answer) == (layouts.LOCAL_CALL_HELLO, 5, -error)
        peer.send(struct.pack("<II", layouts.LOCAL_CALL_HELLO, 6) + HELLO)
        assert status(peer.recv(1000)) == 0


def test_any_domain_means_the_only_one(host: Host) -> None:
    with pytest.raises(RefusedError) as caught:
        host.emulator()
    assert caught.value.errno == ESRCH
    host.domain()
    host.emulator()
    host.domain()
    with pytest.raises(RefusedError):
        host.emulator()
    assert host.emulator(2).hello[:4] == struct.pack("<I", 2)


def test_hello_comes_first_and_once(host: Host) -> None:
    host.domain()
    with stranger(host) as peer:
        peer.send(struct.pack("<II", layouts.LOCAL_CALL_MEMORY, 5))
        assert status(peer.recv(100)) == -EINVAL
    assert refusal(host.emulator(), layouts.LOCAL_CALL_HELLO, HELLO) == EINVAL


def test_calls_that_do_not_exist_are_refused(host: Host) -> None:
    host.domain()
    emulator = host.emulator()
    for call in (0, 11, layouts.LOCAL_CALL_STORE_EVENT, 0xFFFFFFFF):
        assert refusal(emulator, call) == EOPNOTSUPP


@pytest.mark.parametrize(
    "call",
    [
        layouts.LOCAL_CALL_RESOURCE,
        layouts.LOCAL_CALL_BIND,
        layouts.LOCAL_CALL_UNBIND,
        layouts.LOCAL_CALL_SET_PARAM,
        layouts.LOCAL_CALL_GET_PARAM,
    ],
)
def test_bodies_of_another_length_are_refused(host: Host, call: int) -> None:
    host.domain()
    emulator = host.emulator()
    for body in (b"", b"\0" * 3, b"\0" * 100):
        assert refusal(emulator, call, body) == EINVAL


def test_a_store_message_that_is_none_is_refused(host: Host) -> None:
    host.domain()
    assert refusal(host.emulator(), layouts.LOCAL_CALL_STORE, b"abc") == EINVAL


@pytest.mark.parametrize("packet", [b"\0", b"\0" * 7, b"\0" * (layouts.LOCAL_PACKET_SIZE + 1)])
def test_a_packet_without_a_header_or_too_long_ends_the_connection(
    host: Host, packet: bytes
) -> None:
    host.domain()
    with stranger(host) as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        peer.send(packet)
        assert peer.recv(100) == b""
    host.emulator()


def test_a_packet_may_have_all_of_its_length(host: Host) -> None:
    host.domain()
    emulator = host.emulator()
    emulator.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    room = layouts.LOCAL_PACKET_SIZE - 8 - 32
    answer = emulator.dm_op(layouts.DM_OP_NR_VCPUS, "<I", 0, buffer=bytes(room - 4))
    assert len(answer) == 32 + room - 4


def test_descriptors_that_nobody_asked_for_are_dropped(host: Host) -> None:
    host.domain()
    emulator = host.emulator()
    packet = struct.pack("<II", layouts.LOCAL_CALL_MEMORY, 77)
    socket.send_fds(emulator.socket, [packet], [emulator.socket.fileno()])
    assert status(emulator.socket.recv(1000)) == 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 12), st.binary(max_size=64)), max_size=12))
def test_no_packet_harms_the_hypervisor(host: Host, packets: list[tuple[int, bytes]]) -> None:
    hypervisor = host.hypervisor
    if not hypervisor.domains:
        host.domain()
    domid = next(iter(hypervisor.domains))
    emulator = Emulator(hypervisor.path, domid)
    for call, body in packets:
        try:
            emulator.ask(call, body)
        except RefusedError as error:
            refused = error.errno
        else:
            refused = 1
        assert 0 < refused < 200
    emulator.close()
    host.emulator(domid).ask(layouts.LOCAL_CALL_MEMORY)


def test_after_restrict_only_the_domain_is_left(host: Host) -> None:
    host.domain()
    emulator = host.emulator()
    emulator.ask(layouts.LOCAL_CALL_RESTRICT)
    emulator.ask(layouts.LOCAL_CALL_RESTRICT)
    message = struct.pack("<IIII", layouts.XS_MESSAGE_TYPE_READ, 0, 0, 2) + b"/\0"
    assert refusal(emulator, layouts.LOCAL_CALL_STORE, message) == EACCES
    body = struct.pack("<IIQ", 1, 0, 0)
    assert refusal(emulator, layouts.LOCAL_CALL_GET_PARAM, body) == EACCES
    assert refusal(emulator, layouts.LOCAL_CALL_SET_PARAM, body) == EACCES
    emulator.open()


def test_unbinding_what_is_not_bound_is_refused(host: Host) -> None:
    host.domain()
    emulator = host.emulator().open()
    emulator.unbind(emulator.vcpus[0].port)
    with pytest.raises(RefusedError) as caught:
        emulator.unbind(emulator.vcpus[0].port)
    assert caught.value.errno == ENOTCONN


def test_local_ports_are_the_lowest_free_ones(host: Host) -> None:
    host.domain(vcpus=2)
    emulator = host.emulator().open(vcpus=2)
    assert [bound.port for bound in emulator.vcpus] == [1, 2]
    assert emulator.ring is not None
    emulator.unbind(1)
    assert emulator.bind(emulator.request(0).port).port == 1


def test_a_destroyed_domain_answers_that_it_is_gone(host: Host) -> None:
    domain = host.domain()
    emulator = host.emulator().open()
    host.hypervisor.destroy_domain(domain.domid)
    with pytest.raises(RefusedError) as caught:
        emulator.create()
    assert caught.value.errno == ESRCH
    for call, body in (
        (layouts.LOCAL_CALL_RESOURCE, struct.pack("<HHII", 0, 0, 0, 2)),
        (layouts.LOCAL_CALL_BIND, struct.pack("<I", 1)),
        (layouts.LOCAL_CALL_GET_PARAM, struct.pack("<IIQ", 1, 0, 0)),
    ):
        assert refusal(emulator, call, body) == ESRCH
    emulator.unbind(emulator.vcpus[0].port)


def test_an_emulator_that_reads_no_events_is_dropped_and_nobody_waits_for_it(host: Host) -> None:
    host.domain()
    emulator = host.emulator()
    emulator.store(layouts.XS_MESSAGE_TYPE_WATCH, b"/noise\0t\0")
    domain = host.hypervisor.domains[1]
    for index in range(3000):
        host.hypervisor.store.write("/noise", str(index))
    until(lambda: not domain.connections)
    host.emulator().open()


def test_a_connections_watches_end_with_it(host: Host) -> None:
    host.domain()
    emulator = host.emulator()
    emulator.store(layouts.XS_MESSAGE_TYPE_WATCH, b"/a\0t\0")
    assert host.hypervisor.store.watches == 1
    emulator.close()
    until(lambda: host.hypervisor.store.watches == 0)


def test_events_that_waited_arrive_in_order_when_the_emulator_reads(host: Host) -> None:
    host.domain()
    emulator = host.emulator()
    emulator.store(layouts.XS_MESSAGE_TYPE_WATCH, b"/noise\0t\0")
    for index in range(600):
        host.hypervisor.store.write(f"/noise/{index}", "")
    while len(emulator.events) < 601:
        packet = emulator.socket.recv(1000)
        emulator.events.append(packet[12:])
    paths = [event[16:].split(b"\0")[0] for event in emulator.events]
    assert paths == [b"/noise", *(b"/noise/%d" % index for index in range(600))]
    emulator.ask(layouts.LOCAL_CALL_MEMORY)


def test_replies_and_their_descriptors_queue_behind_events(host: Host) -> None:
    domain = host.domain()
    emulator = host.emulator()
    emulator.store(layouts.XS_MESSAGE_TYPE_WATCH, b"/noise\0t\0")
    for index in range(600):
        host.hypervisor.store.write(f"/noise/{index}", "")
    emulator.open().map(PORT, 5, 5)
    asked = Running(lambda: domain.vcpus[0].read(PORT, 5, 1))
    emulator.serve(3)
    assert asked.result() == 3


def test_a_bug_behind_a_request_costs_one_domain_only(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = host.domain(), host.domain()
    unlucky, lucky = host.emulator(first.domid), host.emulator(second.domid)
    monkeypatch.setattr(first.interrupts, "set_isa_irq", None)
    with pytest.raises(ConnectionResetError):
        unlucky.dm_op(layouts.DM_OP_SET_ISA_IRQ_LEVEL, "<BB", 1, 1)
    assert first.state == "crashed"
    lucky.dm_op(layouts.DM_OP_SET_ISA_IRQ_LEVEL, "<BB", 1, 1)
    assert second.state == "running"


def test_the_socket_goes_with_the_hypervisor(host: Host) -> None:
    host.domain()
    emulator = host.emulator()
    host.hypervisor.close()
    assert emulator.socket.recv(10) == b""
    assert not os.path.exists(host.hypervisor.path)


def test_a_socket_that_cannot_be_made_says_where(tmp_path: object) -> None:
    from tools.hypervisor.hypervisor import Hypervisor

    with pytest.raises(OSError, match="nowhere"):
        Hypervisor(f"{tmp_path}/nowhere/socket")


def test_several_emulators_share_a_domain_and_die_alone(host: Host) -> None:
    domain = host.domain()
    emulators = [host.emulator().open() for _ in range(8)]
    for index, emulator in enumerate(emulators):
        emulator.map(PORT, index, index)
    emulators[3].close()
    until(lambda: len(domain.connections) == 7)
    for index in (0, 7):
        asked = Running(lambda i=index: domain.vcpus[0].read(PORT, i, 1))  # type: ignore[misc]
        emulators[index].serve(index)
        assert asked.result() == index


def test_an_emulator_of_its_own_domain_is_refused(host: Host) -> None:
    domain = host.domain()
    domain.privileged.add(77)
    domain.domid = 77
    host.hypervisor.domains[77] = domain
    with pytest.raises(RefusedError) as caught:
        host.emulator(77, host.stub_path)
    assert caught.value.errno == EPERM
    del host.hypervisor.domains[77]
