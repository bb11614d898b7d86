"""Where built things lie, by the hash of all that determines them, and who may build them when."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dm.errors import HostError

__all__ = ["cache_folder", "content_key", "ensure", "prune"]

_ENVIRONMENT = "IOREQD_LAB_CACHE"


def cache_folder() -> Path:
    """Return the laboratory's cache: $IOREQD_LAB_CACHE, else ioreqd/lab in the user's cache."""
    override = os.environ.get(_ENVIRONMENT)
    if override:
        return Path(override).absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "ioreqd" / "lab"


def content_key(parts: Iterable[bytes]) -> str:
    """Return a short hash of ``parts``; where one part ends and the next begins matters too."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()[:16]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def ensure(entry: Path, make: Callable[[Path], None]) -> Path:
    """Return ``entry``, a folder; if it is not there, ``make(folder)`` fills a temporary one first.

    The temporary folder becomes ``entry`` by one rename, so an entry is complete or absent. A
    second caller, in this process or another, waits for the first instead of building again.
    """
    if entry.is_dir():
        return entry
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with _locked(entry.with_name(entry.name + ".lock")):
            if entry.is_dir():
                return entry
            for leftover in entry.parent.glob(f"{entry.name}.new.*"):
                shutil.rmtree(leftover, ignore_errors=True)
            work = Path(tempfile.mkdtemp(prefix=f"{entry.name}.new.", dir=entry.parent))
            try:
                work.chmod(0o755)
                make(work)
                work.rename(entry)
            except BaseException:
                shutil.rmtree(work, ignore_errors=True)
                raise
    except OSError as error:
        raise HostError(f"cannot fill the cache {entry}: {error}", error.errno or 0) from error
    return entry


def prune(folder: Path, keep: int) -> None:
    """Remove all but the ``keep`` youngest entries of ``folder``.

    Locks stay, because others may hold them.
    """
    entries = [path for path in folder.iterdir() if path.is_dir() and ".new." not in path.name]
    entries.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for entry in entries[keep:]:
        shutil.rmtree(entry, ignore_errors=True)
