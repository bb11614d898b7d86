"""The end of a server: every answer is taken before the server goes, if anybody takes it."""

from __future__ import annotations

from .board import PORTS, Rig
from .fake_xen import READ, Domain

LONGEST = 1.0
"""Seconds that the end may wait; two are allowed from SIGHUP to the end of the process."""


def test_a_server_stays_until_its_last_answer_was_taken() -> None:
    domain = Domain(vcpus=2)
    taken: list[int | None] = []

    def vcpu_runs(seconds: float) -> None:
        if not taken:
            taken.append(domain.answer(rig.xens, 1))

    rig = Rig(domain, pause=vcpu_runs)
    assert rig.ask(address=PORTS + 8, size=1, flags=READ) == 0x77
    assert domain.send(rig.xens, 1, address=PORTS + 8, size=1, flags=READ)
    rig.server.close()
    assert taken == [0x77]
    assert not domain.servers


def test_a_server_whose_answers_are_taken_goes_at_once() -> None:
    pauses: list[float] = []
    rig = Rig(pause=pauses.append)
    assert rig.ask(address=PORTS + 8, size=1, flags=READ) == 0x77
    rig.server.close()
    assert pauses == []


def test_a_vcpu_that_never_runs_again_does_not_hold_the_end() -> None:
    pauses: list[float] = []
    rig = Rig(pause=pauses.append)
    assert rig.domain.send(rig.xens, 0, address=PORTS + 8, size=1, flags=READ)
    rig.server.close()
    assert 0 < sum(pauses) <= LONGEST
    assert not rig.domain.servers
