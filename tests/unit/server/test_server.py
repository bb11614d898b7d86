"""The life of a server: start-up and shut-down in Xen's order, events, and dead predecessors."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dm.errors import HostError
from dm.server.server import IoreqServer

from .board import PORTS, Rig
from .fake_xen import ANSWERED, INPROCESS, NONE, READ, READY, Domain, FakeXen


def local_port(rig: Rig, vcpu: int) -> int:
    """The local end of a vCPU's event channel."""
    return rig.xens.channels[vcpu].local


class TestStart:
    def test_the_order_is_the_one_that_xen_survives(self) -> None:
        rig = Rig(Domain(vcpus=2))
        assert rig.domain.journal[:3] == ["create", "map 0", "enable 0"]
        assert [entry.split()[0] for entry in rig.domain.journal[3:6]] == ["bind"] * 3
        assert rig.domain.punishments == []

    def test_the_ranges_of_all_windows_are_claimed_for_the_server(self) -> None:
        rig = Rig()
        assert rig.xens.ranges.claimed == {
            0: [(0x100, 0x113), (0x300, 0x307)],
            1: [(0xF0000000, 0xF000003F)],
            2: [(0x18, 0x18)],
        }

    @pytest.mark.parametrize("call", ["map", "enable", "bind", "bind 8", "bind 9"])
    def test_a_start_that_fails_half_way_can_be_closed(self, call: str) -> None:
        rig = Rig(Domain(vcpus=2), opened=False)
        rig.xen.failures[call] = HostError("no luck")
        with pytest.raises(HostError, match="no luck"):
            rig.server.open()
        rig.xen.failures.clear()
        for vcpu in (0, 1):
            if rig.domain.servers[0].enabled:
                rig.domain.send(rig.domain.servers[0], vcpu)
        rig.server.close()
        assert rig.domain.servers == {}
        assert rig.domain.journal[-1] == "destroy 0"

    def test_a_create_that_fails_leaves_nothing_to_close(self) -> None:
        rig = Rig(opened=False)
        rig.xen.failures["create"] = HostError("full")
        with pytest.raises(HostError):
            rig.server.open()
        rig.server.close()
        assert rig.domain.journal == ["create"]


class TestEvents:
    def test_first_events_without_a_request_are_harmless(self) -> None:
        rig = Rig()
        assert rig.server.events() == 0
        assert rig.server.ring_announced
        rig.server.unmask()
        assert rig.server.events() == 0

    def test_all_that_is_announced_is_served_in_one_read(self) -> None:
        rig = Rig(Domain(vcpus=128))
        for vcpu in range(128):
            rig.domain.send(rig.xens, vcpu, address=PORTS + 8, size=1, flags=READ)
        assert rig.server.events() == 128
        assert {rig.domain.answer(rig.xens, vcpu) for vcpu in range(128)} == {0x77}

    def test_a_port_that_was_served_announces_again_after_unmask_only(self) -> None:
        rig = Rig()
        rig.server.events()
        rig.domain.send(rig.xens, 0, address=PORTS, data=1)
        assert rig.server.events() == 0
        rig.server.unmask()
        assert rig.xen.readable
        assert rig.server.events() == 1
        assert rig.domain.answer(rig.xens) == 1

    def test_the_rings_port_stays_masked_until_it_is_unmasked_on_its_own(self) -> None:
        rig = Rig()
        rig.server.events()
        rig.server.unmask()
        rig.domain.send_buffered(rig.xens, 0, 0)
        assert rig.server.events() == 0
        assert rig.server.ring_announced
        rig.server.unmask_ring()
        assert rig.xen.readable
        rig.server.events()
        assert rig.server.ring_announced

    def test_ports_of_nobody_are_ignored(self) -> None:
        rig = Rig()
        os.write(rig.xen._kernels, b"\xff\xff\xff\xff\x01\x00\x00\x00")
        rig.server.events()
        rig.server.unmask()

    def test_nothing_is_served_while_paused_and_everything_afterwards(self) -> None:
        rig = Rig()
        rig.server.paused = True
        rig.domain.send(rig.xens, 0, address=PORTS, data=1)
        rig.domain.send(rig.xens, 1, address=PORTS, data=2)
        assert rig.server.events() == 0
        assert rig.mixed.log == []
        rig.server.paused = False
        assert rig.server.serve_all() == 2
        assert rig.mixed.log == [("byte", 1), ("byte", 2)]


class TestEnd:
    def test_every_request_is_answered_before_the_server_goes(self) -> None:
        rig = Rig(Domain(vcpus=4))
        rig.ask(0, address=0x301, size=1, flags=READ)
        rig.domain.send(rig.xens, 1, address=PORTS, data=7)
        rig.domain.send(rig.xens, 2, address=0x301, size=2, flags=READ)
        rig.domain.send_buffered(rig.xens, PORTS, 5, 1, kind=0)
        xens = rig.xens
        rig.server.close()
        assert rig.domain.punishments == []
        assert rig.mixed.log == [("byte", 5), ("byte", 7)]
        assert rig.domain.answer(xens, 0) == 0xFF
        assert rig.domain.answer(xens, 1) == 7
        assert rig.domain.answer(xens, 2) == 0xFFFF
        kinds = [entry.split()[0] for entry in rig.domain.journal]
        assert kinds.index("disable") < kinds.index("notify") < kinds.index("destroy")

    def test_a_late_answer_after_the_end_touches_nothing(self) -> None:
        rig = Rig()
        rig.ask(0, address=0x301, size=1, flags=READ)
        xens = rig.xens
        rig.server.close()
        before, notified = bytes(xens.synchronous), list(rig.xen.notified)
        rig.troubled.waiting[0].complete(1)
        assert xens.synchronous == before
        assert rig.xen.notified == notified

    def test_closing_twice_is_closing_once(self) -> None:
        rig = Rig()
        rig.server.close()
        rig.server.close()
        assert rig.domain.journal.count("destroy 0") == 1

    def test_a_domain_that_is_gone_does_not_keep_the_process_from_ending(self) -> None:
        rig = Rig()
        rig.domain.send(rig.xens, 0, address=PORTS, data=7)
        for call in ("disable", "notify", "unbind", "destroy"):
            rig.xen.failures[call] = HostError("the domain is gone")
        rig.server.close()
        assert rig.server.id == -1


class TestPredecessors:
    @staticmethod
    def left_behind(vcpus: int = 4) -> Domain:
        """A domain whose device model died while it served."""
        domain = Domain(vcpus=vcpus)
        dead = Rig(domain)
        xens = dead.xens
        domain.send(xens, 0, address=PORTS, data=0x11)
        domain.send(xens, 1, address=PORTS, data=0x22)
        xens.synchronous[1 * 32 + 30] = INPROCESS
        domain.send(xens, 2, address=PORTS + 8, size=1, flags=READ)
        xens.synchronous[2 * 32 + 30] = INPROCESS | READ
        domain.send(xens, 3, address=PORTS + 8, size=1, flags=READ)
        xens.synchronous[3 * 32 + 8] = 0x33
        xens.synchronous[3 * 32 + 30] = ANSWERED | READ
        domain.send_buffered(xens, PORTS, 0x99, 1, kind=0)
        domain.kill(dead.xen)
        return domain

    def test_each_state_of_a_slot_is_settled_by_its_rule(self) -> None:
        domain = self.left_behind()
        server = domain.servers[0]
        rig = Rig(domain)
        assert domain.punishments == []
        assert rig.mixed.log == [("byte", 0x99), ("byte", 0x11)]
        assert [domain.answer(server, vcpu) for vcpu in range(4)] == [0x11, 0x22, 0x77, 0x33]
        assert [server.state(vcpu) for vcpu in range(4)] == [NONE] * 4
        assert rig.ask(0, address=PORTS, size=1, flags=READ) == 0x11

    def test_its_ranges_have_a_server_at_every_moment(self) -> None:
        domain = self.left_behind()
        Rig(domain)
        journal = domain.journal[domain.journal.index("create", 1) :]
        assert journal.index("enable 1") < journal.index("disable 0") < journal.index("destroy 0")

    def test_roles_leave_each_others_servers_alone(self, tmp_path: Path) -> None:
        domain = Domain()
        own = Rig(domain, folder=tmp_path)
        beside = Rig(domain, folder=tmp_path, attached=True)
        assert [path.name for path in tmp_path.iterdir()] == ["attached1"]
        domain.kill(own.xen)
        domain.kill(beside.xen)
        again = Rig(domain, folder=tmp_path, attached=True)
        assert sorted(domain.servers) == [0, again.server.id]
        assert Rig(domain, folder=tmp_path).server.adopted
        assert 0 not in domain.servers
        again.server.close()
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("call", ["map 0", "enable 0"])
    def test_one_that_died_while_it_opened_its_server_leaves_none(
        self, call: str, tmp_path: Path
    ) -> None:
        domain = Domain()
        dead = Rig(domain, opened=False, folder=tmp_path)
        dead.xen.failures[call] = HostError("the process dies here")
        with pytest.raises(HostError):
            dead.open()
        # A process that is killed removes nothing.
        tmp_path.joinpath("opening").touch()
        domain.kill(dead.xen)
        rig = Rig(domain, folder=tmp_path)
        assert list(domain.servers) == [rig.server.id]
        assert not rig.server.adopted
        assert list(tmp_path.iterdir()) == []

    def test_one_that_another_program_has_not_enabled_yet_is_left_alone(
        self, tmp_path: Path
    ) -> None:
        domain = Domain()
        FakeXen(domain).create_server()
        rig = Rig(domain, folder=tmp_path)
        assert sorted(domain.servers) == [0, rig.server.id]

    def test_the_ranges_are_claimed_whoever_claimed_them_before(self) -> None:
        rig = Rig(self.left_behind())
        assert rig.machine.errors == 0
        assert rig.xens.ranges.claimed == Rig().xens.ranges.claimed
        assert rig.machine.spaces.claimed(0) == [(0x100, 0x113), (0x300, 0x307)]

    def test_a_server_that_was_disabled_serves_again(self) -> None:
        domain = Domain()
        dead = Rig(domain)
        dead.xen.enable_server(0, enabled=False)
        domain.kill(dead.xen)
        rig = Rig(domain)
        assert rig.ask(address=PORTS + 8, size=1, flags=READ) == 0x77

    def test_a_living_owners_server_is_left_alone(self) -> None:
        domain = Domain()
        living = Rig(domain)
        domain.send(living.xens, 0, address=PORTS, data=0x11)
        before = bytes(living.xens.synchronous)
        rig = Rig(domain)
        assert rig.server.id == 1
        assert not rig.server.adopted
        assert domain.servers[0].synchronous == before
        assert rig.xen.maps == [1]
        assert living.server.events() == 1
        assert domain.answer(domain.servers[0]) == 0x11

    def test_a_server_that_cannot_be_mapped_is_left_alone(self) -> None:
        domain = Domain()
        FakeXen(domain).create_server()
        rig = Rig(domain, opened=False)
        rig.xen.failures["map 0"] = HostError("its pages are in the guest's memory", 1)
        rig.open()
        assert rig.server.id == 1
        assert rig.ask(address=PORTS + 8, size=1, flags=READ) == 0x77

    def test_a_server_that_was_never_enabled_is_left_alone(self) -> None:
        domain = Domain()
        FakeXen(domain).create_server()
        rig = Rig(domain)
        assert rig.server.id == 1
        assert not domain.servers[0].enabled

    def test_of_several_one_is_kept_and_the_others_are_answered_and_destroyed(self) -> None:
        domain = Domain(vcpus=2)
        rigs = [Rig(domain, opened=False) for _ in range(3)]
        for each in rigs:
            server = each.xen.create_server()
            each.xen.map_server(server)
            each.xen.enable_server(server, enabled=True)
            for channel in domain.servers[server].channels:
                each.xen.bind(channel.number)
            domain.send(domain.servers[server], 0, address=PORTS + 8, size=1, flags=READ)
        servers = dict(domain.servers)
        domain.kill(rigs[0].xen)
        domain.kill(rigs[2].xen)
        rig = Rig(domain)
        assert domain.punishments == []
        assert sorted(domain.servers) == [1, rig.server.id]
        assert domain.answer(servers[0], 0) == 0x77
        assert domain.answer(servers[1], 0) is None
        assert domain.answer(servers[2], 0) == 0x77
        assert rig.ask(1, address=PORTS + 8, size=1, flags=READ) == 0x77

    def test_events_of_destroyed_strays_are_harmless(self) -> None:
        domain = Domain(vcpus=2)
        for _ in range(2):
            xen = FakeXen(domain)
            server = xen.create_server()
            xen.map_server(server)
            xen.enable_server(server, enabled=True)
        rig = Rig(domain)
        rig.server.events()
        rig.server.unmask()
        rig.server.unmask_ring()
        assert rig.ask(address=PORTS + 8, size=1, flags=READ) == 0x77

    def test_a_request_of_the_dead_that_a_device_defers_is_answered_later(self) -> None:
        domain = Domain(vcpus=1)
        dead = Rig(domain)
        domain.send(dead.xens, 0, address=0x301, size=1, flags=READ)
        dead.xens.synchronous[30] = READY | READ
        old = dead.xens
        domain.kill(dead.xen)
        rig = Rig(domain)
        assert domain.answer(old) is None
        assert not old.enabled
        rig.troubled.waiting[0].complete(0x5A)
        assert domain.answer(old) == 0x5A
        rig.server.close()
        assert (domain.servers, domain.punishments) == ({}, [])

    @pytest.mark.parametrize("state", range(4, 16))
    def test_a_state_that_no_emulator_leaves_is_left_to_xen(self, state: int) -> None:
        domain = Domain(vcpus=1)
        dead = Rig(domain)
        old = dead.xens
        old.synchronous[30] = state
        domain.kill(dead.xen)
        rig = Rig(domain)
        assert old.synchronous[30] == state
        assert rig.xen.notified == []


def test_a_server_is_not_open_before_it_was_opened() -> None:
    rig = Rig(opened=False)
    server = IoreqServer(rig.xen, rig.machine)
    server.close()
    assert rig.domain.journal == []
