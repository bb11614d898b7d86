"""How the process gives up what it does not need any more, in QEMU's order.

Everything privileged is open by then. First the libraries are restricted to the one domain
(`-xen-domid-restrict`), then the root directory changes (`-chroot`), then the user (`-runas`): see
QEMU's accel/xen/xen-all.c and os-posix.c. Afterwards nothing can be opened by name, so modules
that would be loaded later are loaded before.
"""

from __future__ import annotations

import os

from dm.errors import ConfigError, HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["change_root", "change_user", "load_everything", "parse_user"]

LATE_MODULES = (
    "dm.control.qmp",
    "dm.control.qmp_commands",
    "dm.machine.container",
    "dm.host.sockets",
    "encodings.idna",
    "encodings.utf_8",
    "json",
    "logging",
    "socket",
    "traceback",
    "zlib",
)
"""What ioreqd-dm imports only when it is needed."""


def load_everything() -> None:
    """Import what would otherwise be imported later."""
    from importlib import import_module

    for name in LATE_MODULES:
        import_module(name)


def change_root(directory: str) -> None:
    """Make ``directory`` the root; HostError when that fails."""
    _call(f"chroot({directory})", lambda: os.chroot(directory))
    _call("chdir(/)", lambda: os.chdir("/"))


def parse_user(user: str) -> tuple[int, int, str | None]:
    """``NAME`` or ``UID:GID`` as (uid, gid, name); ConfigError when there is no such user."""
    uid, colon, gid = user.partition(":")
    if colon and uid.isdecimal() and gid.isdecimal():
        return int(uid), int(gid), None
    from pwd import getpwnam

    try:
        entry = getpwnam(user)
    except KeyError:
        raise ConfigError(f"-runas {user}: there is no such user") from None
    return entry.pw_uid, entry.pw_gid, user


def change_user(uid: int, gid: int, name: str | None) -> None:
    """Become the user for good; HostError when that fails or could be undone."""
    _call(f"setgid({gid})", lambda: os.setgid(gid))
    if name is None:
        _call("setgroups", lambda: os.setgroups([gid]))
    else:
        _call(f"initgroups({name})", lambda: os.initgroups(name, gid))
    _call(f"setuid({uid})", lambda: os.setuid(uid))
    if uid:
        try:
            os.setuid(0)
        except OSError:
            return
        raise HostError(f"setuid({uid}) could be undone")


def _call(what: str, call: Callable[[], None]) -> None:
    try:
        call()
    except OSError as error:
        raise HostError(f"{what}: {os.strerror(error.errno or 0)}", error.errno or 0) from None
