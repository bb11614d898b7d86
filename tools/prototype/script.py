"""A guest that is a Python script: its accesses go to a real device model, in virtual time.

The script has ``bus``, with the methods of the pytest fixture of that name where they make sense
from the outside: accesses of every width, configuration space, `memory`, `advance`, and the levels
of interrupt lines. It is run on the first vCPU; when it ends, so does everything.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dm.errors import ConfigError
from dm.testing.accesses import Accesses, devfn_of
from protocol import layouts
from tools.hypervisor.engines import Engine
from tools.hypervisor.errors import DomainEnded
from tools.hypervisor.interrupts import gsi_of_isa

if TYPE_CHECKING:
    from tools.hypervisor.domain import Domain
    from tools.hypervisor.memory import GuestMemory
    from tools.hypervisor.vcpu import Vcpu

__all__ = ["GuestBus", "ScriptEngine", "body_of"]

PORT, MEMORY = layouts.IO_RANGE_TYPE_PORT, layouts.IO_RANGE_TYPE_MEMORY
ADDRESS, DATA = layouts.PCI_CONFIG_ADDRESS_PORT, layouts.PCI_CONFIG_DATA_PORT
ENABLE = layouts.PCI_CONFIG_ADDRESS_ENABLE_MASK
PINS = 4
FAILED = 1
"""Exit status of a script that raised."""
PATIENCE = 0.5
"""Seconds in which a script comes to its next access, if it makes any."""


class MessageSink:
    """Interrupt controllers that only remember the messages that came."""

    def __init__(self) -> None:
        self.msis: list[tuple[int, int]] = []

    def set_gsi(self, gsi: int, level: int) -> None:
        """Lines are looked at in the domain itself."""

    def set_pic(self, irq: int, level: int) -> None:
        """Lines are looked at in the domain itself."""

    def inject_msi(self, address: int, data: int) -> bool | None:
        """Remember a message."""
        self.msis.append((address, data))
        return True


class GuestBus(Accesses):
    """What a script does as the guest. Addresses that nobody claims read as ones."""

    def __init__(self, vcpu: Vcpu, sink: MessageSink) -> None:
        self._vcpu = vcpu
        self._domain = vcpu.domain
        self.msis = sink.msis
        """The MSIs that came so far, as (address, data)."""

    @property
    def memory(self) -> GuestMemory:
        """The guest's RAM: ``read(gpa, length)``, ``write(gpa, data)``."""
        return self._domain.memory

    def memory_read(self, gpa: int, size: int) -> int:
        """See `Accesses.memory_read`; RAM is read as it is."""
        if self._domain.memory.find(gpa) is not None:
            return int.from_bytes(self._domain.memory.read(gpa, size), "little")
        return self._vcpu.read(MEMORY, gpa, size)

    def memory_write(self, gpa: int, value: int, size: int) -> None:
        """See `Accesses.memory_write`."""
        if self._domain.memory.find(gpa) is not None:
            self._domain.memory.write(gpa, value.to_bytes(size, "little"))
        else:
            self._vcpu.write(MEMORY, gpa, size, value)

    def port_read(self, port: int, size: int) -> int:
        """See `Accesses.port_read`."""
        return self._vcpu.read(PORT, port, size)

    def port_write(self, port: int, value: int, size: int) -> None:
        """See `Accesses.port_write`."""
        self._vcpu.write(PORT, port, size, value)

    def config_read(self, devfn: int, register: int, size: int) -> int:
        """See `Accesses.config_read`; by the ports 0xcf8 and 0xcfc."""
        self.port_write(ADDRESS, ENABLE | devfn << 8 | register & 0xFC, 4)
        return self.port_read(DATA + (register & 3), size)

    def config_write(self, devfn: int, register: int, value: int, size: int) -> None:
        """See `Accesses.config_write`."""
        self.port_write(ADDRESS, ENABLE | devfn << 8 | register & 0xFC, 4)
        self.port_write(DATA + (register & 3), value, size)

    def find(self, vendor: int, device: int) -> int:
        """The devfn of the first function on bus 0 with these ids; LookupError: there is none."""
        for devfn in range(256):
            if self.config_read(devfn, 0, 4) == device << 16 | vendor:
                return devfn
        raise LookupError(f"there is no PCI function {vendor:04x}:{device:04x}")

    def advance(self, *, s: float = 0, ms: float = 0, us: float = 0, ns: int = 0) -> None:
        """Let guest time pass; timers fire in order, each at its own time."""
        self._domain.step_clock(round(s * 1e9) + round(ms * 1e6) + round(us * 1e3) + ns)

    @property
    def now(self) -> int:
        """Guest time in nanoseconds."""
        return self._domain.clock.now()

    def irq(self, number: int) -> int:
        """The level of ISA interrupt ``number`` (0..15)."""
        return self._domain.interrupts.level(gsi_of_isa(number))

    def intx(self, function: int, pin: int = 1) -> int:
        """The level of ``pin`` (1 = INTA) of the slot of a devfn."""
        line = (devfn_of(function) >> 3) * PINS + pin - 1
        return self._domain.interrupts.intx >> line & 1


def body_of(path: Path) -> Callable[[GuestBus], object]:
    """What the script at ``path`` does with a bus. ConfigError when it cannot be compiled."""
    try:
        code = compile(path.read_text(), str(path), "exec")
    except (SyntaxError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    names = {"__name__": "__main__", "__file__": str(path)}
    return lambda bus: exec(code, {**names, "bus": bus})


class ScriptEngine(Engine):
    """Runs ``body`` in the place of a guest; its exceptions and its `sys.exit` become a status."""

    name = "script"

    def __init__(self, domain: Domain, body: Callable[[GuestBus], object]) -> None:
        super().__init__(domain)
        self.status = 0
        self._body = body
        self._sink = MessageSink()
        with domain.lock:
            domain.interrupts.sink = self._sink

    def stop(self) -> None:
        """See `Engine.stop`. A script that makes no access now cannot be stopped, and is left."""
        for vcpu in self.domain.vcpus:
            vcpu.stop()
        self.join(PATIENCE)

    def run(self, vcpu: Vcpu) -> None:
        """See `Engine.run`: the first vCPU is the script's, the others never start."""
        if vcpu.id:
            return
        try:
            self._body(GuestBus(vcpu, self._sink))
        except DomainEnded:
            raise
        except SystemExit as error:
            code = error.code
            self.status = code if isinstance(code, int) else FAILED if code else 0
            if isinstance(code, str):
                sys.stderr.write(f"{code}\n")
        except BaseException as error:
            self.status = FAILED
            # The frames of this file are of no interest to the script's author.
            own = error.__traceback__
            while own is not None and own.tb_frame.f_code.co_filename == __file__:
                own = own.tb_next
            traceback.print_exception(type(error), error, own)
        finally:
            threading.Thread(
                target=self.domain.shutdown, args=(layouts.SHUTDOWN_REASON_POWEROFF,), daemon=True
            ).start()
