"""The pytest plugin: fixtures of a scripted bus, and what they learn from a test's markers.

Every pytest run of an environment with ioreqd loads this file: it imports nothing but pytest until
a fixture is used, changes no behaviour, and has no automatic fixture.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from dm.device.device import Device

    from .scripted import MachineOf, ScriptedBus, ScriptedCharacter, ScriptedMemory

__all__ = [
    "bus",
    "chardev",
    "device",
    "guest_memory",
    "machine_of",
    "pytest_configure",
    "pytest_pycollect_makeitem",
    "with_device",
]

MARKERS = (
    "device(cls, **options): a device of the machine behind the fixture `bus`; its id is `name`",
    "guest_ram(size): bytes of RAM of the machine behind the fixture `bus`",
)


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


def with_device(device: Callable[..., Device], **options: Any) -> pytest.MarkDecorator:
    """Mark a test or a class of tests: ``device``, made with ``options``, is on the bus.

    ``device`` is a device class; the option ``name`` is the device's id. Several marks make a
    machine of several devices, in reading order. It is ``@pytest.mark.device`` for every case:
    pytest takes that one, given a class and no option, for a mark of the device class.
    """
    return pytest.mark.device.with_args(device, **options)


def pytest_pycollect_makeitem(name: str, obj: object) -> None:
    """Refuse a test that ``@pytest.mark.device(MyDevice)`` has turned into a device."""
    kit = sys.modules.get("dm.device.device")
    if kit is not None and isinstance(obj, kit.Device) and callable(obj.name):
        kind = type(obj).__name__
        raise pytest.Collector.CollectError(
            f"{name}: pytest takes @pytest.mark.device({kind}) for a mark of {kind};"
            f" write @with_device({kind}), which dm.testing has"
        )


@pytest.fixture
def machine_of() -> MachineOf:
    """``machine_of(*devices, memory=…)`` gives the scripted bus of a machine of the devices."""
    from .scripted import ScriptedBus

    return ScriptedBus


@pytest.fixture
def bus(request: pytest.FixtureRequest, machine_of: MachineOf) -> ScriptedBus:
    """The scripted bus of a machine of the devices that `with_device` names."""
    devices = [_made(mark) for mark in reversed(list(request.node.iter_markers("device")))]
    if not devices:
        pytest.fail("the fixture `bus` needs @with_device(MyDevice, option=…)", pytrace=False)
    mark = request.node.get_closest_marker("guest_ram")
    return machine_of(*devices, **({} if mark is None else {"memory": mark.args[0]}))


@pytest.fixture
def device(bus: ScriptedBus) -> Device:
    """The device that `with_device` names; of several, the first."""
    return bus.device


@pytest.fixture
def chardev(bus: ScriptedBus) -> ScriptedCharacter:
    """The host's end of the character plug of the first device that has one."""
    return bus.chardev()


@pytest.fixture
def guest_memory(bus: ScriptedBus) -> ScriptedMemory:
    """The guest's RAM."""
    return bus.memory


def _made(mark: pytest.Mark) -> Device:
    if len(mark.args) != 1:
        pytest.fail("with_device takes one device class, then options", pytrace=False)
    options: dict[str, Any] = dict(mark.kwargs)
    name = options.pop("name", "")
    made: Device = mark.args[0](name, **options)
    return made
