"""Every device class in `devices` under the rules that hold for all of them."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator

import pytest

import devices
from dm import Device
from dm.testing import rules_of

SEEDS = range(3)


def device_classes() -> Iterator[type[Device]]:
    """The devices that the package's modules define; a name with an underscore is a base class."""
    for found in pkgutil.iter_modules(devices.__path__):
        module = importlib.import_module(f"devices.{found.name}")
        for value in vars(module).values():
            if (
                isinstance(value, type)
                and issubclass(value, Device)
                and value.__module__ == module.__name__
                and not value.__name__.startswith("_")
            ):
                yield value


CASES: dict[str, Callable[[], None]] = {
    f"{cls.__name__}: {name}": test
    for cls in device_classes()
    for name, test in rules_of(cls, SEEDS).items()
}


@pytest.mark.parametrize("case", CASES)
def test_every_device_keeps_the_rule(case: str) -> None:
    CASES[case]()


def test_there_are_devices() -> None:
    assert CASES
