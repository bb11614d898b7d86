"""A stand-alone hypervisor in the test's process and real `ioreqd-dm` processes beside it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from tools.hypervisor.clock import Clock
from tools.hypervisor.domain import Domain
from tools.hypervisor.hypervisor import Hypervisor
from tools.hypervisor.vcpu import MEMORY, PORT, Vcpu

__all__ = ["COMMAND", "LIMIT", "Messages", "Model", "World", "place_bar", "write_config"]

COMMAND = Path(sys.executable).parent / "ioreqd-dm"
LIMIT = 30.0
"""Seconds after which a domain is crashed, so that a vCPU which waits in vain fails the test."""
RAM = [(0, 8 << 20)]


class Model:
    """One device model process."""

    def __init__(self, arguments: Sequence[str], errors: Path) -> None:
        self._errors = errors
        self.running = False
        with errors.open("wb") as file:
            self.process = subprocess.Popen([str(COMMAND), *arguments], stderr=file)

    @property
    def messages(self) -> str:
        """What it wrote to standard error."""
        return self._errors.read_text()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait(LIMIT)

    def end(self) -> int:
        """SIGTERM; gives the exit status."""
        self.process.terminate()
        return self.process.wait(LIMIT)


class Messages:
    """An interrupt sink that keeps messages and pin levels."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, int]] = []
        self.levels: dict[int, int] = {}
        self.came = threading.Event()

    def set_gsi(self, gsi: int, level: int) -> None:
        self.levels[gsi] = level

    def set_pic(self, irq: int, level: int) -> None:
        pass

    def inject_msi(self, address: int, data: int) -> bool | None:
        self.sent.append((address, data))
        self.came.set()
        return True


class World:
    """A hypervisor with one domain, and the device models that were started for it."""

    def __init__(
        self,
        folder: Path,
        *,
        vcpus: int = 2,
        clock: Clock | None = None,
        limit: float = LIMIT,
    ) -> None:
        self.folder = folder
        self.path = folder / "xen"
        self.hypervisor = Hypervisor(str(self.path))
        self.domain: Domain = self.hypervisor.create_domain(vcpus=vcpus, ram=RAM, clock=clock)
        self.messages = Messages()
        self.domain.interrupts.sink = self.messages
        self.models: list[Model] = []
        self._seconds = limit
        self._limit = threading.Timer(limit, self._crash)
        self._limit.daemon = True
        self._limit.start()
        self.hypervisor.start()

    def _crash(self) -> None:
        for domain in list(self.hypervisor.domains.values()):
            domain.crash(f"the test took longer than {self._seconds} s")

    @property
    def vcpu(self) -> Vcpu:
        """The first vCPU."""
        return self.domain.vcpus[0]

    def start(self, *arguments: str, machine: str = "xenfv", domain: Domain | None = None) -> Model:
        """Start a device model and wait until it says that it runs."""
        model = self.launch(*arguments, machine=machine, domain=domain)
        state = self._state(domain)
        assert self.hypervisor.store.wait(state, LIMIT) == "running", model.messages
        model.running = True
        return model

    def _state(self, domain: Domain | None) -> str:
        domid = (domain or self.domain).domid
        return f"/local/domain/0/device-model/{domid}/state"

    def ready(self, domain: Domain | None = None) -> bool:
        """Whether the device model that was started last has said that it runs."""
        return self.hypervisor.store.read(self._state(domain)) == "running"

    def launch(
        self, *arguments: str, machine: str = "xenfv", domain: Domain | None = None
    ) -> Model:
        """Start a device model; see `start`."""
        domid = (domain or self.domain).domid
        state = self._state(domain)
        if self.hypervisor.store.read(state) is not None:
            self.hypervisor.store.remove(state)
        accelerator = f"local,path={self.path},domid={domid}"
        words = ["-accel", accelerator, "-machine", machine, *arguments]
        model = Model(words, self.folder / f"errors{len(self.models)}")
        self.models.append(model)
        threading.Thread(target=self._note_end, args=(model, state), daemon=True).start()
        return model

    def _note_end(self, model: Model, state: str) -> None:
        """Do not wait for one that ended before it said that it runs."""
        model.process.wait()
        if not model.running and model is self.models[-1]:
            self.hypervisor.store.write(state, "ended")

    def close(self) -> None:
        self._limit.cancel()
        for model in self.models:
            if model.process.poll() is None:
                model.kill()
        self.hypervisor.close()


def write_config(vcpu: Vcpu, slot: int, register: int, value: int, size: int = 4) -> None:
    """Write to function 0 of ``slot``'s configuration space, as a guest does."""
    vcpu.write(PORT, 0xCF8, 4, 1 << 31 | slot << 11 | register & 0xFC)
    vcpu.write(PORT, 0xCFC + (register & 3), size, value)


def place_bar(vcpu: Vcpu, slot: int, base: int) -> None:
    """Place BAR 0, a memory window, and switch memory accesses and bus mastering on."""
    write_config(vcpu, slot, 0x10, base)
    write_config(vcpu, slot, 0x04, 0x0006, 2)
    assert vcpu.read(MEMORY, base, 4) != 0xFFFFFFFF
