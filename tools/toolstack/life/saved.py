"""A saved guest on its way back: what its file says, checked before any of it is applied.

The file has the guest's configuration, which names programs and files of this host: restoring it is
as creating a guest of a configuration of whoever made the file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from protocol import layouts
from tools.hypervisor.chips.chip import StateError
from tools.hypervisor.errors import EngineUnavailable, HypercallError, NotRamError
from tools.hypervisor.images.cpu_start import CpuStart
from tools.hypervisor.interrupts import Interrupts
from tools.hypervisor.memory import ADDRESS_LIMIT, SPARE
from tools.toolstack.errors import HostFailure, ToolstackError
from tools.toolstack.xlcfg import GuestConfig, read_text

from .places import check_name
from .save_file import PAGE, Kind, SaveReader

if TYPE_CHECKING:
    from tools.hypervisor.domain import Domain
    from tools.hypervisor.engines import Engine

__all__ = ["Saved"]

MOST_REGIONS = 4096
M32, M64 = (1 << 32) - 1, (1 << 64) - 1
MEM_TYPES = range(layouts.MEM_TYPE_IOREQ_SERVER + 1)
CHANNELS = (
    layouts.HVM_PARAM_STORE_EVTCHN,
    layouts.HVM_PARAM_CONSOLE_EVTCHN,
    layouts.HVM_PARAM_BUFIOREQ_EVTCHN,
    layouts.HVM_PARAM_ACPI_S_STATE,
)
"""Parameters that are the new domain's own."""
DOMAIN_KEYS = {"now", "regions", "types", "params", "interrupts", "pci_cf8"}


class Saved:
    """The guest in the file ``path``. ToolstackError, one line: it cannot be restored.

    ``device_state``: where the device model's state is put, by `fill`. Close it when done.
    """

    start = CpuStart("real", ip=0)
    """How processors begin before their state is applied."""

    def __init__(self, path: Path, progress: Callable[[str], object] = lambda text: None) -> None:
        self._path = path
        self._reader = SaveReader(
            path,
            lambda done, total: progress(f"checking {path}: {done >> 20} of {total >> 20} MiB"),
        )
        try:
            self._read_config(self._reader.json(Kind.CONFIG))
            self._read_domain(self._reader.json(Kind.DOMAIN))
            self._processors = self._reader.json(Kind.PROCESSORS)
            self._check_memory()
        except BaseException:
            self._reader.close()
            raise
        self.device_state: Path | None = None

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def _refuse(self, why: str) -> ToolstackError:
        return ToolstackError(f"{self._path}: {why}")

    def _read_config(self, values: Any) -> None:
        keys = {"text", "name", "uuid"}
        if not isinstance(values, dict) or set(values) != keys:
            raise self._refuse("its configuration is not one")
        if not all(isinstance(values[key], str) for key in keys):
            raise self._refuse("its configuration is not text")
        self.text: str = values["text"]
        config = read_text(self.text, f"{self._path}: configuration", lambda line: None)
        self.config: GuestConfig = replace(config, name=check_name(values["name"]))
        try:
            self.uuid = UUID(values["uuid"])
        except ValueError:
            raise self._refuse("its uuid is none") from None

    def _read_domain(self, values: Any) -> None:
        if not isinstance(values, dict) or set(values) != DOMAIN_KEYS:
            raise self._refuse("its domain is not one")
        self.now = self._number(values["now"], 1 << 62)
        self._pci_cf8 = self._number(values["pci_cf8"], M32)
        self.regions = self._pairs(values["regions"], ADDRESS_LIMIT, ADDRESS_LIMIT)
        self._types = self._pairs(values["types"], ADDRESS_LIMIT // PAGE, MEM_TYPES[-1])
        params = values["params"]
        if not isinstance(params, list) or len(params) != layouts.HVM_PARAM_COUNT:
            raise self._refuse(f"it does not have {layouts.HVM_PARAM_COUNT} parameters")
        self._params = [self._number(value, M64) for value in params]
        self._interrupts = values["interrupts"]
        try:
            Interrupts().check(self._interrupts)
        except StateError as error:
            raise self._refuse(str(error)) from None
        room = (self.config.maxmem << 20) + SPARE
        end = 0
        for gpa, size in self.regions:
            if gpa % PAGE or size % PAGE or not size or gpa < end or gpa + size > ADDRESS_LIMIT:
                raise self._refuse(f"its memory cannot be {size:#x} bytes at {gpa:#x}")
            end = gpa + size
        if not self.regions or sum(size for _, size in self.regions) > room:
            raise self._refuse("it has more memory than its configuration, or none")

    def _number(self, value: object, largest: int) -> int:
        if type(value) is not int or not 0 <= value <= largest:
            raise self._refuse(f"a number in its domain is not from 0 to {largest:#x}")
        return value

    def _pairs(self, value: object, first: int, second: int) -> list[tuple[int, int]]:
        if not isinstance(value, list) or len(value) > max(MOST_REGIONS, self.config.maxmem << 8):
            raise self._refuse("a list in its domain is none, or too long")
        pairs = []
        for one in value:
            if not isinstance(one, list) or len(one) != 2:
                raise self._refuse("a list in its domain has no pairs")
            pairs.append((self._number(one[0], first), self._number(one[1], second)))
        return pairs

    def _check_memory(self) -> None:
        """Every run lies in one region, and none is where another one was."""
        end = 0
        regions = iter([*self.regions, (ADDRESS_LIMIT, 0)])
        first, size = next(regions)
        for gpa, data in self._reader.memory():
            while gpa >= first + size and size:
                first, size = next(regions)
            whole = len(data) and not len(data) % PAGE
            if not whole or gpa < max(end, first) or gpa + len(data) > first + size:
                raise self._refuse(f"{len(data):#x} bytes at {gpa:#x} are not its memory")
            end = gpa + len(data)

    def fill(self, domain: Domain, device_state: Path) -> None:
        """Apply memory, parameters and lines; put the device model's state to ``device_state``.

        ToolstackError, HostFailure: the domain is as good as lost then.
        """
        try:
            for gpa, data in self._reader.memory():
                domain.memory.write(gpa, data)
            with domain.lock:
                for gfn, kind in self._types:
                    domain.memory.page_types(gfn, 1, kind)
                for index, value in enumerate(self._params):
                    if index not in CHANNELS and value != domain.params.peek(index):
                        domain.params.set(index, value)
                domain.interrupts.load(self._interrupts)
                domain.pci_cf8 = self._pci_cf8
        except (HypercallError, NotRamError, StateError) as error:
            raise self._refuse(str(error)) from None
        try:
            device_state.write_bytes(self._reader.model())
        except OSError as error:
            raise HostFailure(f"write {device_state}: {error.strerror}") from None
        self.device_state = device_state

    def apply_processors(self, domain: Domain, engine: Engine) -> None:
        """Have the engine go on where the guest was. ToolstackError."""
        try:
            with domain.lock:
                engine.load_state(self._processors)
        except (StateError, EngineUnavailable) as error:
            raise self._refuse(str(error)) from None
