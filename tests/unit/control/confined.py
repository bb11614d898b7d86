"""A device model on a fake Xen that gives up its root directory and its user, as a program.

Its arguments: a folder (its root directory afterwards), the descriptor of a listening QMP socket.
It serves QMP until it is told to quit.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from dm.control.argv import parse
from dm.control.process import DeviceModel
from dm.server.loop import Loop
from tests.unit.server.fake_xen import Domain, FakeStore, FakeXen

NOBODY = 65534


class RestrictableXen(FakeXen):
    """A fake Xen whose powers can be given up; says so in the folder while that is possible."""

    folder: Path

    def restrict(self) -> None:
        (self.folder / "restricted").write_text(str(os.getuid()))

    def store(self) -> FakeStore:
        return FakeStore()

    def exclusive(self) -> Callable[[], None]:
        return lambda: None


def main() -> None:
    """Serve."""
    folder, fd = sys.argv[1:]
    hypervisor = RestrictableXen(Domain(vcpus=1))
    hypervisor.folder = Path(folder)
    options = parse(
        [
            *("-xen-domid", "5", "-machine", "xenfv", "-S", "-xen-domid-restrict"),
            *("-chardev", f"socket,id=q,fd={fd},server=on,wait=off"),
            *("-mon", "chardev=q,mode=control", "-serial", "null"),
            *("-chroot", folder, "-runas", f"{NOBODY}:{NOBODY}"),
        ]
    )
    model = DeviceModel(options, Loop(), hypervisor)
    model.open()
    assert os.getresuid() == (NOBODY, NOBODY, NOBODY)
    assert os.getresgid() == (NOBODY, NOBODY, NOBODY)
    assert os.getgroups() == [NOBODY]
    assert set(os.listdir("/")) == {"restricted"}
    model.run()
    model.close()


if __name__ == "__main__":
    main()
