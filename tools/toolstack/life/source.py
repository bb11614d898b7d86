"""A configuration as text: what is kept with a guest, so that it can be read again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tools.toolstack.errors import ToolstackError
from tools.toolstack.xlcfg import GuestConfig, read_text

__all__ = ["read_source"]

LARGEST = 256 << 10


def read_source(
    path: Path, warn: Callable[[str], None], extra: Sequence[str] = ()
) -> tuple[GuestConfig, str]:
    """The guest that the file ``path`` describes, and the text that it was read from.

    ``extra``: assignments that follow the file's. ToolstackError: see `xlcfg.read_config`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise ToolstackError(f"{path}: {error.strerror}") from None
    if len(data) > LARGEST:
        raise ToolstackError(f"{path}: more than {LARGEST >> 10} KiB")
    text = data.decode("utf-8", "surrogateescape")
    if extra:
        text += "\n" + "".join(f"{assignment}\n" for assignment in extra)
    return read_text(text, str(path), warn), text
