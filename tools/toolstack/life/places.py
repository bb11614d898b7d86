"""Where a host's running guests are noted: the run directory, domain ids, names, who is alive.

The run directory has a folder for each domain, named by its domid. The process that keeps the
domain holds a lock on the file ``alive`` in it, which has its process id, for as long as it lives;
so what a dead process left behind is recognised without trusting process ids, which somebody else
may have by now. Domids are
given out under the lock of the run directory, whose file has the last one, and not again before all
others have been used (libxl quarantines a domid for a minute).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

from tools.toolstack.errors import HostFailure, ToolstackError

__all__ = ["LARGEST_DOMID", "LONGEST_NAME", "Place", "Places", "check_name", "default_folder"]

LARGEST_DOMID = 0x7FEF
"""DOMID_FIRST_RESERVED - 1."""
LONGEST_NAME = 64
LONGEST_FOLDER = 84
"""Bytes of the run directory's path, so that sockets in it have paths that fit (107 bytes)."""
LOCK, ALIVE, NAME = "lock", "alive", "name"


def default_folder() -> Path:
    """``$XDG_RUNTIME_DIR/ioreqd``, or, without that, ``/tmp/ioreqd-UID``."""
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    if base.startswith("/") and len(os.fsencode(base)) + len("/ioreqd") <= LONGEST_FOLDER:
        return Path(base) / "ioreqd"
    return Path(f"/tmp/ioreqd-{os.getuid()}")


def check_name(name: str) -> str:
    """The name of a domain, as it is. ToolstackError: it cannot be one.

    A name that is a number is taken for a domid wherever a domain is named; libxl lets it be.
    """
    if not name or len(name) > LONGEST_NAME or "/" in name or not name.isprintable():
        raise ToolstackError(
            f"name {name[:LONGEST_NAME]!r}: 1 to {LONGEST_NAME} printable characters without /"
        )
    if name.isdecimal() or name.startswith((".", "-")):
        raise ToolstackError(f"name {name!r}: not a number, and not beginning with . or -")
    return name


class Place:
    """The folder of one domain."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.domid = int(folder.name)

    def file(self, name: str) -> Path:
        """A file of the domain's."""
        return self.folder / name

    @property
    def control(self) -> Path:
        """The socket that the keeper of the domain listens on."""
        return self.folder / "control"

    @property
    def name(self) -> str:
        """The name of the domain; empty when it is gone."""
        try:
            return (self.folder / NAME).read_text(encoding="utf-8")
        except OSError:
            return ""

    def kill_keeper(self) -> None:
        """End the process that keeps the domain, if one does, by SIGKILL."""
        try:
            keeper = os.pidfd_open(int((self.folder / ALIVE).read_text()))
        except (OSError, ValueError):
            return
        try:
            # It holds the lock, so that the process id is still its own.
            if self.alive:
                signal.pidfd_send_signal(keeper, signal.SIGKILL)
        except ProcessLookupError:
            pass
        finally:
            os.close(keeper)

    @property
    def alive(self) -> bool:
        """Whether a process keeps the domain."""
        try:
            fd = os.open(self.folder / ALIVE, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            return not _try_lock(fd)
        finally:
            os.close(fd)


class Places:
    """The run directory ``folder``. `open` comes first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self) -> None:
        """Make the directory, if need be, and check that it is this user's alone.

        ToolstackError: it is not, or its path is too long for sockets in it. HostFailure: mkdir.
        """
        if len(os.fsencode(self.folder.absolute())) > LONGEST_FOLDER:
            raise ToolstackError(f"{self.folder}: a run directory's path has at most 84 bytes")
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            status = self.folder.lstat()
        except OSError as error:
            raise HostFailure(f"mkdir {self.folder}: {error.strerror}") from None
        if not stat.S_ISDIR(status.st_mode):
            raise ToolstackError(f"{self.folder} is not a directory")
        if status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise ToolstackError(
                f"{self.folder} must be this user's, and closed to others (mode 0700)"
            )

    def claim(self, name: str) -> tuple[Place, int]:
        """A new domain's place, and the descriptor whose lock says that its keeper lives.

        ToolstackError: a domain has that name already. HostFailure: no domid is free, or a file
        cannot be made.
        """
        check_name(name)
        with self._locked() as lock:
            if any(place.name == name for place in self._sweep()):
                raise ToolstackError(f"there is a domain named {name} already")
            place = Place(self.folder / str(self._next_domid(lock)))
            try:
                place.folder.mkdir(mode=0o700)
                (place.folder / NAME).write_text(name, encoding="utf-8")
                fd = os.open(place.folder / ALIVE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                shutil.rmtree(place.folder, ignore_errors=True)
                raise HostFailure(f"{place.folder}: {error.strerror}") from None
            _try_lock(fd)
            os.write(fd, b"%d\n" % os.getpid())
        return place, fd

    def rename(self, place: Place, name: str) -> None:
        """Give a domain another name. ToolstackError: that is taken, or cannot be one."""
        check_name(name)
        with self._locked():
            if any(other.name == name for other in self._sweep() if other.domid != place.domid):
                raise ToolstackError(f"there is a domain named {name} already")
            new = place.file(f"{NAME}.new")
            new.write_text(name, encoding="utf-8")
            new.replace(place.file(NAME))

    def release(self, place: Place, fd: int) -> None:
        """A domain is gone, and its files with it."""
        with self._locked():
            shutil.rmtree(place.folder, ignore_errors=True)
            os.close(fd)

    def all(self) -> list[Place]:
        """The domains that are kept, by domid; what dead keepers left is removed."""
        with self._locked():
            return self._sweep()

    def find(self, who: str) -> Place:
        """The domain with that domid or name. ToolstackError: there is none."""
        for place in self.all():
            if who in (str(place.domid), place.name):
                return place
        raise ToolstackError(f"there is no domain {who!r}")

    def _sweep(self) -> list[Place]:
        """The living domains, the dead ones' folders being removed. Called under the lock."""
        found = []
        for entry in self.folder.iterdir():
            if entry.name.isdecimal() and entry.is_dir():
                place = Place(entry)
                if place.alive:
                    found.append(place)
                else:
                    shutil.rmtree(entry, ignore_errors=True)
        return sorted(found, key=lambda place: place.domid)

    def _next_domid(self, lock: int) -> int:
        text = os.pread(lock, 16, 0).strip()
        last = int(text) if text.isdigit() else 0
        for step in range(1, LARGEST_DOMID + 1):
            domid = (last + step - 1) % LARGEST_DOMID + 1
            if not (self.folder / str(domid)).exists():
                os.ftruncate(lock, 0)
                os.pwrite(lock, b"%d\n" % domid, 0)
                return domid
        raise HostFailure("every domid is in use")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        try:
            fd = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise HostFailure(f"open {self.folder / LOCK}: {error.strerror}") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield fd
        finally:
            os.close(fd)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
