"""xl.cfg(5): reads the files that xl reads, with a line and a column for all that is wrong in them.

What xl takes and means is taken and means the same, with these differences. Whatever xl reports
and then goes on without (a number that is none, a list for a single value, an unknown option of a
vif) is an error; keys that xl does not have, which it passes over, are named; and ``rdm=`` with a
policy has the effect that xl.cfg(5) describes, which a slip in xl's reader takes from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tools.toolstack.user_file import read_user_file
from tools.toolstack.xlcfg.config import (
    Action,
    Disk,
    GuestConfig,
    GuestType,
    PciDevice,
    RdmPolicy,
    RdmStrategy,
    Vif,
    Vnc,
)
from tools.toolstack.xlcfg.meaning import understand
from tools.toolstack.xlcfg.parser import parse

__all__ = [
    "Action",
    "Disk",
    "GuestConfig",
    "GuestType",
    "PciDevice",
    "RdmPolicy",
    "RdmStrategy",
    "Vif",
    "Vnc",
    "read_config",
    "read_source",
    "read_text",
]


def read_config(
    path: Path, warn: Callable[[str], None], *, extra: Sequence[str] = ()
) -> GuestConfig:
    """Return the guest that the file ``path`` describes.

    ``extra`` are assignments (``"memory=64"``) that follow the file's, as on xl's command line.
    ``warn`` gets one line for each key that is unknown or has no effect. Raises ToolstackError, one
    line with file, line and column, for what is wrong. A file has at most 256 KiB.
    """
    return read_source(path, warn, extra)[0]


def read_source(
    path: Path, warn: Callable[[str], None], extra: Sequence[str] = ()
) -> tuple[GuestConfig, str]:
    """Return the guest, and the text that it was read from, which `read_text` reads again.

    See ``read_config``.
    """
    text = read_user_file(path).decode("utf-8", "surrogateescape")
    if extra:
        text += "\n" + "".join(f"{assignment}\n" for assignment in extra)
    return read_text(text, str(path), warn), text


def read_text(text: str, source: str, warn: Callable[[str], None]) -> GuestConfig:
    """Return the guest that ``text`` describes; ``source`` names it in messages.

    See ``read_config``.
    """
    settings, end = parse(text, source)
    return understand(settings, end, warn)
