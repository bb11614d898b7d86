"""The recipe carried out as root for somebody who is not: ``python -m tools.xenlab XEN FOLDER``.

``FOLDER`` is an empty folder of that user's cache. It is `ioreqd lab build` that calls this.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

from dm.errors import ConfigError, HostError
from tools.xenlab.image import fill
from tools.xenlab.release import find_release

__all__: list[str] = []


def _clean(folder: Path) -> None:
    """Remove what the failed build left, which only root can."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def _main(xen: str, name: str) -> int:
    began = time.monotonic()
    folder = Path(name)

    def progress(line: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - began:5.1f} s] {line}\n")

    try:
        if folder.is_symlink() or not folder.is_dir() or any(folder.iterdir()):
            raise ConfigError(f"{folder} is not an empty folder")
    except ConfigError as error:
        sys.stderr.write(f"ioreqd: {error}\n")
        return 2
    try:
        fill(find_release(xen), folder, progress)
    except (ConfigError, HostError, OSError) as error:
        _clean(folder)
        sys.stderr.write(f"ioreqd: {error}\n")
        return 1
    except BaseException:
        _clean(folder)
        raise
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
