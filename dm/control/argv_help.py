"""The texts of `-help` and `-version`, made from the table of options."""

from __future__ import annotations

from dm.control.argv_table import FLAG, OPTIONS

__all__ = ["QEMU_VERSION", "help_text", "version_text"]

# The release whose command line and QMP are spoken: (major, minor, micro).
QEMU_VERSION = (7, 2, 0)


def _own_version() -> str:
    from importlib import metadata

    try:
        return metadata.version("ioreqd")
    except metadata.PackageNotFoundError:
        return "unknown"


def version_text() -> str:
    """The line that ``-version`` prints, in the manner of QEMU."""
    qemu = ".".join(map(str, QEMU_VERSION))
    return f"ioreqd-dm version {_own_version()} (QEMU command line and QMP {qemu})\n"


def help_text() -> str:
    """What ``-help`` prints: every option, and what becomes of it."""
    lines = [
        version_text(),
        "usage: ioreqd-dm [options]\n",
        "A toolstack starts it in QEMU's place, with QEMU's options.\n\n",
        "-device PATH.py:Class[,option=value]    adds a device from a Python file\n",
        "-observe trace=FILE|-,record=FILE,…     shows what the devices do; reload=on\n",
        "-machine …,strict=on                    makes what is not modelled an error\n\n",
    ]
    for name, (kind, _, implied, effect, _) in OPTIONS.items():
        no_argument = kind == FLAG or name in ("help", "h", "version")
        usage = f"-{name}" if no_argument else f"-{name} {implied or 'value'}"
        note = f"accepted, not modelled: {effect}" if effect else ""
        lines.append(f"{usage:<24}{note}".rstrip() + "\n")
    return "".join(lines)
