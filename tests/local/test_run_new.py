"""What `ioreqd new` writes runs at once, as it says itself."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.prototype.new import KINDS

from .running import Running

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing")
pytest.importorskip("unicorn")


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_guest_of_a_new_device_passes(launch: Callable[..., Running], kind: str) -> None:
    written = launch("new", "my_chip.py", f"--{kind}")
    assert written.wait() == 0
    (line,) = [
        line for line in written.stdout.splitlines() if "ioreqd run" in line and "--kernel" in line
    ]
    running = launch(*line.partition("#")[0].split()[1:])
    assert running.wait() == 0, running.stderr
    assert running.stdout.splitlines()[-1] == "GUEST PASS"


def test_a_guest_that_is_there_is_left_as_it_is(
    launch: Callable[..., Running], tmp_path: Path
) -> None:
    (tmp_path / "my_chip.c").write_text("precious")
    refused = launch("new", "my_chip.py")
    assert refused.wait() == 2
    assert refused.stderr == "ioreqd: my_chip.c is there already, and is left as it is\n"
    assert [path.name for path in tmp_path.glob("my_chip*")] == ["my_chip.c"]
