"""What each method of the interface says on the wire, and what becomes of the answers."""

from __future__ import annotations

import os
import struct
from errno import ENOENT, EPROTO, ESRCH
from pathlib import Path
from typing import Any

import pytest

from dm.errors import ConfigError, HostError
from dm.hypervisor.local.hypervisor import LocalHypervisor
from dm.server.loop import Loop
from protocol.dm_op import DM_OP, DM_OP_MODIFIED_MEMORY_EXTENT, DmOp
from protocol.local import LOCAL_HELLO, LOCAL_MAGIC, LOCAL_PARAM, LOCAL_RESOURCE, LocalCall

from .peer import DOMID, PAGE, RING_PORT, Peer


def operation(peer: Peer) -> Any:
    """The last dm_op that was asked for."""
    return DM_OP.parse(peer.asked(LocalCall.DM_OP)[-1])


def test_it_says_hello_with_its_process_and_the_domain_it_wants(peer: Peer) -> None:
    LocalHypervisor(str(peer.path), 3).close()
    hello = LOCAL_HELLO.parse(peer.asked(LocalCall.HELLO)[0])
    assert (hello.magic, hello.version, hello.domid, hello.pid) == (LOCAL_MAGIC, 1, 3, os.getpid())


def test_without_a_domain_it_takes_the_one_that_there_is(
    peer: Peer, hypervisor: LocalHypervisor
) -> None:
    assert LOCAL_HELLO.parse(peer.asked(LocalCall.HELLO)[0]).domid == 0xFFFF
    assert hypervisor.domid == DOMID
    assert hypervisor.clock is None


def test_where_nobody_listens_the_user_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no hypervisor at .*nothing: No such file"):
        LocalHypervisor(str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="too long"):
        LocalHypervisor("x" * 200)


def test_a_domain_that_is_not_there_is_named(peer: Peer) -> None:
    peer.fail(LocalCall.HELLO, ESRCH)
    with pytest.raises(HostError, match=r"hello\(.*, domain 8\): No such process") as caught:
        LocalHypervisor(str(peer.path), 8)
    assert caught.value.errno == ESRCH


def test_fewer_descriptors_than_were_due_are_refused_and_closed(peer: Peer) -> None:
    peer.handlers[LocalCall.HELLO] = lambda body: (0, peer.domain(), [peer.memory])
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(HostError, match="1 descriptors for 4") as caught:
        LocalHypervisor(str(peer.path))
    assert caught.value.errno == EPROTO
    # The peer's own end of the connection may still be there.
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_a_domain_whose_regions_are_not_there_is_refused(peer: Peer) -> None:
    fds = [peer.memory, peer.clock_page, peer.question, peer.done]
    peer.handlers[LocalCall.HELLO] = lambda body: (0, peer.domain()[:-1], fds)
    with pytest.raises(HostError, match="do not describe a domain"):
        LocalHypervisor(str(peer.path))


class TestServers:
    def test_a_server_is_created_with_a_ring_in_legacy_mode(
        self, peer: Peer, hypervisor: LocalHypervisor
    ) -> None:
        assert hypervisor.create_server() == 1
        asked = operation(peer)
        assert (asked.op, asked.u.handle_bufioreq) == (DmOp.CREATE_IOREQ_SERVER, 1)

    def test_both_pages_come_as_one_file(self, peer: Peer, hypervisor: LocalHypervisor) -> None:
        os.pwrite(peer.pages, b"ring", 0)
        os.pwrite(peer.pages, b"slots", PAGE)
        pages = hypervisor.map_server(1)
        resource = LOCAL_RESOURCE.parse(peer.asked(LocalCall.RESOURCE)[0])
        assert (resource.type, resource.id) == (0, 1)
        assert (resource.frame, resource.frame_number) == (0, 2)
        assert pages.buffered is not None
        assert bytes(pages.buffered[:4]) == b"ring"
        assert bytes(pages.synchronous[:5]) == b"slots"
        pages.synchronous[0] = 0x53
        assert os.pread(peer.pages, 1, PAGE) == b"S"
        hypervisor.unmap_server(1)

    def test_a_server_without_a_ring_has_one_page(
        self, peer: Peer, hypervisor: LocalHypervisor
    ) -> None:
        def resource(body: bytes) -> tuple[int, bytes, list[int]]:
            first = LOCAL_RESOURCE.parse(body).frame
            return (-ENOENT, b"", []) if first == 0 else (0, b"", [peer.pages])

        peer.handlers[LocalCall.RESOURCE] = resource
        assert hypervisor.map_server(1).buffered is None

    def test_servers_are_found_by_asking_for_each(
        self, peer: Peer, hypervisor: LocalHypervisor
    ) -> None:
        def info(body: bytes) -> tuple[int, bytes, list[int]]:
            wanted = DM_OP.parse(body).u
            assert wanted.flags == 1
            return (0, peer.dm_op(body), []) if wanted.id in (2, 5) else (-ENOENT, b"", [])

        peer.handlers[LocalCall.DM_OP] = info
        assert hypervisor.server_ids() == [2, 5]

    def test_it_is_enabled_disabled_and_destroyed(
        self, peer: Peer, hypervisor: LocalHypervisor
    ) -> None:
        for enabled in (True, False):
            hypervisor.enable_server(4, enabled=enabled)
            asked = operation(peer)
            assert (asked.op, asked.u.id) == (DmOp.SET_IOREQ_SERVER_STATE, 4)
            assert asked.u.enabled == enabled
        hypervisor.destroy_server(4)
        assert (operation(peer).op, operation(peer).u.id) == (DmOp.DESTROY_IOREQ_SERVER, 4)

    def test_ranges_are_those_of_the_server_in_use(
        self, peer: Peer, hypervisor: LocalHypervisor
    ) -> None:
        hypervisor.use_server(2)
        for claim, number in (
            (hypervisor.claim, DmOp.MAP_IO_RANGE_TO_IOREQ_SERVER),
            (hypervisor.release, DmOp.UNMAP_IO_RANGE_FROM_IOREQ_SERVER),
        ):
            claim(1, 0xFEB00000, 0xFEBFFFFF)
            asked = operation(peer)
            assert (asked.op, asked.u.id, asked.u.type) == (number, 2, 1)
            assert (asked.u.start, asked.u.end) == (0xFEB00000, 0xFEBFFFFF)

    def test_a_refusal_names_the_call_the_domain_and_the_cause(
        self, peer: Peer, hypervisor: LocalHypervisor
    ) -> None:
        peer.fail(LocalCall.DM_OP, ENOENT)
        text = r"dm_op_destroy_ioreq_server\(domain 3\): No such file or directory"
        with pytest.raises(HostError, match=text) as caught:
            hypervisor.destroy_server(7)
        assert caught.value.errno == ENOENT

    def test_a_short_answer_is_refused(self, peer: Peer, hypervisor: LocalHypervisor) -> None:
        peer.handlers[LocalCall.DM_OP] = lambda body: (0, body[:5], [])
        with pytest.raises(HostError, match="5 bytes"):
            hypervisor.vcpu_count()

    def test_it_knows_the_vcpus_and_the_processors(self, hypervisor: LocalHypervisor) -> None:
        assert hypervisor.vcpu_count() == 2
        assert hypervisor.cpu_count() == len(os.sched_getaffinity(0))
        assert hypervisor.yield_cpu() is False


class TestPorts:
    def test_a_bound_port_is_announced_at_once_and_then_when_it_is_raised(
        self, peer: Peer, hypervisor: LocalHypervisor
    ) -> None:
        port = hypervisor.bind(7)
        assert list(hypervisor.events()) == [port]
        assert list(hypervisor.events()) == []
        peer.raise_port(port)
        peer.raise_port(port)
        assert list(hypervisor.events()) == [port]

    def test_a_raise_while_it_is_served_is_not_lost(
        self, peer: Peer, hypervisor: LocalHypervisor
    ) -> None:
        port = hypervisor.bind(7)
        hypervisor.events()
        peer.raise_port(port)
        hypervisor.unmask([port])
        assert list(hypervisor.events()) == [port]

    def test_the_rings_port_is_quiet_until_it_is_unmasked(
        self, peer: Peer, hypervisor: LocalHypervisor
    ) -> None:
        port = hypervisor.bind(hypervisor.buffered_port(1))
        assert list(hypervisor.events()) == [port]
        peer.raise_port(port)
        assert list(hypervisor.events()) == []
        hypervisor.unmask([port])
        assert list(hypervisor.events()) == [port]
        hypervisor.unmask([port])
        assert list(hypervisor.events()) == []
        peer.raise_port(port)
        assert list(hypervisor.events()) == [port]
        assert hypervisor.buffered_port(1) == RING_PORT

    def test_the_descriptor_is_readable_while_something_is_announced(
        self, peer: Peer, hypervisor: LocalHypervisor
    ) -> None:
        loop = Loop()
        told: list[int] = []
        loop.add(hypervisor.event_fd, 1, lambda events: told.extend(hypervisor.events()))
        ports = [hypervisor.bind(7), hypervisor.bind(8)]
        loop.run_once(10)
        assert sorted(told) == ports
        loop.run_once(0)
        assert len(told) == 2
        peer.raise_port(ports[1])
        loop.run_once(10)
        assert told[2:] == ports[1:]
        loop.close()

    def test_a_loop_is_told_of_each_port_without_being_asked(
        self, peer: Peer, hypervisor: LocalHypervisor
    ) -> None:
        loop = Loop()
        told: list[int] = []
        hypervisor.announce_to(loop, told.extend)
        remote = hypervisor.buffered_port(1)
        ports = [hypervisor.bind(7), hypervisor.bind(remote)]
        loop.run_once(10)
        assert sorted(told) == ports
        peer.raise_port(ports[0])
        loop.run_once(10)
        assert told[2:] == ports[:1]
        peer.raise_port(ports[1])
        loop.run_once(0)
        assert told[3:] == []
        hypervisor.unmask(ports)
        loop.run_once(10)
        assert told[3:] == ports[1:]
        for port in ports:
            hypervisor.unbind(port)
        loop.close()

    def test_notifying_raises_the_other_end(self, peer: Peer, hypervisor: LocalHypervisor) -> None:
        one, two = hypervisor.bind(7), hypervisor.bind(8)
        hypervisor.notify(one)
        assert (peer.raised(one), peer.raised(two)) == (1, 0)

    def test_an_unbound_port_is_neither_announced_nor_notified(
        self, peer: Peer, hypervisor: LocalHypervisor
    ) -> None:
        port = hypervisor.bind(7)
        hypervisor.unbind(port)
        assert peer.asked(LocalCall.UNBIND) == [struct.pack("<I", port)]
        assert list(hypervisor.events()) == []
        for call in (hypervisor.notify, hypervisor.unbind):
            with pytest.raises(HostError, match=f"port {port}"):
                call(port)


class TestPlatform:
    @pytest.mark.parametrize(
        ("method", "arguments", "number", "fields"),
        [
            ("set_isa_irq", (9, 1), DmOp.SET_ISA_IRQ_LEVEL, {"isa_irq": 9, "level": 1}),
            (
                "set_intx",
                (4, 2, 1),
                DmOp.SET_PCI_INTX_LEVEL,
                {"domain": 0, "bus": 0, "device": 4, "intx": 2, "level": 1},
            ),
            ("set_link_route", (3, 11), DmOp.SET_PCI_LINK_ROUTE, {"link": 3, "isa_irq": 11}),
            (
                "inject_msi",
                (0x1FEE00000, 0x4041),
                DmOp.INJECT_MSI,
                {"addr": 0x1FEE00000, "data": 0x4041},
            ),
            ("shutdown", ("poweroff",), DmOp.REMOTE_SHUTDOWN, {"reason": 0}),
            ("shutdown", ("crash",), DmOp.REMOTE_SHUTDOWN, {"reason": 3}),
        ],
    )
    def test_lines_messages_and_ends_are_passed_on(
        self,
        peer: Peer,
        hypervisor: LocalHypervisor,
        method: str,
        arguments: tuple[object, ...],
        number: DmOp,
        fields: dict[str, int],
    ) -> None:
        getattr(hypervisor, method)(*arguments)
        asked = operation(peer)
        assert asked.op == number
        assert {name: asked.u[name] for name in fields} == fields

    @pytest.mark.parametrize(("writable", "kind"), [(True, 0), (False, 1)])
    def test_memory_is_made_writable_or_not(
        self, peer: Peer, hypervisor: LocalHypervisor, writable: bool, kind: int
    ) -> None:
        hypervisor.set_memory_type(0xF0, 16, writable=writable)
        asked = operation(peer)
        assert (asked.op, asked.u.mem_type) == (DmOp.SET_MEM_TYPE, kind)
        assert (asked.u.first_pfn, asked.u.nr) == (0xF0, 16)

    def test_sleep_is_a_parameter_of_the_domain(
        self, peer: Peer, hypervisor: LocalHypervisor
    ) -> None:
        hypervisor.suspend()
        states = [hypervisor.suspended]
        hypervisor.wake()
        assert [*states, hypervisor.suspended] == [True, False]
        given = [LOCAL_PARAM.parse(body) for body in peer.asked(LocalCall.SET_PARAM)]
        assert [(one.index, one.value) for one in given] == [(14, 3), (14, 0)]

    def test_written_pages_are_reported_while_the_dirty_log_is_on(
        self, peer: Peer, hypervisor: LocalHypervisor
    ) -> None:
        hypervisor.memory.write(PAGE - 2, b"1234")
        assert peer.asked(LocalCall.DM_OP) == []
        hypervisor.set_dirty_log(enabled=True)
        hypervisor.memory.write(PAGE - 2, b"1234")
        (body,) = peer.asked(LocalCall.DM_OP)
        assert DM_OP.parse(body).u.nr_extents == 1
        extent = DM_OP_MODIFIED_MEMORY_EXTENT.parse(body[DM_OP.sizeof() :])
        assert (extent.first_pfn, extent.nr) == (0, 2)

    def test_power_over_others_is_given_up(self, peer: Peer, hypervisor: LocalHypervisor) -> None:
        hypervisor.restrict()
        assert peer.asked(LocalCall.RESTRICT) == [b""]


def test_files_that_outlive_the_process_are_beside_the_socket(
    peer: Peer, hypervisor: LocalHypervisor
) -> None:
    assert hypervisor.run_file("state") == f"{peer.path}-3.state"


def test_taking_servers_excludes_other_processes(peer: Peer, hypervisor: LocalHypervisor) -> None:
    end = hypervisor.exclusive()
    try_lock = (
        "import fcntl\n"
        f"try: fcntl.lockf({peer.memory}, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "except OSError: raise SystemExit(3)"
    )

    def other() -> int:
        """The status of another process that has the same file and tries to take the lock."""
        pid = os.posix_spawn(
            os.path.realpath("/proc/self/exe"),
            ["python", "-S", "-c", try_lock],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, peer.memory, peer.memory)],
        )
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    os.set_inheritable(peer.memory, True)
    assert other() == 3
    end()
    assert other() == 0
