"""The same guest program gives the same trace of the same device file on real Xen as without it.

tests/local/test_trace.py compares the engines of the stand-alone hypervisor with each other.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import traced
from tools.prototype.guest_build import build_guest

from .support import Guest, Host

LIMIT = 60.0


def on_unicorn(folder: Path, kernel: Path) -> list[str]:
    """The trace without Xen."""
    ioreqd = Path(sys.executable).parent / "ioreqd"
    trace = folder / "trace"
    words = [*traced.device_words(str(traced.DEVICE)), *traced.observe_words(str(trace))]
    command = [str(ioreqd), "run", "--kernel", str(kernel), "--engine", "unicorn", "--", *words]
    subprocess.run(command, check=True, timeout=LIMIT, capture_output=True)
    return trace.read_text().splitlines()


def test_the_trace_is_that_of_the_stand_alone_hypervisor(
    host: Host, make_guest: Callable[..., Guest], tmp_path: Path
) -> None:
    pytest.importorskip("unicorn")
    (tmp_path / "traced.c").write_text(traced.c_source())
    kernel = build_guest(tmp_path / "traced.c", tmp_path / "traced.elf")
    guest = make_guest("traced", firmware=host.provide(kernel))
    trace = f"/root/{guest.name}.trace"
    device = traced.device_words(host.provide(traced.DEVICE))
    guest.extra = {"device_model_args_hvm": [*device, *traced.observe_words(trace)]}
    guest.create()
    guest.wait_pass()
    guest.wait_gone()
    assert host.run(["cat", trace]).stdout.splitlines() == on_unicorn(tmp_path, kernel)
