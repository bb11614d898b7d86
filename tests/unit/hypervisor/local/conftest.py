"""A scripted hypervisor and an emulator's end of its socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dm.hypervisor.local.hypervisor import LocalHypervisor

from .peer import Peer


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    made = Peer(tmp_path / "socket")
    yield made
    made.close()


@pytest.fixture
def hypervisor(peer: Peer) -> Iterator[LocalHypervisor]:
    made = LocalHypervisor(str(peer.path))
    yield made
    made.close()
