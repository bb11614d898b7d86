"""What the tests of the stand-alone hypervisor share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .core_emulator import Host, hosts


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    yield from hosts(str(tmp_path / "socket"))
