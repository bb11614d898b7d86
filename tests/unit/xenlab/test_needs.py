from __future__ import annotations

from pathlib import Path

import pytest

from dm.errors import ConfigError
from tools.xenlab import needs


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder that is all of PATH, with every tool in it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(needs, "_SBIN", str(tmp_path))
    for name in needs.TOOLS:
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    return tmp_path


def test_nothing_is_missing_where_all_tools_are(tools: Path) -> None:
    assert needs.missing_tools() == {}
    needs.require_tools()


def test_one_line_names_every_missing_tool_and_its_package(tools: Path) -> None:
    (tools / "mke2fs").unlink()
    (tools / "qemu-system-x86_64").unlink()
    with pytest.raises(ConfigError) as raised:
        needs.require_tools()
    assert str(raised.value) == (
        "the laboratory needs qemu-system-x86_64 (package qemu-system-x86), "
        "mke2fs (package e2fsprogs): apt-get install e2fsprogs qemu-system-x86"
    )


def test_tools_of_the_administrator_are_found_without_them_on_path(
    tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert needs.find_tool("mke2fs") == str(tools / "mke2fs")


def _sudo(tools: Path, status: int) -> None:
    (tools / "sudo").write_text(f"#!/bin/sh\nexit {status}\n")
    (tools / "sudo").chmod(0o755)


def test_root_needs_no_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert needs.require_root() == []


def test_others_go_through_sudo_if_it_asks_nothing(
    tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    _sudo(tools, 0)
    assert needs.require_root() == [str(tools / "sudo"), "-n"]


@pytest.mark.parametrize("sudo", [None, 1])
def test_no_way_to_root_is_a_config_error_and_a_reason_to_skip(
    tools: Path, monkeypatch: pytest.MonkeyPatch, sudo: int | None
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(needs, "host_sources", lambda suite: None)
    if sudo is not None:
        _sudo(tools, sudo)
    with pytest.raises(ConfigError, match="as root"):
        needs.require_root()
    assert "sudo" in (needs.lab_available() or "")


def test_the_laboratory_is_available_where_nothing_is_missing(
    tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(needs, "host_sources", lambda suite: None)
    assert needs.lab_available() is None
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert "aarch64" in (needs.lab_available() or "")
