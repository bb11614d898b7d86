"""Many at once: 4 domains, 8 vCPUs each, 20 device models, a million requests.

A domain has 8 ioreq servers at most, as on Xen, so that 16 device models need several domains.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from protocol import layouts
from tools.hypervisor.domain import Domain
from tools.hypervisor.errors import DomainEnded
from tools.hypervisor.vcpu import MEMORY, PORT, Vcpu

from .processes import World

DEVICE = Path(__file__).with_name("echo_device.py")
VCPUS = 8
MODELS = (8, 4, 4, 4)
"""Device models of each domain."""
REQUESTS = int(os.environ.get("STRESS_REQUESTS") or 1_000_000)
RAM = [(0, 1 << 20)]
PATIENCE = 150.0
PORTS, WINDOW = 0x5000, 0xE0000000
PORT_STEP, WINDOW_STEP = 0x100, 0x10000


class Requester(threading.Thread):
    """One vCPU. It asks each device in turn: a counter, then a register that it writes first."""

    def __init__(self, vcpu: Vcpu, models: int, rounds: int) -> None:
        super().__init__(daemon=True)
        self._vcpu, self._models, self._rounds = vcpu, models, rounds
        self.requests = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        try:
            for number in range(1, self._rounds + 1):
                for model in range(self._models):
                    self._ask(model, number)
        except DomainEnded as error:
            self.wrong.append(str(error))

    def _ask(self, model: int, number: int) -> None:
        vcpu, me = self._vcpu, self._vcpu.id
        tag = vcpu.domain.domid << 8 | model
        place = PORTS + model * PORT_STEP + 4 * me
        sent = number * 0x9E3779B1 & 0xFFFFFFFF
        vcpu.write(PORT, place, 4, sent)
        counted = vcpu.read(MEMORY, WINDOW + model * WINDOW_STEP + 8 * me, 8)
        given = vcpu.read(PORT, place, 4)
        self.requests += 3
        if counted != tag << 48 | me << 40 | number or given != sent ^ tag << 16 ^ me:
            self.wrong.append(f"{tag:#x}, vCPU {me}, {number}: {counted:#x}, {given:#x}")


def _launch(world: World, domain: Domain, model: int) -> None:
    tag, base = domain.domid << 8 | model, PORTS + model * PORT_STEP
    options = f"tag={tag},base={base},window={WINDOW + model * WINDOW_STEP}"
    world.start("-device", f"{DEVICE}:Echo,{options}", machine="none", domain=domain)


def test_no_answer_is_lost_doubled_or_crossed(tmp_path: Path) -> None:
    world = World(tmp_path, vcpus=VCPUS, limit=PATIENCE)
    try:
        others = [world.hypervisor.create_domain(vcpus=VCPUS, ram=RAM) for _ in MODELS[1:]]
        domains = dict(zip([world.domain, *others], MODELS, strict=True))
        for domain, models in domains.items():
            for model in range(models):
                _launch(world, domain, model)
        rounds = -(-REQUESTS // (3 * VCPUS * sum(MODELS)))
        requesters = [
            Requester(vcpu, models, rounds)
            for domain, models in domains.items()
            for vcpu in domain.vcpus
        ]
        begun = time.monotonic()
        for requester in requesters:
            requester.start()
        for requester in requesters:
            requester.join(PATIENCE)
        seconds = time.monotonic() - begun
        total = sum(requester.requests for requester in requesters)
        print(f"{total} requests in {seconds:.1f} s, {total / seconds:.0f}/s")  # noqa: T201
        assert [line for requester in requesters for line in requester.wrong] == []
        assert total == rounds * 3 * VCPUS * sum(MODELS) >= REQUESTS
        for domain, models in domains.items():
            assert len(list(domain.servers)) == models
            assert domain.punishments == []
            assert domain.state == "running"
        assert [model.process.poll() for model in world.models] == [None] * sum(MODELS)
        assert [model.messages for model in world.models] == [""] * sum(MODELS)
    finally:
        world.close()


def test_a_ninth_device_model_of_a_domain_is_refused(tmp_path: Path) -> None:
    world = World(tmp_path)
    try:
        for model in range(layouts.IOREQ_SERVER_MAX):
            _launch(world, world.domain, model)
        with pytest.raises(AssertionError) as refused:
            _launch(world, world.domain, layouts.IOREQ_SERVER_MAX)
        assert world.models[-1].process.wait() == 1
        (line,) = world.models[-1].messages.splitlines()
        assert "No space left on device" in line
        assert line in str(refused.value)
        tag = world.domain.domid << 8
        assert world.vcpu.read(MEMORY, WINDOW, 8) == tag << 48 | 1
    finally:
        world.close()
