"""The guest programs of the real-Xen tests, unchanged, on each engine with the real `ioreqd-dm`.

They are 32-bit and take no interrupt, so that they run even on a KVM that lacks the return from
one, which the engine's probe holds against it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol import layouts
from tools.hypervisor.engines import Engine
from tools.hypervisor.engines.kvm.engine import KvmEngine
from tools.hypervisor.engines.kvm.probe import unusable
from tools.hypervisor.engines.unicorn import UnicornEngine
from tools.hypervisor.errors import EngineUnavailable
from tools.hypervisor.hypercalls import Hypercalls
from tools.hypervisor.images import load_elf
from tools.hypervisor.ports import ConsolePort
from tools.prototype.guest_build import build_guest

from .processes import LIMIT, World

GUESTS = Path(__file__).parents[1] / "xen" / "guests"
DEVICES = ("-device", "edu,addr=4")
ENGINES: dict[str, type[UnicornEngine] | type[KvmEngine]] = {
    "unicorn": UnicornEngine,
    "kvm": KvmEngine,
}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, vcpus=1)
    yield made
    made.close()


@pytest.mark.parametrize("engine_name", ENGINES)
@pytest.mark.parametrize("name", ["hello", "count"])
def test_the_guest_passes_and_powers_itself_off(
    world: World, tmp_path: Path, name: str, engine_name: str
) -> None:
    reason = unusable("real")
    if engine_name == "kvm" and reason is not None:
        pytest.skip(reason)
    file = build_guest(GUESTS / f"{name}.c", tmp_path / "guest.elf", {"LAST": 2}, [GUESTS])
    domain = world.domain
    domain.hypercalls = Hypercalls(domain)
    lines: list[str] = []
    ConsolePort(domain, lines.append)
    try:
        engine: Engine = ENGINES[engine_name](domain, load_elf(domain.memory, file))
    except EngineUnavailable as error:
        pytest.skip(str(error))
    world.start("-serial", "null", *DEVICES)
    engine.start()
    assert engine.join(LIMIT)
    engine.stop()
    assert engine.error is None
    assert domain.crash_message is None, domain.crash_message
    assert lines[0] == "GUEST start"
    assert lines[-1] == "GUEST PASS", lines
    assert domain.shutdown_reason == layouts.SHUTDOWN_REASON_POWEROFF
