"""Fixtures of the real-Xen tests: one booted laboratory per Xen release, guests per test.

With ``-n 2 --dist loadgroup`` the two releases run side by side, each in one process. Without root
or a tool that the laboratory needs, the whole tier is skipped and says why.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tools.xenlab import RELEASES, Lab, lab_available
from tools.xenlab.tree import build_wheel

from .support import COMMON, Guest, Host


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip this tier where the laboratory cannot be had; only then is it asked."""
    mine = [item for item in items if COMMON in item.path.parents]
    reason = lab_available() if mine else None
    if reason is not None:
        for item in mine:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the guests' lines, the device models' logs and xl's output to a failed test's report."""
    report = yield
    host = getattr(item, "funcargs", {}).get("host")
    if report.failed and isinstance(host, Host):
        report.sections.extend(host.evidence())
    return report


@pytest.fixture(
    scope="session",
    params=[pytest.param(xen, marks=pytest.mark.xdist_group(f"xen-{xen}")) for xen in RELEASES],
)
def release(request: pytest.FixtureRequest) -> str:
    """The Xen release, as in ``tools.xenlab.RELEASES``."""
    return str(request.param)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel."""
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def lab(release: str, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A booted laboratory with the project installed in its dom0."""
    share = tmp_path_factory.mktemp(f"xen-{release}")
    with Lab(xen=release, install=[wheel], share=share) as booted:
        yield booted


@pytest.fixture(scope="session")
def booted_host(lab: Lab, release: str) -> Host:
    """The laboratory as the tests use it."""
    return Host(lab, release)


@pytest.fixture
def host(booted_host: Host) -> Iterator[Host]:
    """The laboratory; what guests a test leaves in it are destroyed after the test."""
    yield booted_host
    booted_host.finish()


@pytest.fixture
def make_guest(host: Host) -> Callable[..., Guest]:
    """Make a `Guest` with a unique name: ``make_guest("stem", firmware=…, extra={…})``."""

    def make(stem: str, **settings: Any) -> Guest:
        return Guest(host, host.unique(stem), **settings)

    return make
