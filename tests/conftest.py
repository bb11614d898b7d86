"""What all tests share: how they are spread over processes, and what hypothesis may take."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

# These machines are noisy: no test is judged by its time.
settings.register_profile("ioreqd", deadline=None, print_blob=True)
settings.load_profile("ioreqd")

_RELEASE = re.compile(r"tests/xen/.*\[(\d+\.\d+)[-\]]")


class ByRelease(LoadScopeScheduling):  # type: ignore[misc] # xdist is untyped
    """Sends all real-Xen tests of one Xen release to one process: each release boots once.

    xdist's own `--dist loadgroup` has no effect under pytest 9, which ignores the changed node ids.
    """

    def _split_scope(self, nodeid: str) -> str:
        match = _RELEASE.search(nodeid)
        return nodeid if match is None else match[1]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Use it for ``--dist loadgroup``."""
    return ByRelease(config, log) if config.getvalue("dist") == "loadgroup" else None
