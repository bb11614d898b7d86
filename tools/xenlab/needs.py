"""What the laboratory needs of this machine: tools with their Debian packages, and root."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterable

from dm.errors import ConfigError
from tools.xenlab.sources import host_sources

__all__ = [
    "TOOLS",
    "find_tool",
    "lab_available",
    "missing_tools",
    "require_root",
    "require_tools",
    "root_prefix",
]

TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "qemu-system-x86_64": "qemu-system-x86",
    "mke2fs": "e2fsprogs",
    "cpio": "cpio",
    "zstd": "zstd",
    "gzip": "gzip",
    "setpriv": "util-linux",
}
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


def find_tool(name: str) -> str | None:
    """Return the path of tool ``name``, None if it is not installed.

    The administrator's folders are searched too, which a plain user's PATH lacks on Debian.
    """
    return shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":" + _SBIN)


def missing_tools(names: Iterable[str] = TOOLS) -> dict[str, str]:
    """Return the tools among ``names`` that are not installed, with their Debian packages."""
    return {name: TOOLS[name] for name in names if find_tool(name) is None}


def require_tools(names: Iterable[str] = TOOLS) -> None:
    """Raise ConfigError, one line with every missing tool and its package, if any is missing."""
    missing = missing_tools(names)
    if missing:
        tools = ", ".join(f"{tool} (package {package})" for tool, package in missing.items())
        packages = " ".join(sorted(set(missing.values())))
        raise ConfigError(f"the laboratory needs {tools}: apt-get install {packages}")


def root_prefix() -> list[str] | None:
    """Return what to put before a command to run it as root, None if that cannot be had.

    Nothing is needed for root; others go through ``sudo -n``, which never asks for a password.
    """
    if os.geteuid() == 0:
        return []
    sudo = find_tool("sudo")
    if sudo is None:
        return None
    probe = subprocess.run(
        [sudo, "-n", "true"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return [sudo, "-n"] if probe.returncode == 0 else None


def require_root() -> list[str]:
    """Return ``root_prefix()``; raise ConfigError if there is no way to root."""
    prefix = root_prefix()
    if prefix is None:
        raise ConfigError(
            "the laboratory is built as root: run as root, or allow sudo without a password"
        )
    return prefix


def lab_available() -> str | None:
    """Return None if the laboratory can be built and run here, else the reason why not."""
    if platform.machine() != "x86_64":
        return f"the laboratory's packages are for x86_64, this machine is {platform.machine()}"
    try:
        require_tools()
        host_sources("any")
        require_root()
    except ConfigError as error:
        return str(error)
    return None
