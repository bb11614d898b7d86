"""Ten thousand children in each owner mode, in a process of their own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tools.toolstack.children import Owner

from . import stress

COUNT = 10_000
SEED = 4
FEW_BLOCKS = 200
LITTLE_KIB = 1024


@pytest.mark.parametrize("owner", Owner)
def test_each_of_many_children_gets_one_callback_and_nothing_stays(owner: Owner) -> None:
    command = [sys.executable, "-m", stress.__name__, owner.value, str(COUNT), str(SEED)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout)
    assert report["trouble"] == []
    assert report["calls"]["own"] == COUNT
    assert report["calls"]["strangers"] > COUNT // 20
    assert report["left"] == 0
    assert report["zombies"] is None
    assert report["after"] == report["before"]
    assert report["blocks"] < FEW_BLOCKS
    assert report["resident"] < LITTLE_KIB
