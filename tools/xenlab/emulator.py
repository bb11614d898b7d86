"""How the laboratory's machine is emulated: QEMU's arguments, Xen's and dom0's, and its process.

What the options avoid was learned on the machine: with SMAP, software emulation breaks a PV dom0;
sync_console costs three seconds; more than one dom0 vCPU stalls about one boot in seven.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

from dm.errors import ConfigError, HostError
from tools.xenlab.needs import find_tool

__all__ = ["Emulator", "Machine"]

_DOM0_MB = 640
_GRACE = 5.0


@dataclass(frozen=True)
class Machine:
    """The emulated host: CPUs, dom0's vCPUs, memory in MiB (dom0 takes 640 of it)."""

    cpus: int = 1
    dom0_vcpus: int = 1
    memory: int = 1536

    def check(self) -> None:
        """Raise ConfigError for a machine that cannot be."""
        if not 1 <= self.cpus <= 16:
            raise ConfigError(f"--cpus {self.cpus}: not from 1 to 16")
        if not 1 <= self.dom0_vcpus <= 16:
            raise ConfigError(f"--dom0-vcpus {self.dom0_vcpus}: not from 1 to 16")
        if not _DOM0_MB + 256 <= self.memory <= 65536:
            raise ConfigError(f"--memory {self.memory}: not from {_DOM0_MB + 256} to 65536 MB")


def _doubled(path: Path) -> str:
    """Return ``path`` as a value in a QEMU option list, where a comma is written twice."""
    return str(path).replace(",", ",,")


def _arguments(machine: Machine, share: Path, log: Path, port: int, disk: Path | None) -> list[str]:
    """Return QEMU's arguments; images are named relative to the image's folder.

    Multiboot modules are given as name and arguments in one string, so a path of the cache must
    not appear there.
    """
    xen = (
        "console=com1 com1=115200,8n1 loglvl=info guest_loglvl=all conring_size=1M "
        f"dom0_mem={_DOM0_MB}M,max:{_DOM0_MB}M dom0_max_vcpus={machine.dom0_vcpus}"
    )
    kernel = "vmlinux console=hvc0 loglevel=6 panic=1 nokaslr mitigations=off"
    disks = [Path("dom0.ext4"), *([disk] if disk else [])]
    return [
        *("-name", "xenlab", "-machine", "q35", "-accel", "tcg,thread=multi,tb-size=512"),
        *("-cpu", "max,-smap", "-smp", str(machine.cpus), "-m", str(machine.memory)),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-rtc", "base=utc"),
        *("-kernel", "xen", "-append", xen, "-initrd", f"{kernel},initrd.gz"),
        *(
            word
            for number, path in enumerate(disks)
            for word in (
                "-drive",
                f"if=none,id=disk{number},file={_doubled(path)},format=raw,snapshot=on",
                *("-device", f"virtio-blk-pci,drive=disk{number}"),
            )
        ),
        "-virtfs",
        f"local,path={_doubled(share)},mount_tag=share,security_model=none,id=share,multidevs=remap",
        *("-chardev", f"socket,id=agent,fd={port}", "-device", "virtio-serial-pci"),
        *("-device", "virtserialport,chardev=agent,name=xenlab.agent"),
        *("-serial", f"file:{log / 'xen.log'}"),
    ]


class Emulator:
    """A running QEMU. It never outlives this process, however this process ends.

    ``port`` is our end of the agent's port. Logs go to the folder ``log``: xen.log, qemu.log.
    """

    def __init__(
        self, folder: Path, machine: Machine, share: Path, log: Path, disk: Path | None
    ) -> None:
        """Start the machine with the images of ``folder``; ``disk`` is dom0's /usr/local, if any.

        Raises HostError if QEMU cannot be started.
        """
        self.port, theirs = socket.socketpair()
        self._process: subprocess.Popen[bytes] | None = None
        self._error: OSError | None = None
        self._started = threading.Event()
        tools = [find_tool(name) or name for name in ("setpriv", "qemu-system-x86_64")]
        arguments = _arguments(machine, share, log, theirs.fileno(), disk)
        command = [tools[0], "--pdeathsig", "KILL", tools[1], *arguments]
        # The kernel kills the child when the *thread* that started it ends, so that thread waits.
        self._keeper = threading.Thread(
            target=self._keep, args=(command, folder, log, theirs), name="xenlab-qemu", daemon=True
        )
        self._keeper.start()
        self._started.wait()
        if self._process is None:
            self.port.close()
            cause = self._error.strerror if self._error else "unknown"
            raise HostError(f"cannot start {tools[1]}: {cause}")

    def _keep(self, command: list[str], folder: Path, log: Path, theirs: socket.socket) -> None:
        try:
            with theirs, (log / "qemu.log").open("wb") as output:
                self._process = subprocess.Popen(
                    command,
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
        except OSError as error:
            self._error = error
            return
        finally:
            self._started.set()
        self._process.wait()

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        """End QEMU if it still runs. Its disks are snapshots: nothing is lost by a kill."""
        assert self._process is not None
        self._process.kill()
        self._keeper.join(_GRACE)
        with contextlib.suppress(OSError):
            self.port.shutdown(socket.SHUT_RDWR)  # wakes a reader, which close would not
        self.port.close()
